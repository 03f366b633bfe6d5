"""``lrc-ase dielectric``: static dielectric constant of runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from lrc_ase.cli.console import DebugOption, one_line_errors
from lrc_ase.cli.run_analysis import (
    EpsInfOption,
    OutputOption,
    OverwriteOption,
    SkipOption,
    TemperatureOption,
    current_table,
    new_files,
    write_table,
)

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
    eps_inf: EpsInfOption = 1.0,
    skip: SkipOption = 0.0,
    blocks: Annotated[int, typer.Option(help="Blocks of each run whose spread gives the error.", min=1)] = 5,
    temperature: TemperatureOption = None,
    output: OutputOption = None,
    overwrite: OverwriteOption = False,
    debug: DebugOption = False,
) -> None:
    """Compute the static dielectric constant from the fluctuation of the dipole moment, or from runs in fields.

    Liquids need nanoseconds. Check in the plot that the estimate has converged.

    Example: lrc-ase dielectric md.traj --skip 100
    """
    from lrc_ase.report.dielectric_plot import plot_dielectric
    from lrc_ase.simulation import dielectric_constant, read_current

    table, plot = new_files(runs, output, ("dielectric.csv", "dielectric.png"), overwrite=overwrite)
    records = [read_current(current_table(run)) for run in runs]
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
    write_table(table, {"time_ps": constant.times, "running_estimate": constant.running})
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
