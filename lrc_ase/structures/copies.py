"""Copies of atoms in each step of dynamics."""

from __future__ import annotations

import copy

import numpy as np
from ase import Atoms
from ase.cell import Cell

__all__ = ["copied"]


def copied(atoms: Atoms) -> Atoms:
    """Return what `Atoms.copy` returns, in a fraction of the time: no constructor checks what is valid already."""
    if type(atoms) is not Atoms or atoms.constraints:
        return atoms.copy()
    duplicate = copy.copy(atoms)
    duplicate.calc = None
    attributes = vars(duplicate)
    for name, value in attributes.items():
        if isinstance(value, (np.ndarray, Cell, dict, list)):  # the list is that of constraints, and empty
            attributes[name] = value.copy()
    arrays = duplicate.arrays
    for name, array in arrays.items():
        arrays[name] = array.copy()
    return duplicate
