"""Detection of force components that ASE's constraints set to zero, which are no labels."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled

__all__ = ["constrained_components"]

_PARALLEL = 1e-9
"""Components of a unit vector below this count as zero."""


def constrained_components(atoms: Atoms) -> np.ndarray:
    """Return a mask of the Cartesian components that constraints may have zeroed, bool (n_atoms, 3).

    A program that zeroes along a cell vector or along an oblique direction leaves an exact zero in a Cartesian
    component only where the two agree. Callers therefore combine this mask with ``forces == 0``.
    """
    constrained = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            constrained[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            constrained[constraint.index] |= np.asarray(constraint.mask, dtype=bool)
        elif isinstance(constraint, FixScaled):
            # cell vectors along which the atom may not move, and the Cartesian axes that they are not normal to
            held = np.abs(atoms.cell.array[np.asarray(constraint.mask, dtype=bool)])
            constrained[constraint.index] |= (held > _PARALLEL).any(axis=0)
        elif isinstance(constraint, FixedPlane):  # moves across the normal `dir`
            constrained[constraint.index] |= np.abs(constraint.dir) > _PARALLEL
        elif isinstance(constraint, FixedLine):  # moves along `dir`
            constrained[constraint.index] |= np.abs(constraint.dir) < 1 - _PARALLEL
    return constrained
