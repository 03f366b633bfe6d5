"""Atoms in the order of the mesh: a counting sort by blocks of it, compiled, on several threads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..compilation import compiled, even_ranges, run_over_ranges
from ..windows import Window

__all__ = ["SortedAtoms", "sort_atoms"]

_BLOCK = 8
"""Mesh points along the edge of a block: with the stencil around it, two channels fit a first-level cache."""
_SERIAL_BELOW = 30_000
"""Atoms below which threads cost more than they save."""


@dataclass(frozen=True, eq=False)
class SortedAtoms:
    """Atoms in the order of the mesh."""

    order: np.ndarray
    """Index of the atom in each place, int64 (n_atoms,)."""
    coordinates: np.ndarray
    """Mesh coordinates in that order, float64 (n_atoms, 3), each in [0, n)."""
    structure: np.ndarray
    """Structure in that order, int64 (n_atoms,)."""
    slabs: np.ndarray
    """First place of each slab of the mesh, and the end, int64 (n_structures, n_slabs + 1); all at least a stencil
    thick, and of even number, so that the last one's wrap meets an odd-even border too."""


def sort_atoms(
    fractional: np.ndarray,
    structure: np.ndarray,
    mesh_shape: tuple[int, ...],
    n_structures: int,
    window: Window,
    n_threads: int = 1,
) -> SortedAtoms:
    """Sort by blocks of the mesh; `fractional` (n_atoms, 3) any real numbers, `structure` (n_atoms,).

    Raises
    ------
    ValueError
        Coordinates that are not finite.
    """
    n_atoms = len(fractional)
    thickness = max(_BLOCK - 1, window.n_points)
    blocks = (max(mesh_shape[0] // thickness // 2 * 2, 1), *(max(n // _BLOCK, 1) for n in mesh_shape[1:]))
    count, place = _sorting_kernels(fractional.dtype)
    ranges = even_ranges(n_atoms, n_threads if n_atoms >= _SERIAL_BELOW else 1)
    keyed = [(index, *own) for index, own in enumerate(ranges)]
    n_blocks = n_structures * blocks[0] * blocks[1] * blocks[2]
    counts, keys = np.zeros((len(ranges), n_blocks), np.int64), np.empty(n_atoms, np.int64)
    unsorted = np.empty((n_atoms, 3))
    finite = run_over_ranges(
        count, (fractional, structure, mesh_shape, blocks, unsorted, keys, counts), keyed, n_threads
    )
    if not all(finite):
        raise ValueError("`fractional` holds coordinates that are not finite (NaN or infinite)")
    # first place of each block and, within it, of each range
    ends = np.cumsum(counts.T.ravel()).reshape(n_blocks, len(ranges)).T
    following = ends - counts
    firsts = np.append(following[0, :: blocks[1] * blocks[2]], n_atoms)  # (n_structures * n_slabs + 1,)
    order, coordinates, own_structure = np.empty_like(keys), np.empty_like(unsorted), np.empty_like(keys)
    arguments = (unsorted, structure, keys, following, order, coordinates, own_structure)
    run_over_ranges(place, arguments, keyed, n_threads)
    slabs = np.stack([firsts[index * blocks[0] : (index + 1) * blocks[0] + 1] for index in range(n_structures)])
    return SortedAtoms(order, coordinates, own_structure, slabs)


@lru_cache(maxsize=4)
def _sorting_kernels(dtype: np.dtype) -> tuple[Any, Any]:
    def count(fractional, structure, shape, blocks, coordinates, keys, counts, index, first, last):
        """Mesh coordinates in [0, n], block of each atom, and atoms per block; whether all are finite."""
        scale = (blocks[0] / shape[0], blocks[1] / shape[1], blocks[2] / shape[2])
        total = 0.0
        for atom in range(first, last):
            key = structure[atom]
            for axis in range(3):
                own = np.float64(fractional[atom, axis])
                own = (own - np.floor(own)) * shape[axis]
                total += own
                coordinates[atom, axis] = own
                # rounding may put an atom at the very end of the mesh, and what is not finite nowhere
                key = key * blocks[axis] + max(min(int(own * scale[axis]), blocks[axis] - 1), 0)
            keys[atom] = key
            counts[index, key] += 1
        return np.isfinite(total)

    def place(coordinates, structure, keys, following, order, sorted_coordinates, sorted_structure, index, first, last):
        """Put atoms in their places."""
        for atom in range(first, last):
            own = following[index, keys[atom]]
            following[index, keys[atom]] = own + 1
            order[own] = atom
            sorted_structure[own] = structure[atom]
            for axis in range(3):
                sorted_coordinates[own, axis] = coordinates[atom, axis]

    return compiled(count, "count", dtype.name), compiled(place, "place", dtype.name)
