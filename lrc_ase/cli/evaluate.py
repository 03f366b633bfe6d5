"""``lrc-ase evaluate``: errors of potentials on labelled frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from matplotlib.figure import Figure
from rich.markup import escape

from lrc_ase.cli.console import (
    DebugOption,
    DeviceOption,
    ThreadsOption,
    one_line_errors,
    progress_bar,
    set_threads,
)
from lrc_ase.cli.label_options import with_label_options
from lrc_ase.cli.printed_tables import print_table
from lrc_ase.dataset import LabelKeys, read_frames
from lrc_ase.evaluation import check_comparable, evaluate_frames, write_evaluation
from lrc_ase.files.potential_file import load_potential
from lrc_ase.files.pretrained import find_potential, is_potential
from lrc_ase.files.printable import printable
from lrc_ase.report.parity import plot_parity
from lrc_ase.report.run_report import AS_STORED, report_evaluations, training_file_remarks
from lrc_ase.report.tables import (
    config_type_table,
    electric_errors_of,
    electric_table,
    element_table,
    errors_table,
    label_remarks,
    set_table,
    uncertainty_table,
)

__all__ = ["evaluate"]


@one_line_errors
@with_label_options()
def evaluate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="POTENTIAL... FRAMES...",
            help="One or more potentials (.safetensors files, run folders, shipped names) and files of labelled frames "
            "in any format of ASE, with wildcards and '@' slices.",
            show_default=False,
        ),
    ],
    plot: Annotated[Path | None, typer.Option(help="Write a parity plot (PNG, PDF, SVG).")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write report.html, errors.json and tables of all predictions (CSV) to this folder."),
    ] = None,
    *,
    keys: LabelKeys,
    batch_size: Annotated[int, typer.Option(help="Frames evaluated at once.", min=1)] = 4,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64; by default that of the file.")] = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Compare potentials with the labels of frames, several potentials side by side.

    Shows errors for all frames, by file, by config_type and by element. Energies are total energies, in meV/atom.
    Forces are in meV/Angstrom, stresses in meV/Angstrom^3, dipoles in e Angstrom, Born effective charges in e. Frames
    may lack some of the labels.

    Example: lrc-ase evaluate run test.extxyz --plot parity.png
    """
    set_threads(threads)
    potentials = [name for name in files if is_potential(name)]
    data = [name for name in files if name not in potentials]
    if not potentials or not data:
        taken = "frames" if data else "potentials"
        raise ValueError(
            "give at least one potential (a .safetensors file, a run folder or a shipped name) and one file of frames; "
            f"taken for {taken}: {', '.join(files)}"
        )
    if len({find_potential(name).resolve() for name in potentials}) < len(potentials):
        raise ValueError("the same potential is named twice")
    names = _short_names(potentials)
    _check_outputs(plot, report)
    loaded = {
        name: load_potential(path, device=device, dtype=dtype) for name, path in zip(names, potentials, strict=True)
    }
    frames = read_frames(data)
    remarks = check_comparable(frames, keys)
    evaluations = {}
    with progress_bar() as bar:
        for name, potential in loaded.items():
            task = bar.add_task(escape(printable(name)), total=len(frames), status="")
            evaluations[name] = evaluate_frames(
                potential,
                frames,
                keys=keys,
                required=(),
                batch_size=batch_size,
                report_progress=lambda done, _, task=task: bar.update(task, completed=done),  # type: ignore[misc]
            )
    print_table(errors_table({name: evaluation.metrics for name, evaluation in evaluations.items()}))
    for table in (
        electric_table(electric_errors_of(evaluations)),
        set_table(evaluations),
        config_type_table(evaluations),
        element_table(evaluations),
        uncertainty_table(evaluations, f"Uncertainty: deviations {AS_STORED}"),
    ):
        if table is not None:
            print_table(table)
    remarks += [*label_remarks(next(iter(evaluations.values()))), *training_file_remarks(loaded, evaluations)]
    for remark in remarks:
        print(f"Note: {printable(remark)}")
    if plot is not None:
        plot_parity(evaluations, plot)
        print(f"  {plot}")
    if report is not None:
        for name, evaluation in evaluations.items():
            write_evaluation(evaluation, report / name if len(evaluations) > 1 else report)
        print(f"  {report_evaluations(loaded, evaluations, frames, report)}")


def _check_outputs(plot: Path | None, report: Path | None) -> None:
    """Raise an error if plot or report cannot be written, before anything is computed."""
    if plot is not None:
        formats = Figure().canvas.get_supported_filetypes()
        if plot.suffix.removeprefix(".").lower() not in formats:
            raise ValueError(f"--plot {plot}: the name must end in one of {', '.join(f'.{each}' for each in formats)}")
        if not plot.parent.is_dir():
            raise FileNotFoundError(f"the folder {plot.parent} does not exist")
    if report is not None:
        if (report / "report.html").exists():
            raise FileExistsError(f"{report} already holds a report: give another folder")
        report.mkdir(parents=True, exist_ok=True)


def _short_names(potentials: list[str]) -> list[str]:
    """Return a name for each potential: its file or folder, preceded by the folder above where two are the same."""
    files = [Path(name).resolve() for name in potentials]
    names = [file.stem if file.suffix == ".safetensors" else file.name for file in files]
    if len(set(names)) < len(names):
        longer = [f"{file.parent.name}-{name}" for file, name in zip(files, names, strict=True)]
        # the name of a shipped potential is no path
        names = [name if not file.exists() else long for name, file, long in zip(names, files, longer, strict=True)]
    if len(set(names)) < len(names):
        raise ValueError(f"potentials in different folders have the same name ({', '.join(names)}): rename one of them")
    return names
