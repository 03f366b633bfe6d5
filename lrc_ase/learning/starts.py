"""First frames: rattled and strained copies of the structures to start from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.neighborlist import neighbor_list

from lrc_ase.dataset import SOURCE_KEY, Atoms, read_frames
from lrc_ase.learning.settings import FirstFramesSettings
from lrc_ase.structures.charge import charge_entries

__all__ = ["first_frames", "read_starts", "shortest_distance", "strain_at_random"]

_KEPT = ("numbers", "positions", "masses", "tags", "initial_magmoms", "initial_charges")
"""Arrays of a start that its copies keep: what a teacher or dynamics may need."""
_SEARCHED = 4.0
"""Range in which the shortest distance is looked for, Angstrom."""


def read_starts(paths: Sequence[str]) -> list[Atoms]:
    """Read the structures to start from, without labels and velocities. All frames of a file are starts.

    ValueError for one that holds no atoms, has atoms too near, or is periodic without a cell.
    """
    starts = read_frames(list(paths))
    for atoms in starts:
        name = atoms.info.get(SOURCE_KEY, "the structure")
        if len(atoms) == 0:
            raise ValueError(f"{name} holds no atoms")
        if any(atoms.pbc) and not np.linalg.matrix_rank(atoms.cell.array[atoms.pbc]) == sum(atoms.pbc):
            raise ValueError(
                f"{name} is periodic but its cell vectors are zero or dependent: give a cell, or pbc F F F"
            )
        if shortest_distance(atoms) < 0.3:
            raise ValueError(f"{name}: two atoms are {shortest_distance(atoms):.2f} Angstrom apart; is it in Angstrom?")
    return [_bare(atoms) for atoms in starts]


def _bare(atoms: Atoms) -> Atoms:
    """Return a structure without labels and without entries that belong to one geometry alone."""
    bare = atoms.copy()
    bare.info = {key: atoms.info[key] for key in (SOURCE_KEY, *charge_entries(atoms)) if key in atoms.info}
    for name in [*bare.arrays]:
        if name not in _KEPT:
            del bare.arrays[name]
    return bare


def shortest_distance(atoms: Atoms) -> float:
    """Return the shortest distance between two atoms, images included, Angstrom; 4 if all are farther apart."""
    distances = neighbor_list("d", atoms, _SEARCHED)
    return float(distances.min()) if len(distances) else _SEARCHED


def first_frames(
    starts: Sequence[Atoms], settings: FirstFramesSettings, count: int, rng: np.random.Generator
) -> list[Atoms]:
    r"""Return `count` copies of the starts, in turn, displaced and strained by random amounts.

    Displacements are normal, with a standard deviation between a tenth of `settings.rattle` and all of it, in units of
    the shortest distance. Cell vectors and positions of periodic directions are mapped by 1 + e, with a symmetric
    strain e whose components are uniform within :math:`\pm` `settings.strain`. Fully periodic cells also shrink by up
    to this strain in each direction, or grow by up to twice as much, as solids do when they melt. The first copy of
    each start is the start itself, rattled by the smallest amount.
    """
    frames = []
    for index in range(count):
        atoms = starts[index % len(starts)].copy()
        first = index < len(starts)
        size = 0.1 if first else rng.uniform(0.1, 1.0)
        rattle = size * settings.rattle * shortest_distance(atoms)
        if not first:
            strain_at_random(atoms, settings.strain, rng)
        atoms.positions += rattle * rng.standard_normal((len(atoms), 3))
        atoms.info["origin"] = "first"
        frames.append(atoms)
    return frames


def strain_at_random(atoms: Atoms, largest: float, rng: np.random.Generator) -> None:
    """Apply a random strain to the periodic directions of a structure."""
    directions = np.flatnonzero(atoms.pbc)
    if not len(directions):
        return
    strain = rng.uniform(-largest, largest, (3, 3))
    strain = 0.5 * (strain + strain.T)
    if len(directions) == 3:
        strain += np.eye(3) * rng.uniform(-largest, 2 * largest)
    else:
        # a projector on the periodic directions: vacuum and shape across it stay
        vectors = np.linalg.qr(atoms.cell.array[directions].T)[0]
        projector = vectors @ vectors.T
        strain = projector @ strain @ projector
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=False)
    atoms.positions[:] = atoms.positions @ (np.eye(3) + strain)
