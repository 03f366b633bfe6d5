"""Search for the pairs of atoms within a cutoff, in any boundary, wherever the atoms are.

matscipy's cell list finds the pairs of atoms that fill their box. It keeps a table of the whole box. Atoms far apart,
such as an evaporated molecule, need SciPy's k-d tree, whose memory depends only on the number of atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from matscipy.neighbours import neighbour_list
from scipy.spatial import cKDTree

__all__ = ["pairs_within"]

_FEW_BINS = 32768
"""Size of a cell list, in bins as long as the cutoff, that is never too large."""
_MOST_BINS_PER_ATOM = 16
"""Bins per atom beyond which a cell list is mostly empty."""

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def pairs_within(positions: np.ndarray, cell: np.ndarray, pbc: Sequence[bool], cutoff: float) -> Pairs:
    """Return both directions of every pair of atoms closer than `cutoff`, sorted by the first atom.

    Parameters
    ----------
    positions
        (n_atoms, 3), Angstrom, finite, anywhere in space.
    cell
        (3, 3), not singular; vectors of open directions are unit vectors, perpendicular to the periodic ones.
    pbc
        Periodic directions.
    cutoff
        Angstrom.

    Returns
    -------
    first, second
        Indices of the atoms, (n_pairs,).
    distances
        (n_pairs,), Angstrom.
    shifts
        Lattice translation of the second atom in units of the cell vectors, whole numbers, (n_pairs, 3); zero along
        open directions.

    Raises
    ------
    MemoryError
        The memory does not suffice for the pairs.
    """
    periodic = np.array(pbc, dtype=bool)
    # bins start at the lowest corner: matscipy before 1.3 translates atoms outside of [0, cell) along open directions
    fractional = positions @ np.linalg.inv(cell)
    lowest, highest = (fractional.min(axis=0), fractional.max(axis=0)) if len(positions) else np.zeros((2, 3))
    positions = (
        positions - np.where(periodic, 0.0, lowest - 0.5) @ cell
    )  # half an Angstrom, so that rounding leaves none out
    box = np.where(periodic, 1.0, highest - lowest + 1.0)[:, None] * cell
    n_bins = np.maximum(_heights(box) / cutoff, 1.0).prod()
    try:
        if n_bins > max(_FEW_BINS, _MOST_BINS_PER_ATOM * len(positions)):
            first, second, distances, shifts = _pairs_by_tree(positions, cell, periodic, cutoff)
        else:
            first, second, distances, shifts = neighbour_list(
                "ijdS", positions=positions, cell=box, pbc=periodic, cutoff=float(cutoff)
            )
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        raise MemoryError(f"no memory for the pairs of {len(positions)} atoms within {cutoff:g} Angstrom") from error
    shifts = shifts.astype(float)
    shifts[:, ~periodic] = 0.0
    return first, second, distances, shifts


def _heights(cell: np.ndarray) -> np.ndarray:
    """Return the distance between the opposite faces of the cell along each cell vector, (3,)."""
    heights: np.ndarray = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    return heights


def _pairs_by_tree(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> Pairs:
    """Find the pairs between atoms, and between atoms and their periodic images near the cell."""
    n_atoms = len(positions)
    fractional = positions @ np.linalg.inv(cell)
    cells = np.where(pbc, np.floor(fractional), 0.0)  # the cell that each atom is in
    wrapped = fractional - cells
    # images further than the cutoff from the cell have no pair with an atom in it
    margin = np.where(pbc, cutoff / _heights(cell), 0.0)
    reach = np.ceil(margin).astype(int)
    atoms, translations = [np.arange(n_atoms)], [np.zeros((n_atoms, 3))]
    for steps in product(*(range(-extent, extent + 1) for extent in reach)):
        if any(steps):
            moved = wrapped + steps
            near = np.flatnonzero((~pbc | ((moved >= -margin) & (moved <= 1 + margin))).all(axis=1))
            atoms.append(near)
            translations.append(np.tile(np.array(steps, dtype=float), (len(near), 1)))
    atom, translation = np.concatenate(atoms), np.concatenate(translations)
    images = (wrapped[atom] + translation) @ cell
    # the first n_atoms images are the atoms themselves
    pairs = cKDTree(images[:n_atoms]).sparse_distance_matrix(cKDTree(images), cutoff, output_type="ndarray")
    first, image = pairs["i"], pairs["j"]
    order = np.flatnonzero(first != image)  # without the distance zero of an atom to itself
    order = order[np.lexsort((image[order], first[order]))]
    first, image = first[order], image[order]
    # the caller's atoms are not wrapped: r_j + S A - r_i is the same vector for wrapped and original positions
    shifts = translation[image] - cells[atom[image]] + cells[first]
    return first, atom[image], pairs["v"][order], shifts
