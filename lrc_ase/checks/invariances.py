"""Check that energies and forces do not depend on place, direction, numbering and choice of the cell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation

from lrc_ase.checks.results import CheckResult, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.structures.charge import repeated

__all__ = ["invariances"]

LARGEST_CHANGE = 2e-3
"""Largest change of forces, in units of their root mean square. Forces of a mesh change where atoms move against it."""
LARGEST_ENERGY_CHANGE = 1e-4
"""Largest change of the energy, eV per atom."""
LARGEST_SUPERCELL = 600
"""Largest number of atoms of a repeated cell."""
FAR = 1000.0
"""Length of a translation, Angstrom, at which coordinates in single precision lose four digits."""


def invariances(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Compare energies and forces before and after changes that must not matter.

    The changes are translations by a part of the cell and by 1000 Angstrom, rotation of atoms with their cell, another
    order of the atoms, shifts of single atoms by cell vectors, and a repeated cell.
    """
    atoms = subject.rattled(rng)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    scale = max(float(np.sqrt(np.mean(forces**2))), 1e-3)
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    order = np.empty(len(atoms), dtype=int)
    cycle = rng.permutation(len(atoms))
    order[cycle] = np.roll(cycle, 1)  # one cycle: no atom keeps its number
    changes: dict[str, tuple[Callable[[Atoms], Atoms], Callable[[np.ndarray], np.ndarray], int]] = {
        "translation": (lambda each: _moved(each, rng.uniform(0.5, 3, 3)), lambda values: values, 1),
        "translation by 1000 Angstrom": (
            lambda each: _moved(each, FAR * np.array([1.0, -0.7, 0.4])),
            lambda values: values,
            1,
        ),
        "rotation": (lambda each: _turned(each, turn), lambda values: values @ turn, 1),
        "permutation": (lambda each: each[order], lambda values: values[np.argsort(order)], 1),
    }
    if subject.structure.pbc.any():
        changes["shift by cell vectors"] = (lambda each: _shifted(each, rng), lambda values: values, 1)
        repeats = _repetitions(subject.structure)
        copies = int(np.prod(repeats))
        if copies > 1:
            changes["supercell"] = (lambda each: repeated(each, repeats), lambda values: values[: len(atoms)], copies)
    quantities = []
    for name, (change, back, copies) in changes.items():
        subject.progress(name)
        changed = change(atoms.copy())
        changed.calc = subject.candidate.calculator
        shift = abs(changed.get_potential_energy() / copies - energy) / len(atoms)
        difference = float(np.abs(back(changed.get_forces()) - forces).max()) / scale
        quantities += [
            Quantity(f"{name}: energy", float(shift), "eV/atom", at_most=LARGEST_ENERGY_CHANGE),
            Quantity(f"{name}: forces / root mean square force", difference, at_most=LARGEST_CHANGE),
        ]
    return CheckResult.judged(
        "invariances", f"{len(changes)} changes that must not matter were made: {', '.join(changes)}.", quantities
    )


def _moved(atoms: Atoms, vector: np.ndarray) -> Atoms:
    atoms.translate(vector)
    return atoms


def _turned(atoms: Atoms, turn: np.ndarray) -> Atoms:
    """Rotate atoms and cell; the cell is no longer a lower triangle."""
    atoms.set_cell(atoms.cell.array @ turn.T)
    atoms.positions = atoms.positions @ turn.T
    return atoms


def _shifted(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Shift every atom by cell vectors of periodic directions."""
    shifts = rng.integers(-2, 3, (len(atoms), 3)) * atoms.pbc
    atoms.positions += shifts @ atoms.cell.array
    return atoms


def _repetitions(structure: Atoms) -> tuple[int, int, int]:
    """Return repetitions by 2 along as many periodic directions as `LARGEST_SUPERCELL` allows."""
    repeats = [1, 1, 1]
    for axis in np.flatnonzero(structure.pbc):
        if 2 * len(structure) * np.prod(repeats) <= LARGEST_SUPERCELL:
            repeats[axis] = 2
    return repeats[0], repeats[1], repeats[2]
