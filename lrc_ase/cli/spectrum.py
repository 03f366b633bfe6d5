"""``lrc-ase spectrum``: infrared spectrum and vibrational density of states of runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrc_ase.cli.console import DebugOption, one_line_errors, say
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

if TYPE_CHECKING:
    from lrc_ase.simulation import InfraredSpectrum
    from lrc_ase.simulation.bands import Band
    from lrc_ase.simulation.vibrational_states import VelocityRecord

__all__ = ["spectrum"]

LARGEST = 4500.0
"""End of tables, cm^-1."""
LONGEST_INTERVAL = 33.0
"""Longest time between frames for a density of states, fs: 500 cm^-1 at most are resolved."""


@one_line_errors
def spectrum(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Trajectories of `lrc-ase md` of one system.", show_default=False),
    ],
    resolution: Annotated[float, typer.Option(help="Width of a sharp line at half height, cm^-1.")] = 20.0,
    window: Annotated[str, typer.Option(help="Window: hann, gaussian, blackman or boxcar (none).")] = "hann",
    quantum_correction: Annotated[
        str, typer.Option(help="Quantum correction of the intensities: harmonic, standard, schofield or none.")
    ] = "harmonic",
    blocks: Annotated[int, typer.Option(help="Blocks whose spread gives the error band.", min=1)] = 5,
    skip: SkipOption = 0.0,
    temperature: TemperatureOption = None,
    eps_inf: EpsInfOption = 1.0,
    interval: Annotated[
        float | None, typer.Option(help="Time between frames, fs, of trajectories of other programs.")
    ] = None,
    largest: Annotated[
        float | None,
        typer.Option(
            "--max",
            help="End of the plot and the tables, cm^-1. If not given, 4500 for tables, the signal for the plot.",
        ),
    ] = None,
    output: OutputOption = None,
    overwrite: OverwriteOption = False,
    debug: DebugOption = False,
) -> None:
    """Compute the infrared spectrum and the vibrational density of states of molecular dynamics.

    The infrared spectrum needs the polarization current (`lrc-ase md --current-every`). The density of states needs
    frames with velocities every few fs (`--write-every`), of any calculator. Writes tables and a plot.

    Example: lrc-ase spectrum md.traj --skip 5
    """
    from lrc_ase.report.spectrum_plot import plot_spectra
    from lrc_ase.simulation import SpectrumSettings, infrared_spectrum, read_current, vibrational_states
    from lrc_ase.simulation.bands import bands

    table_end = LARGEST if largest is None else largest
    settings = SpectrumSettings(resolution=resolution, window=window, n_blocks=blocks)
    infrared_table, states_table, plot = new_files(
        runs, output, ("infrared.csv", "vdos.csv", "spectrum.png"), overwrite=overwrite
    )
    currents = _currents(runs)
    infrared, states, shown, written = None, None, [], []
    if currents:
        records = [read_current(path, skip=skip) for path in currents]
        infrared = infrared_spectrum(
            records,
            settings,
            quantum_correction=quantum_correction.lower(),
            temperature=temperature,
            eps_inf=eps_inf,
        )
        inside = infrared.wavenumbers <= table_end
        shown = bands(infrared.wavenumbers[inside], infrared.absorption[inside], infrared.error[inside])
        volume = "no volume" if records[0].volume is None else f"{records[0].volume:.0f} Angstrom^3"
        print(
            f"infrared: {infrared.length:.4g} ps every {records[0].interval:g} fs, {infrared.temperature:.1f} K, "
            f"{volume}\n{window} window of {resolution:g} cm^-1, {quantum_correction} quantum correction, "
            f"errors of {infrared.n_blocks} blocks"
        )
        _print_bands(shown, infrared)
        name = "alpha_n_cm-1" if infrared.unit == "cm^-1" else "molar_km_per_mol_per_cm-1"
        columns = {"wavenumber_cm-1": infrared.wavenumbers}
        columns |= {name: infrared.absorption, f"error_{name}": infrared.error}
        written.append(write_table(infrared_table, columns, inside))
    velocities = _velocities(runs, interval, skip, needed=infrared is None)
    if velocities:
        try:
            states = vibrational_states(velocities, settings)
        except ValueError as error:
            if infrared is None:
                raise
            say(f"no density of states: {error}")
    if states is not None:
        print(
            f"density of states: {len(velocities[0].masses)} atoms, "
            f"{sum(len(record.velocities) for record in velocities)} frames every {velocities[0].interval:g} fs"
        )
        columns = {"wavenumber_cm-1": states.wavenumbers, "states_per_cm-1": states.total, "error": states.error}
        columns |= {f"states_{symbol}": density for symbol, density in states.density.items()}
        written.append(write_table(states_table, columns, states.wavenumbers <= table_end))
    heading = ", ".join(run.name for run in runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
    plot_spectra(infrared, states, plot, bands=shown, largest=largest, title=heading)
    for path in (*written, plot):
        print(f"  {path}")


def _currents(runs: list[Path]) -> list[Path]:
    """Return the tables of the polarization current beside the runs; ValueError if only some runs have one."""
    tables = [current_table(run) for run in runs]
    present = [path for path in tables if path.exists()]
    if present and len(present) < len(tables):
        missing = next(path for path in tables if not path.exists())
        raise FileNotFoundError(f"{missing} does not exist, {present[0]} does: give runs with --current-every alone")
    return present


def _velocities(runs: list[Path], interval: float | None, skip: float, *, needed: bool) -> list[VelocityRecord]:
    """Return the velocities of the runs; empty, with a line that says why, where no density of states can be made.

    If it is `needed`, as there is no current either, the reason is an error.
    """
    from lrc_ase.simulation.vibrational_states import read_velocities

    records, reason = [], ""
    for run in runs:
        try:
            record = read_velocities(run, interval=interval, skip=skip)
        except (ValueError, FileNotFoundError) as error:
            reason = str(error)
            break
        if record is None:
            reason = f"the frames of {run} have no velocities"
            break
        if record.interval > LONGEST_INTERVAL:
            reason = f"the frames of {run} are {record.interval:g} fs apart: --write-every 2 to 4 fs"
            break
        records.append(record)
    if reason and needed:
        raise ValueError(f"neither a polarization current (lrc-ase md --current-every) nor velocities: {reason}")
    if reason:
        say(f"no density of states: {reason}")
        return []
    return records


def _print_bands(shown: list[Band], infrared: InfraredSpectrum) -> None:
    """Print position, height and width of the bands."""
    unit = infrared.unit
    print(f"{'band, cm^-1':>12} {'width':>7}   {'alpha n' if unit == 'cm^-1' else 'molar absorption'}, {unit}")
    for band in shown:
        error = "" if math.isnan(band.error) else f" +- {float(f'{band.error:.2g}'):g}"
        print(f"{band.position:12.0f} {band.width:7.0f}   {band.height:.4g}{error}")
    if not shown:
        print("            none stands out of the noise: a longer run or a coarser --resolution shows more")
