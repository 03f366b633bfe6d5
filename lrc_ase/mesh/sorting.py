"""Atoms in the order of the mesh: a counting sort by blocks of it, compiled, on several threads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..compilation import compiled
from ..threads import even_ranges, run_over_ranges
from ..windows import Window

__all__ = ["SortedAtoms", "block_edges", "sort_atoms"]

_SERIAL_BELOW = 30_000
"""Atoms below which threads cost more than they save."""


def block_edges(n_points: int) -> tuple[int, int, int]:
    """Mesh points along the edges of a block, at most along y and z and about so many along x.

    Atoms belong to the block that the first point of their stencil lies in. With the stencils around it a block of one
    channel fits the nearest cache; smaller ones would be copied too often.
    """
    edge = 8 if n_points <= 8 else 16
    return edge, edge, 16


@dataclass(frozen=True, eq=False)
class SortedAtoms:
    """Atoms in the order of the mesh."""

    order: np.ndarray
    """Index of the atom in each place, int64 (n_atoms,)."""
    coordinates: np.ndarray
    """Mesh coordinates in that order, float64 (n_atoms, 3), each in [0, n)."""
    blocks: tuple[int, int, int]
    """Blocks of a mesh along each axis; block b of an axis with n points begins at the first one not before b n /
    n_blocks. Slabs of blocks along x are at least a stencil thick, and of even number, so that the last one's wrap
    meets an odd-even border too."""
    starts: np.ndarray
    """First place of each block, and the end, int64 (n_structures * n_blocks + 1,)."""

    def slabs(self) -> list[tuple[int, int]]:
        """Range of blocks of each slab, structure by structure."""
        n_blocks = self.blocks[1] * self.blocks[2]
        return [(first, first + n_blocks) for first in range(0, len(self.starts) - 1, n_blocks)]

    def block_ranges(self, n_ranges: int) -> list[tuple[int, int]]:
        """Ranges of blocks with about equally many atoms."""
        if n_ranges == 1:
            return [(0, len(self.starts) - 1)]
        wanted = np.arange(n_ranges + 1) * len(self.order) // n_ranges
        borders = np.searchsorted(self.starts, wanted[1:-1]).tolist()
        return list(zip([0, *borders], [*borders, len(self.starts) - 1], strict=True))


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
    blocks, block_of = _blocks(mesh_shape, window.n_points)
    count, place = _sorting_kernels(fractional.dtype)
    ranges = even_ranges(n_atoms, n_threads if n_atoms >= _SERIAL_BELOW else 1)
    keyed = [(index, *own) for index, own in enumerate(ranges)]
    n_blocks = n_structures * blocks[0] * blocks[1] * blocks[2]
    counts, keys = np.zeros((len(ranges), n_blocks), np.int64), np.empty(n_atoms, np.int64)
    unsorted = np.empty((n_atoms, 3))
    arguments = (fractional, structure, mesh_shape, blocks, block_of, window.n_points, unsorted, keys, counts)
    finite = run_over_ranges(count, arguments, keyed, n_threads)
    if not all(finite):
        raise ValueError("`fractional` holds coordinates that are not finite (NaN or infinite)")
    # first place of each block and, within it, of each range
    ends = np.cumsum(counts.T.ravel()).reshape(n_blocks, len(ranges)).T
    following = ends - counts
    starts = np.empty(n_blocks + 1, np.int64)
    starts[:-1], starts[-1] = following[0], n_atoms
    order, coordinates = np.empty_like(keys), np.empty_like(unsorted)
    run_over_ranges(place, (unsorted, keys, following, order, coordinates), keyed, n_threads)
    return SortedAtoms(order, coordinates, blocks, starts)


@lru_cache(maxsize=64)
def _blocks(mesh_shape: tuple[int, ...], n_points: int) -> tuple[tuple[int, int, int], np.ndarray]:
    """Blocks along each axis, and the block of each mesh point of the three axes, one after the other."""
    edges = block_edges(n_points)
    thickness = max(edges[0] - 1, n_points)
    blocks = max(mesh_shape[0] // thickness // 2 * 2, 1), -(-mesh_shape[1] // edges[1]), -(-mesh_shape[2] // edges[2])
    return blocks, np.concatenate([np.arange(n) * own // n for n, own in zip(mesh_shape, blocks, strict=True)])


@lru_cache(maxsize=4)
def _sorting_kernels(dtype: np.dtype) -> tuple[Any, Any]:
    def count(fractional, structure, shape, blocks, block_of, n_points, coordinates, keys, counts, index, first, last):
        """Mesh coordinates in [0, n), block of each atom, and atoms per block; whether all are finite."""
        total = 0.0
        for atom in range(first, last):
            key = structure[atom]
            begin = 0
            for axis in range(3):
                own, n = np.float64(fractional[atom, axis]), shape[axis]
                own = (own - np.floor(own)) * n
                own -= n * (own == n)  # by rounding
                total += own
                coordinates[atom, axis] = own
                point = int(np.floor(own - 0.5 * n_points)) + 1
                if point < 0:
                    point += n
                # what is not finite lies nowhere
                key = key * blocks[axis] + block_of[begin + max(min(point, n - 1), 0)]
                begin += n
            keys[atom] = key
            counts[index, key] += 1
        return np.isfinite(total)

    def place(coordinates, keys, following, order, sorted_coordinates, index, first, last):
        """Put atoms in their places."""
        for atom in range(first, last):
            own = following[index, keys[atom]]
            following[index, keys[atom]] = own + 1
            order[own] = atom
            for axis in range(3):
                sorted_coordinates[own, axis] = coordinates[atom, axis]

    return compiled(count, "count", dtype.name), compiled(place, "place", dtype.name)
