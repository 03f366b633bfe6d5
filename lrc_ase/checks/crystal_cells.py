"""Relaxed cells of a crystal, which the checks of its mechanics, vibrations and surfaces start from."""

from __future__ import annotations

import math
import warnings
from importlib.util import find_spec

import numpy as np
from ase import Atoms

from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.relaxation import RelaxSettings, relax
from lrc_ase.structures.charge import set_total_charge, total_charge

__all__ = ["cell_widths", "relaxed_crystal", "repetitions"]

FORCE = 1e-3
"""Largest force of a relaxed crystal, eV/Angstrom."""
SYMMETRY_TOLERANCE = 1e-3
"""Displacement from symmetric positions that spglib forgives, Angstrom."""


def relaxed_crystal(subject: Subject) -> Atoms:
    """Return the conventional cell of the crystal, positions and cell relaxed.

    The symmetry is that of the relaxed structure, by spglib. Without spglib, and with initial charges or magnetic
    moments that it does not see, the cell is kept as it is.

    Raises
    ------
    NotApplicable
        The system is no crystal.
    RelaxationNotConverged
        The relaxation does not end.
    """
    subject.require("crystal")
    subject.progress("relaxation")
    atoms = subject.atoms()
    relax(atoms, RelaxSettings(fmax=FORCE, cell=True, max_steps=500))
    conventional = None
    if find_spec("spglib") is not None and not atoms.has("initial_charges") and not atoms.has("initial_magmoms"):
        import spglib

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # spglib's, on how it will report errors one day
            conventional = spglib.standardize_cell(
                (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=SYMMETRY_TOLERANCE
            )
    if conventional is None:
        return atoms
    cell, positions, numbers = conventional
    standard = Atoms(numbers, cell=cell, scaled_positions=positions, pbc=True, info=dict(subject.structure.info))
    if charge := total_charge(atoms):  # the conventional cell may hold several primitive ones
        set_total_charge(standard, charge * len(standard) / len(atoms))
    standard.calc = atoms.calc
    relax(standard, RelaxSettings(fmax=FORCE, cell=True, max_steps=100))
    return standard


def cell_widths(atoms: Atoms) -> np.ndarray:
    """Return the distances between opposite faces of the cell, (3,), Angstrom."""
    first, second, third = atoms.cell.array
    areas = np.linalg.norm([np.cross(second, third), np.cross(third, first), np.cross(first, second)], axis=1)
    return np.asarray(atoms.get_volume() / areas)


def repetitions(atoms: Atoms, width: float) -> tuple[int, int, int]:
    """Return the repetitions after which all faces are at least `width` Angstrom apart."""
    first, second, third = (max(math.ceil(width / each - 1e-6), 1) for each in cell_widths(atoms))
    return first, second, third
