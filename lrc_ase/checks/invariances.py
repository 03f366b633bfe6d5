"""Check that energies and forces do not depend on place, direction, numbering and choice of the cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

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


class Changed(NamedTuple):
    """Atoms after a change that must not matter. Forces f of them are `f[numbers] @ turn` before the change."""

    name: str
    atoms: Atoms
    numbers: np.ndarray | slice = slice(None)
    """Number of each atom after the change."""
    turn: np.ndarray = np.eye(3)
    """Rotation from coordinates before the change to those after it, (3, 3)."""
    copies: int = 1
    """Copies of each atom."""


def invariances(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Compare energies and forces before and after changes that must not matter.

    The changes are translations by a part of the cell and by 1000 Angstrom, rotation of atoms with their cell, another
    order of the atoms, shifts of single atoms by cell vectors, and a repeated cell.
    """
    atoms = subject.rattled(rng)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    scale = max(float(np.sqrt(np.mean(forces**2))), 1e-3)
    names, quantities = [], []
    for name, changed, numbers, turn, copies in _changes(atoms, rng):
        subject.progress(name)
        names.append(name)
        changed.calc = subject.candidate.calculator
        shift = abs(changed.get_potential_energy() / copies - energy) / len(atoms)
        difference = float(np.abs(changed.get_forces()[numbers] @ turn - forces).max()) / scale
        quantities += [
            Quantity(f"{name}: energy", float(shift), "eV/atom", at_most=LARGEST_ENERGY_CHANGE),
            Quantity(f"{name}: forces / root mean square force", difference, at_most=LARGEST_CHANGE),
        ]
    return CheckResult.judged(
        "invariances", f"{len(names)} changes that must not matter were made: {', '.join(names)}.", quantities
    )


def _changes(atoms: Atoms, rng: np.random.Generator) -> Iterator[Changed]:
    """Yield `atoms` after each change."""
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    order = np.empty(len(atoms), dtype=int)
    cycle = rng.permutation(len(atoms))
    order[cycle] = np.roll(cycle, 1)  # one cycle: no atom keeps its number
    yield Changed("translation", _moved(atoms, rng.uniform(0.5, 3, 3)))
    yield Changed("translation by 1000 Angstrom", _moved(atoms, FAR * np.array([1.0, -0.7, 0.4])))
    yield Changed("rotation", _turned(atoms, turn), turn=turn)
    yield Changed("permutation", atoms[order], numbers=np.argsort(order))
    if atoms.pbc.any():
        yield Changed("shift by cell vectors", _shifted(atoms, rng))
        repeats = _repetitions(atoms)
        copies = int(np.prod(repeats))
        if copies > 1:
            yield Changed("supercell", repeated(atoms, repeats), numbers=slice(len(atoms)), copies=copies)


def _moved(atoms: Atoms, vector: np.ndarray) -> Atoms:
    moved = atoms.copy()
    moved.translate(vector)
    return moved


def _turned(atoms: Atoms, turn: np.ndarray) -> Atoms:
    """Rotate atoms and cell; the cell is no longer a lower triangle."""
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ turn.T)
    turned.positions = atoms.positions @ turn.T
    return turned


def _shifted(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Shift every atom by cell vectors of periodic directions."""
    shifted = atoms.copy()
    shifted.positions += (rng.integers(-2, 3, (len(atoms), 3)) * atoms.pbc) @ atoms.cell.array
    return shifted


def _repetitions(structure: Atoms) -> tuple[int, int, int]:
    """Return repetitions by 2 along as many periodic directions as `LARGEST_SUPERCELL` allows."""
    repeats = [1, 1, 1]
    for axis in np.flatnonzero(structure.pbc):
        if 2 * len(structure) * np.prod(repeats) <= LARGEST_SUPERCELL:
            repeats[axis] = 2
    return repeats[0], repeats[1], repeats[2]
