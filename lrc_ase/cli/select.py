"""``lrc-ase select``: choice of frames of a trajectory for labeling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lrc_ase.cli.console import (
    DebugOption,
    DeviceOption,
    PotentialArgument,
    ThreadsOption,
    one_line_errors,
    progress_bar,
    refuse_existing,
    set_threads,
)
from lrc_ase.cli.label_options import with_label_options
from lrc_ase.dataset import LabelKeys, read_frames, write_frames
from lrc_ase.evaluation import select_frames
from lrc_ase.files.potential_file import load_potential
from lrc_ase.simulation.output import check_trajectory_output

__all__ = ["select"]

DISAGREEMENT_KEY = "lrc_ase_forces_std"
"""Entry of `Atoms.info` that holds the disagreement about a chosen frame, eV/Angstrom."""


@one_line_errors
@with_label_options("charge")
def select(
    potential: PotentialArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FRAMES...",
            help="Trajectories in any format of ASE, with wildcards and '@' slices.",
            show_default=False,
        ),
    ],
    count: Annotated[int, typer.Option("--count", "-n", help="Frames to choose.", min=1)] = 20,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File for the chosen frames; the suffix selects the format.")
    ] = Path("selected.extxyz"),
    known: Annotated[
        list[str] | None, typer.Option(help="Labeled frames; frames similar to them are not chosen.")
    ] = None,
    by: Annotated[str, typer.Option(help="Disagreement of the worst atom (max) or of all (mean).")] = "max",
    *,
    keys: LabelKeys,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Choose frames on which an ensemble disagrees and which differ from each other and from known frames.

    The frames are written in the order of choice and without calculated results, ready for a reference
    calculation.

    Example: lrc-ase select run md.traj -n 30 --known frames.extxyz -o to-label.extxyz
    """
    set_threads(threads)
    if by not in ("max", "mean"):
        raise ValueError(f"--by must be max or mean, got {by}")
    refuse_existing(output, overwrite=overwrite)
    frames = read_frames(files)
    check_trajectory_output(output, frames[0])
    loaded = load_potential(potential, device=device)
    with progress_bar() as bar:
        task = bar.add_task("frames", total=len(frames), status="")
        selection = select_frames(
            loaded,
            frames,
            count,
            known=read_frames(known) if known else (),
            charge_key=keys.charge,
            by="max" if by == "max" else "mean",
            report_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    chosen = []
    for index in selection.frames:
        atoms = frames[index]
        atoms.calc = None
        atoms.info[DISAGREEMENT_KEY] = float(selection.disagreement[index])
        chosen.append(atoms)
    write_frames(output, chosen)
    shown = selection.disagreement[list(selection.frames)]
    print(
        f"  {len(chosen)} of {len(frames)} frames, force deviations {shown.max():.3g} to {shown.min():.3g} eV/Angstrom"
    )
    print(f"  {output}")
