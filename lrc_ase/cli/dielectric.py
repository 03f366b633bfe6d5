"""``lrc-ase dielectric``: static dielectric constant of runs."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Annotated

import typer

from lrc_ase.cli.console import DebugOption, one_line_errors, refuse_existing

__all__ = ["dielectric"]

_SAME_PLACE = 1e-6
"""Largest distance between the first positions of runs that begin alike, Angstrom."""


@one_line_errors
def dielectric(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Trajectories of `lrc-ase md --current-every` of one system: without a field, or from one start in "
            "different fields.",
            show_default=False,
        ),
    ],
    eps_inf: Annotated[
        float, typer.Option(help="Electronic permittivity; latent charges are smaller than true ones by its root.")
    ] = 1.0,
    skip: Annotated[float, typer.Option(help="Time to leave out at the beginning of each run, ps.", min=0)] = 0.0,
    blocks: Annotated[int, typer.Option(help="Blocks of each run whose spread gives the error.", min=1)] = 5,
    temperature: Annotated[
        float | None, typer.Option(help="Temperature, K; the mean of the runs if not given.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Prefix of the output files; by default the name of the first run."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    debug: DebugOption = False,
) -> None:
    """Compute the static dielectric constant from the fluctuation of the dipole moment, or from runs in fields.

    Liquids need nanoseconds. Check in the plot that the estimate has converged.

    Example: lrc-ase dielectric md.traj --skip 100
    """
    from lrc_ase.files.atomic import writing
    from lrc_ase.report.dielectric_plot import plot_dielectric
    from lrc_ase.simulation import dielectric_constant, read_current

    stem = str(runs[0].with_suffix("") if output is None else output)
    table, plot = Path(f"{stem}.dielectric.csv"), Path(f"{stem}.dielectric.png")
    for path in (table, plot):
        refuse_existing(path, overwrite=overwrite)
    records = [read_current(run.with_name(run.with_suffix("").name + ".current.csv")) for run in runs]
    if any(record.field.any() for record in records):
        _check_common_start(runs)
    constant = dielectric_constant(records, eps_inf=eps_inf, skip=skip, n_blocks=blocks, temperature=temperature)
    error = "" if math.isnan(constant.error) else f" +- {constant.error:.2g}"
    print(
        f"dielectric constant by {constant.method}: {constant.value:.4g}{error}\n"
        f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}, {constant.length:.4g} ps, {constant.temperature:.1f} K, "
        f"errors of {constant.n_blocks} blocks, electronic permittivity {eps_inf:g}"
    )
    if not constant.settled:
        print(
            f"It has not settled: {constant.half_way:.4g} from half of the time, and {constant.slow_share:.0%} of the "
            "fluctuations are slower than a block. The error is too small; take longer runs."
        )
    with writing(table, text=True) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("time_ps", "running_estimate"))
        rows.writerows(
            (f"{time:.8g}", f"{value:.8g}") for time, value in zip(constant.times, constant.running, strict=True)
        )
    plot_dielectric(constant, plot, title=", ".join(run.name for run in runs))
    for path in (table, plot):
        print(f"  {path}")


def _check_common_start(runs: list[Path]) -> None:
    """Raise ValueError if runs in fields begin at different positions."""
    import ase.io
    import numpy as np

    first, *others = (next(ase.io.iread(run, index=0)).positions for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        if len(other) != len(first) or np.abs(other - first).max() > _SAME_PLACE:
            raise ValueError(
                f"{runs[0]} and {run} begin at different positions: runs in fields must start from one structure, as "
                "dipole moments are counted from there"
            )
