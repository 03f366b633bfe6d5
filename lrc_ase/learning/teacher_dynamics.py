"""Molecular dynamics with the teacher itself, in short segments that its worker processes run one at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin

__all__ = ["Segment", "advance"]


@dataclass(frozen=True)
class Segment:
    """A few steps of Langevin dynamics from `atoms`, with its momenta; the last geometry is labelled."""

    atoms: Atoms
    steps: int
    timestep: float
    """fs."""
    temperature: float
    """K."""
    friction: float
    """1/fs."""
    seed: int
    """Seed of the random forces."""

    def conditions(self) -> dict[str, Any]:
        """Return everything but the structure, as the keyword arguments of `advance`."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "atoms"}


def advance(
    calculator: Any, atoms: Atoms, *, steps: int, timestep: float, temperature: float, friction: float, seed: int
) -> Atoms:
    """Return a copy of `atoms` after `steps` steps; units as in `Segment`.

    Raises
    ------
    FloatingPointError
        Positions or momenta are no longer finite.
    """
    moved = atoms.copy()
    moved.calc = calculator
    dynamics = Langevin(
        moved,
        timestep * units.fs,
        temperature_K=temperature,
        friction=friction / units.fs,
        fixcm=False,  # ASE's correction for the center of mass does not sample the canonical distribution
        rng=np.random.default_rng(seed),
        logfile=os.devnull,
    )
    dynamics.run(steps)
    moved.calc = None
    if not (np.isfinite(moved.positions).all() and np.isfinite(moved.get_momenta()).all()):
        raise FloatingPointError(
            f"positions are no longer finite after dynamics at {temperature:g} K: relax the start, or shorten the step"
        )
    return moved
