r"""Self-diffusion coefficients and shear viscosity of a liquid.

In a periodic cell of width L diffusion is hindered by the images. With the viscosity :math:`\eta` from the same run

.. math:: D_\infty = D_L + \frac{2.837297\, k_B T}{6 \pi \eta L}

(Yeh and Hummer, doi:10.1021/jp0477147), and by Green and Kubo

.. math:: \eta = \frac{V}{k_B T} \int_0^\infty \langle P_{ab}(0) P_{ab}(t) \rangle\, dt .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import units
from scipy.integrate import cumulative_trapezoid
from scipy.signal import correlate

from lrc_ase.checks import runs
from lrc_ase.checks.results import CheckResult, Curve, Figure, Quantity
from lrc_ase.checks.subject import Subject

__all__ = ["diffusion", "finite_size_correction", "mean_square_displacement", "shear_viscosity"]

N_BLOCKS = 4
FIT = (0.2, 0.6)
"""Part of the length of a block over which the mean square displacement is fitted by a line."""
CORRELATION = (0.3, 3.0)
"""Shortest and longest time over which pressures are correlated, ps; within them an eighth of the run."""
SMALLEST_DIFFUSION = 0.01
"""Smallest diffusion coefficient of a liquid, 1e-9 m^2/s: water has 2.3, a glass 0."""
_UNIT = "1e-9 m^2/s"
_CUBIC = 2.837297
"""Constant of a lattice of cubic cells."""
_ANGSTROM2_PER_PS = 10.0
"""1e-9 m^2/s."""
_PASCAL_SECOND = units.Pascal * units.second


def diffusion(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Compute diffusion coefficients of the elements from mean square displacements, corrected for the cell's size."""
    subject.require("liquid")
    record = runs.trajectory(runs.production(subject))
    interval = 1e-3 * record.interval
    displacements = record.positions - np.average(record.positions, axis=1, weights=record.masses)[:, None]
    width = float(np.cbrt(record.volume))
    quantities, curves, note = [], [], "Without a stress there is no correction for the size of the cell."
    correction = correction_error = viscosity = None
    if record.stresses is not None:
        viscosity = shear_viscosity(record.stresses, record, interval)
        quantities.append(
            Quantity("shear viscosity", 1e3 * viscosity.value, "mPa s", error=1e3 * viscosity.error, is_main=True)
        )
        note = "The viscosity is not known well enough for the correction for the size of the cell."
        if viscosity.value > 2 * viscosity.error:
            note = ""
            correction, correction_error = finite_size_correction(record.temperature, width, viscosity)
            quantities.append(
                Quantity("correction for the size of the cell", correction, _UNIT, error=correction_error)
            )
    for element in subject.elements:
        chosen = displacements[:, record.symbols == element]
        blocks = [_coefficient(block, interval) for block in np.array_split(chosen, N_BLOCKS)]
        value, error = float(np.mean(blocks)), float(np.std(blocks, ddof=1) / np.sqrt(N_BLOCKS))
        quantities.append(
            Quantity(f"diffusion of {element} in this cell", value, _UNIT, error=error, at_least=SMALLEST_DIFFUSION)
        )
        if correction is not None and correction_error is not None:
            error = float(np.hypot(error, correction_error))
            quantities.append(Quantity(f"diffusion of {element}", value + correction, _UNIT, error=error, is_main=True))
        msd = mean_square_displacement(chosen)[: len(chosen) // 2]
        curves.append(Curve.of(element, interval * np.arange(len(msd)), msd))
    figures = [
        Figure(
            "Mean square displacements",
            "Time (ps)",
            "Mean square displacement (Angstrom^2)",
            tuple(curves),
            "A liquid has straight lines after its first tenths of a ps.",
        )
    ]
    if viscosity is not None:
        figures.append(
            Figure(
                "Viscosity by Green and Kubo",
                "Time of correlation (ps)",
                "Shear viscosity (mPa s)",
                (Curve.of("running integral", viscosity.times, 1e3 * viscosity.running),),
                "The integral must have settled at its end.",
            )
        )
    sentence = (
        f"{interval * len(displacements):.3g} ps at {record.temperature:.0f} K in a cell {width:.3g} Angstrom wide, "
        f"errors of {N_BLOCKS} blocks. {note}"
    ).strip()
    return CheckResult.judged("diffusion", sentence, quantities, figures)


def mean_square_displacement(positions: np.ndarray) -> np.ndarray:
    """Return the mean over atoms and time origins of squared displacements, (n_frames,), Angstrom^2.

    `positions` (n_frames, n_atoms, 3), not wrapped. Sums of squares and correlations by the Fourier transform take the
    place of the double loop over times (Calandrini et al., doi:10.1051/sfn/201112010).
    """
    n_frames = len(positions)
    positions = positions - positions.mean(axis=0)
    squares = (positions**2).sum(axis=2).mean(axis=1)
    spectrum = np.fft.rfft(positions, n=2 * n_frames, axis=0)
    correlation = np.fft.irfft((np.abs(spectrum) ** 2).sum(axis=2).mean(axis=1), n=2 * n_frames)[:n_frames]
    n_origins = np.arange(n_frames, 0, -1)
    forward, backward = np.cumsum(squares)[::-1], np.cumsum(squares[::-1])[::-1]
    return np.asarray((forward + backward - 2 * correlation) / n_origins)


@dataclass(frozen=True)
class Viscosity:
    """Shear viscosity and its running integral."""

    value: float
    """Pa s."""
    error: float
    times: np.ndarray
    """Times of the running integral, (n_times,), ps."""
    running: np.ndarray
    """Pa s, (n_times,)."""


def shear_viscosity(stresses: np.ndarray, record: runs.TrajectoryRecord, interval: float) -> Viscosity:
    """Return the shear viscosity by Green and Kubo, from the five independent components of the traceless pressure.

    `stresses` (n_frames, 3, 3) in eV/Angstrom^3, kinetic part included; `interval` between frames in ps. The error is
    the scatter of the components.
    """
    components = np.stack(
        [
            stresses[:, 0, 1],
            stresses[:, 0, 2],
            stresses[:, 1, 2],
            0.5 * (stresses[:, 0, 0] - stresses[:, 1, 1]),
            0.5 * (stresses[:, 1, 1] - stresses[:, 2, 2]),
        ]
    )
    n_frames = len(stresses)
    longest = float(np.clip(interval * n_frames / 8, *CORRELATION))
    n_times = min(max(int(longest / interval), 2), n_frames)
    unit = record.volume / (units.kB * record.temperature) / _PASCAL_SECOND
    integrals = []
    for component in components:
        correlation = correlate(component, component, method="fft")[n_frames - 1 :][:n_times]
        correlation /= np.arange(n_frames, n_frames - n_times, -1)
        integrals.append(cumulative_trapezoid(correlation, dx=interval * 1000 * units.fs, initial=0.0))
    running = unit * np.array(integrals)
    value, error = float(running[:, -1].mean()), float(running[:, -1].std(ddof=1) / np.sqrt(len(running)))
    return Viscosity(value, error, interval * np.arange(n_times), running.mean(axis=0))


def finite_size_correction(temperature: float, width: float, viscosity: Viscosity) -> tuple[float, float]:
    """Return the correction of Yeh and Hummer and its error, 1e-9 m^2/s; `width` of the cell in Angstrom."""
    boltzmann = units.kB / units.J  # J/K
    correction = 1e9 * _CUBIC * boltzmann * temperature / (6 * np.pi * viscosity.value * width * 1e-10)
    return float(correction), float(abs(correction) * viscosity.error / abs(viscosity.value))


def _coefficient(positions: np.ndarray, interval: float) -> float:
    """Return the diffusion coefficient of a block, 1e-9 m^2/s, from the slope of the mean square displacement."""
    msd = mean_square_displacement(positions)
    begin, end = (int(part * len(msd)) for part in FIT)
    slope = float(np.polyfit(interval * np.arange(begin, end), msd[begin:end], 1)[0])
    return _ANGSTROM2_PER_PS * slope / 6
