"""Relaxation of positions and, optionally, of the cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculatorError
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS

from lrc_ase.files.counted import counted

__all__ = ["RelaxSettings", "Relaxation", "RelaxationNotConverged", "relax"]

OPTIMIZERS = {"lbfgs": LBFGS, "bfgs": BFGS, "fire": FIRE}


class RelaxationNotConverged(RuntimeError):
    """Error of a relaxation that missed its force criterion; `atoms` holds the last structure."""


@dataclass(frozen=True)
class RelaxSettings:
    """Settings of a relaxation."""

    fmax: float = 0.01
    """Largest force that may remain, eV/Angstrom."""
    cell: bool = False
    """True relaxes the cell too."""
    pressure: float = 0.0
    """Pressure on a relaxing cell, GPa."""
    optimizer: Literal["lbfgs", "bfgs", "fire"] = "lbfgs"
    max_steps: int = 1000

    def __post_init__(self) -> None:
        """Raise ValueError for a setting without meaning."""
        if not self.fmax > 0:
            raise ValueError(f"`fmax` must be positive, got {self.fmax}")
        if self.max_steps < 0:
            raise ValueError(f"`max_steps` must not be negative, got {self.max_steps}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"`optimizer` must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if self.pressure and not self.cell:
            raise ValueError("`pressure` acts on the cell: it needs `cell=True`")


@dataclass(frozen=True)
class Relaxation:
    """State of a relaxation after a step, or at its end."""

    steps: int
    energy: float
    """Potential energy, eV."""
    fmax: float
    """Largest force on an atom, constraints applied, eV/Angstrom."""
    pressure: float
    """Pressure, GPa; NaN for a fixed cell."""
    volume: float
    """Volume of the cell, Angstrom^3; NaN for a fixed cell."""


def relax(
    atoms: Atoms, settings: RelaxSettings | None = None, *, report: Callable[[Relaxation, Atoms], None] | None = None
) -> Relaxation:
    """Relax the positions of `atoms`, and its cell if requested, in place to a minimum of the energy.

    `report` is called after each step with the state so far.

    Raises
    ------
    ValueError
        `settings.cell` is set, and the structure is not periodic in three directions.
    RelaxationNotConverged
        The criterion is not met after `settings.max_steps` steps, or energy or forces are not finite, or the calculator
        fails on the way. The structure before the failure is kept.
    """
    settings = settings or RelaxSettings()
    if settings.cell and not atoms.pbc.all():
        raise ValueError(
            f"a cell relaxes only when periodic in three directions, got pbc {atoms.pbc.tolist()}: relax the positions "
            "alone, or make a slab periodic with vacuum and hold its normal (docs/how-to/slabs.md)"
        )
    target = FrechetCellFilter(atoms, scalar_pressure=settings.pressure * units.GPa) if settings.cell else atoms
    optimizer = OPTIMIZERS[settings.optimizer](target, logfile=None)

    def state() -> Relaxation:
        pressure = volume = float("nan")
        if settings.cell:
            pressure = float(-np.trace(atoms.get_stress(voigt=False)) / 3 / units.GPa)
            volume = float(atoms.get_volume())
        force = float(np.sqrt((atoms.get_forces() ** 2).sum(axis=1)).max())
        return Relaxation(optimizer.nsteps, float(atoms.get_potential_energy()), force, pressure, volume)

    sane = atoms.get_positions(), atoms.cell.array.copy()

    def given_up(reason: str) -> RelaxationNotConverged:
        """Put the last sane structure back; return the error."""
        atoms.set_cell(sane[1])
        atoms.set_positions(sane[0], apply_constraint=False)
        return RelaxationNotConverged(f"{reason} at step {optimizer.nsteps}; the structure before it is kept")

    converged, current = False, None
    try:
        # one step at a time: a structure that cannot be evaluated must not replace the last sane one
        for converged in optimizer.irun(fmax=settings.fmax, steps=settings.max_steps):  # noqa: B007 - read after the loop
            current = state()
            if not (np.isfinite(current.energy) and np.isfinite(current.fmax)):
                raise given_up("energy or forces are not finite")
            sane = atoms.get_positions(), atoms.cell.array.copy()
            if report is not None:
                report(current, atoms)
    except CalculatorError as error:
        if current is None:  # the caller's structure, which is as it was
            raise
        raise given_up(f"the calculator failed ({error})") from error
    final = state()
    if not converged:
        raise RelaxationNotConverged(
            f"the largest force is {final.fmax:.4f} eV/Angstrom after {counted(final.steps, 'step')}, asked for "
            f"{settings.fmax}; raise the number of steps or start again from the structure kept"
        )
    return final
