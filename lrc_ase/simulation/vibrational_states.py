r"""Vibrational density of states from the velocities of a trajectory.

.. math:: g(\tilde\nu) = \frac{2 c}{k_B T} \sum_i m_i
          \int_{-\infty}^{\infty} \langle v_i(0) \cdot v_i(t) \rangle\, e^{-2\pi i c \tilde\nu t}\, dt,

in modes per cm^-1, with :math:`k_B T = \sum_i m_i \langle v_i^2 \rangle / 3N`.
The integral over all wave numbers is 3N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ase.io
import numpy as np
from ase.data import atomic_numbers

from lrc_ase.simulation.output import TIME
from lrc_ase.simulation.power_spectrum import WAVENUMBER_FS, SpectrumSettings, power_spectrum, warn_of_aliasing

__all__ = ["VelocityRecord", "VibrationalStates", "read_velocities", "vibrational_states"]


@dataclass(frozen=True)
class VelocityRecord:
    """Velocities of all atoms over time at equal intervals."""

    interval: float
    """Time between frames, fs."""
    symbols: np.ndarray
    """Chemical symbols, (n_atoms,)."""
    masses: np.ndarray
    """(n_atoms,), atomic mass units."""
    velocities: np.ndarray
    """(n_frames, n_atoms, 3), unit of time of ASE."""


@dataclass(frozen=True)
class VibrationalStates:
    """Vibrational density of states."""

    wavenumbers: np.ndarray
    """(n_wavenumbers,), cm^-1."""
    density: dict[str, np.ndarray]
    """Density by element, each (n_wavenumbers,), modes per cm^-1; the sum integrates to 3 N."""
    error: np.ndarray
    """Standard error of the sum from blocks, (n_wavenumbers,); NaN for a single block."""

    @property
    def total(self) -> np.ndarray:
        """Return the sum over the elements, (n_wavenumbers,)."""
        return np.sum([*self.density.values()], axis=0)


def read_velocities(path: str | Path, *, interval: float | None = None, skip: float = 0.0) -> VelocityRecord | None:
    """Read the velocities of a trajectory in any format of ASE that keeps them; None for one without velocities.

    Parameters
    ----------
    interval
        Time between frames, fs. None takes the times that ``lrc-ase md`` writes with each frame. Frames between the
        regular times are then left out: the last one of a run, also where the run was continued, and the first one.
    skip
        Time at the beginning to leave out, ps.

    Raises
    ------
    ValueError
        The times of the frames are unknown or not at equal intervals, frames differ in their atoms, or fewer than two
        are left after `skip`.
    """
    frames = [*ase.io.iread(path, index=":")]
    if len(frames) < 2 or not all(frame.has("momenta") for frame in frames):
        return None
    numbers = frames[0].numbers
    if not all(np.array_equal(frame.numbers, numbers) for frame in frames):
        raise ValueError(f"{path}: the frames must hold the same atoms in the same order")
    if interval is None:
        if not all(TIME in frame.info for frame in frames):
            raise ValueError(f"{path}: its frames carry no times, so the interval between frames must be given")
        times = 1000 * np.array([frame.info[TIME] for frame in frames])
        first = int(np.searchsorted(times, times[0] + 1000 * skip - 1e-6))
        kept, interval = [*range(first, len(frames))], 1.0
        if len(kept) > 1:
            kept, interval = _at_equal_times(path, times, first)
    else:
        first = int(np.ceil(1000 * skip / interval - 1e-9)) if interval > 0 else 0
        kept = [*range(first, len(frames))]
    if not interval > 0:
        raise ValueError(f"{path}: the interval between frames must be positive, got {interval:g} fs")
    if len(kept) < 2:
        raise ValueError(f"{path}: expected at least two frames after the first {skip:g} ps, got {len(kept)}")
    velocities = np.array([frames[index].get_velocities() for index in kept])
    return VelocityRecord(interval, np.array(frames[0].get_chemical_symbols()), frames[0].get_masses(), velocities)


def _at_equal_times(path: str | Path, times: np.ndarray, first: int) -> tuple[list[int], float]:
    """Return the frames from `first` on that follow each other at the most frequent interval, and this interval in fs.

    `times` (n_frames,), fs. Frames between two of these times are left out, and so is one before them.
    """
    lengths, counts = np.unique(np.diff(times[first:]).round(6), return_counts=True)
    interval = float(lengths[counts == counts.max()].max())
    if not interval > 0:
        return [], interval
    start = first + int(np.flatnonzero(np.diff(times[first:]).round(6) == interval)[0])
    interval = float(times[start + 1] - times[start])
    steps = (times[first:] - times[start]) / interval
    on_grid = first + np.flatnonzero(np.isclose(steps, np.round(steps), rtol=0, atol=1e-4))
    gaps = np.diff(times[on_grid])
    if len(gaps) > 1 and on_grid[1] == first + 1 == start and not np.isclose(gaps[0], interval):
        on_grid, gaps = on_grid[1:], gaps[1:]  # the first frame, before frames that follow an equilibration
    if not np.allclose(gaps, interval, rtol=1e-6, atol=1e-9):
        gap = int(np.argmax(np.abs(gaps - interval)))
        raise ValueError(
            f"{path}: expected frames every {interval:g} fs, found {gaps[gap]:g} fs after frame {on_grid[gap]}; "
            "`skip` leaves out frames at the beginning"
        )
    return on_grid.tolist(), interval


def vibrational_states(
    records: Sequence[VelocityRecord], settings: SpectrumSettings | None = None
) -> VibrationalStates:
    """Compute the vibrational density of states of runs of one system, by element.

    Raises
    ------
    ValueError
        No runs, runs of different atoms or intervals, too short for the resolution, or atoms at rest.
    """
    settings = SpectrumSettings() if settings is None else settings
    if not records:
        raise ValueError("`records` must hold at least one run, got none")
    first = records[0]
    for other in records:
        if not np.array_equal(other.symbols, first.symbols) or not np.isclose(other.interval, first.interval):
            raise ValueError("the runs must hold the same atoms, at the same interval")
    # sqrt(m) v: its mean square is kT per component
    signals = [np.sqrt(record.masses)[:, None] * record.velocities for record in records]
    n_samples = sum(map(len, signals))
    thermal_energy = sum(float((signal**2).sum()) for signal in signals) / max(n_samples * 3 * len(first.masses), 1)
    if not thermal_energy > 0:
        raise ValueError("the atoms must move: atoms at rest have no density of states")
    spectra = {}
    for symbol in sorted(set(first.symbols.tolist()), key=lambda name: atomic_numbers[name]):
        of_element = [signal[:, first.symbols == symbol].reshape(len(signal), -1) for signal in signals]
        spectra[symbol] = power_spectrum(of_element, first.interval, settings)
    total = next(iter(spectra.values()))
    total = replace(total, density=np.sum([each.density for each in spectra.values()], axis=0))
    warn_of_aliasing(total, first.interval)
    modes = 2 * WAVENUMBER_FS / thermal_energy
    density = {symbol: modes * each.mean for symbol, each in spectra.items()}
    return VibrationalStates(total.wavenumbers, density, modes * total.error)
