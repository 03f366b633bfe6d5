r"""Polarization current of a run, :math:`J = dM/dt = \sum_i Z^*_i v_i`: spectra and permittivities follow from it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError

from lrc_ase.simulation.tables import RunTable
from lrc_ase.structures.electric_field import external_field

__all__ = ["CurrentLog", "CurrentRecord", "check_eps_inf", "polarization_current", "read_current"]


def polarization_current(atoms: Atoms) -> np.ndarray:
    """Return the polarization current of `atoms`, (3,) in e Angstrom/fs, from its calculator.

    Any calculator will do that has the method ``get_polarization_current(atoms)``. The method returns the current in
    e Angstrom per unit of time of ASE, the unit of ``atoms.get_velocities()``.

    Raises
    ------
    ValueError
        The calculator knows no polarization current.
    """
    method = getattr(atoms.calc, "get_polarization_current", None)
    if method is None:
        raise ValueError(
            f"{type(atoms.calc).__name__} has no method get_polarization_current(atoms): the current can be written "
            "with a potential that has latent charges"
        )
    try:
        current: np.ndarray = method(atoms) * units.fs
    except PropertyNotImplementedError as error:
        raise ValueError(f"no polarization current: {error}") from error
    return current


def _dipole_moment(atoms: Atoms) -> np.ndarray:
    """Return the dipole moment of a structure or a periodic cell, (3,) in e Angstrom; NaN where there is none."""
    moment = np.full(3, np.nan)
    with suppress(PropertyNotImplementedError):
        if not atoms.pbc.any():
            moment = atoms.get_dipole_moment()
        elif atoms.pbc.all() and (method := getattr(atoms.calc, "get_polarization", None)) is not None:
            moment = method(atoms) * atoms.get_volume()
    return moment


class CurrentLog(RunTable):
    """Table of the polarization current of a run, with temperature, volume and electric field."""

    kind = "table of the polarization current"
    columns = (
        "step",
        "time_ps",
        "current_x_eA_per_fs",
        "current_y_eA_per_fs",
        "current_z_eA_per_fs",
        "temperature_K",
        "volume_A3",
        "field_x_V_per_A",
        "field_y_V_per_A",
        "field_z_V_per_A",
        "moment_x_eA",
        "moment_y_eA",
        "moment_z_eA",
    )
    digits = 9

    def write(self, step: int, time: float, atoms: Atoms) -> None:
        """Append a row for the present positions and velocities; `time` in ps."""
        volume = atoms.get_volume() if atoms.pbc.all() else float("nan")
        applied = external_field(atoms)
        applied = np.zeros(3) if applied is None else applied
        state = (atoms.get_temperature(), volume, *applied)
        self.append(step, time, (*polarization_current(atoms), *state, *_dipole_moment(atoms)))


@dataclass(frozen=True)
class CurrentRecord:
    """Polarization current over time at equal intervals."""

    interval: float
    """Time between samples, fs."""
    current: np.ndarray
    """(n_samples, 3), e Angstrom/fs."""
    temperature: float
    """Mean kinetic temperature, K."""
    volume: float | None
    """Mean volume of the cell, Angstrom^3; None where a direction is not periodic."""
    field: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Electric field, (3,), V/Angstrom."""
    moments: np.ndarray | None = None
    """Dipole moments, (n_samples, 3), e Angstrom; None where the calculator gave none."""

    @property
    def length(self) -> float:
        """Return the time from the first to the last sample, ps."""
        return 1e-3 * self.interval * (len(self.current) - 1)


def check_eps_inf(eps_inf: float) -> None:
    """Raise ValueError for an electronic permittivity below that of the vacuum."""
    if not eps_inf >= 1:
        raise ValueError(f"`eps_inf` must be at least 1, got {eps_inf:g}")


def read_current(path: str | Path, *, skip: float = 0.0) -> CurrentRecord:
    """Read a table that ``lrc-ase md --current-every`` wrote.

    Parameters
    ----------
    skip
        Time at the beginning to leave out, ps.

    Raises
    ------
    ValueError
        The file is no such table, has fewer than two rows after `skip`, or rows are missing between.
    """
    path = Path(path)
    table = CurrentLog.read(path)
    late = table["time_ps"] >= table["time_ps"].min(initial=np.inf) + skip
    table = {name: values[late] for name, values in table.items()}
    n_rows = len(table["step"])
    if n_rows < 2:
        raise ValueError(f"{path}: expected at least two rows after the first {skip:g} ps, got {n_rows}")
    steps = np.diff(table["step"])
    irregular = np.flatnonzero((steps != steps[0]) | (steps <= 0))
    if irregular.size:
        before, after = table["step"][irregular[0] :][:2]
        raise ValueError(
            f"{path}: expected rows every {steps[0]:.0f} steps, found step {after:.0f} after {before:.0f}: rows are "
            "missing, so make the run again or --skip the time before"
        )
    times, volume = table["time_ps"], float(table["volume_A3"].mean())
    current, fields, moments = (
        np.stack([table[name] for name in CurrentLog.columns[first : first + 3]], axis=1) for first in (2, 7, 10)
    )
    if (fields != fields[0]).any():
        raise ValueError(f"{path}: the electric field must not change during a run")
    return CurrentRecord(
        interval=float(1000 * (times[-1] - times[0]) / (n_rows - 1)),
        current=current,
        temperature=float(table["temperature_K"].mean()),
        volume=volume if np.isfinite(volume) else None,
        field=fields[0],
        moments=moments if np.isfinite(moments).all() else None,
    )
