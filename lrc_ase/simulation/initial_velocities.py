"""Velocities at the start of a run."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units

__all__ = ["thermalize"]


def thermalize(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Draw Maxwell-Boltzmann momenta at `temperature` (K) and remove the motion of the center of mass.

    Where constraints hold atoms, as in a slab, the others have no common motion that could be removed.
    """
    masses = atoms.get_masses()[:, None]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature)
    if len(atoms) > 1:
        momenta -= _may_drift(atoms) * masses * momenta.sum(axis=0) / masses.sum()
    atoms.set_momenta(momenta)


def _may_drift(atoms: Atoms) -> np.ndarray:
    """Return a mask of the directions in which constraints let all atoms move together, bool (3,)."""
    drift = np.repeat(atoms.get_masses()[:, None], 3, axis=1)
    allowed = drift.copy()
    for constraint in atoms.constraints:
        constraint.adjust_momenta(atoms, allowed)
    return np.isclose(allowed, drift).all(axis=0)
