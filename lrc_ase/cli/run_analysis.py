"""Options and files that the commands on finished runs share."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrc_ase.cli.console import refuse_existing

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "EpsInfOption",
    "OutputOption",
    "OverwriteOption",
    "SkipOption",
    "TemperatureOption",
    "current_table",
    "new_files",
    "write_table",
]

EpsInfOption = Annotated[
    float, typer.Option(help="Electronic permittivity; latent charges are smaller than true ones by its root.")
]
SkipOption = Annotated[float, typer.Option(help="Time to leave out at the beginning of each run, ps.", min=0)]
TemperatureOption = Annotated[float | None, typer.Option(help="Temperature, K; the mean of the runs if not given.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Prefix of the output files; by default the name of the first run."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]


def current_table(run: Path) -> Path:
    """Return the path of the polarization current of the trajectory `run`, which ``lrc-ase md`` writes beside it."""
    return run.with_name(run.with_suffix("").name + ".current.csv")


def new_files(runs: Sequence[Path], output: Path | None, endings: Sequence[str], *, overwrite: bool) -> list[Path]:
    """Return the output files with these endings; FileExistsError for one that may not be replaced."""
    stem = str(runs[0].with_suffix("") if output is None else output)
    paths = [Path(f"{stem}.{ending}") for ending in endings]
    for path in paths:
        refuse_existing(path, overwrite=overwrite)
    return paths


def write_table(path: Path, columns: Mapping[str, np.ndarray], rows: np.ndarray | slice = slice(None)) -> Path:
    """Write `rows` of columns of equal length as CSV with eight digits, and return the path."""
    from lrc_ase.files.atomic import writing

    chosen = [values[rows] for values in columns.values()]
    with writing(path, text=True) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows([f"{value:.8g}" for value in row] for row in zip(*chosen, strict=True))
    return path
