"""``lrc-ase sample``: labelled frames of dynamics with a cheap teacher, to pretrain a model on."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from lrc_ase.cli.console import DebugOption, one_line_errors
from lrc_ase.cli.sampling import sample_visibly
from lrc_ase.learning.sampling import SampleSettings
from lrc_ase.learning.teacher import TeacherSettings, parse_options

__all__ = ["sample"]


@one_line_errors
def sample(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="STRUCTURES...",
            help="Structures to start from, in any format of ASE: best the frames that you train on afterwards.",
            show_default=False,
        ),
    ],
    *,
    teacher: Annotated[
        str,
        typer.Option(
            metavar="METHOD|MODULE:CLASS|FILE.py",
            help="Method that moves and labels: GFN1-xTB or GFN2-xTB (package tblite), any calculator of ASE, or a "
            "file with a function calculator().",
            show_default=False,
        ),
    ],
    teacher_options: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE...", help="Options of the calculator.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", "-n", help="Frames to label; 1000 to 4000 by their size if not given.", min=1),
    ] = None,
    temperature: Annotated[
        list[float] | None,
        typer.Option(
            "--temperature", "-t", metavar="K...", help="Temperatures: one, or a range; 300 to 1200 K by default."
        ),
    ] = None,
    spacing: Annotated[int | None, typer.Option(help="Steps between two frames, 8 by default.", min=1)] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall time after which the sampling ends.")] = None,
    processes: Annotated[int, typer.Option(help="Structures that move side by side.", min=1)] = 1,
    teacher_threads: Annotated[int, typer.Option(help="Threads of each of them.", min=1)] = 1,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.extxyz", help="File of the frames; it is extended.")
    ] = Path("sampled.extxyz"),
    seed: Annotated[int | None, typer.Option(help="Seed of starts, temperatures and dynamics.", min=0)] = None,
    debug: DebugOption = False,
) -> None:
    """Sample structures by dynamics of a cheap teacher, with its labels, to pretrain a model on.

    A model that is trained on these frames first, and then on frames of an expensive method, needs fewer of the
    latter. Frames are written as they are labelled: after Ctrl-C the same command goes on.

    Example: lrc-ase sample frames.extxyz --teacher GFN2-xTB
    """
    if output.suffix not in (".extxyz", ".xyz"):
        raise ValueError(f"--output must end in .extxyz, got {output}")
    chosen: dict[str, Any] = {
        "count": count,
        "temperatures": temperature and (min(temperature), max(temperature)),
        "spacing": spacing,
        "minutes": minutes,
        "seed": seed,
    }
    settings = SampleSettings(
        teacher=TeacherSettings(
            calculator=teacher,
            options=parse_options(teacher_options or []),
            processes=processes,
            threads=teacher_threads,
        ),
        **{key: value for key, value in chosen.items() if value is not None},
    )
    if not sample_visibly(files, settings, output).is_complete:
        print("  the same command goes on")
    print(f"  pretrain: lrc-ase train {quote(str(output))} -o pretrained; then: lrc-ase train FRAMES --from pretrained")
