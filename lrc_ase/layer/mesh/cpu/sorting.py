"""Atoms in the order of the mesh: a counting sort by blocks of it, compiled, on several threads.

Spreading and gathering touch some hundred mesh points per atom. In the order of the input these lie anywhere in a mesh
that does not fit a cache; sorted, neighbors in the list share them. Three levels: *slabs* of tiles along x are the work
of one thread, a *tile* is copied to memory that stays in the second nearest cache, and within a tile atoms go by
*blocks* whose stencils the nearest cache holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from lrc_ase.compiled.compilation import compiled, inlined
from lrc_ase.compiled.simd import address, prefetch
from lrc_ase.compiled.threads import even_ranges, run_over_ranges
from lrc_ase.layer.windows import Window

__all__ = ["SortedAtoms", "sort_atoms", "tile_edges"]

_BLOCK_EDGES = (8, 8, 16)
"""Mesh points along the edges of a block, at most."""
_THINNEST_SLAB = 7
"""Mesh points along x in the thinnest slab of tiles; twice as many where that leaves enough slabs for all threads."""
_THREADED_FROM = 4000
"""Atoms from which threads share the slabs."""
_COUNT, _ACCUMULATE, _FILL, _ALL = range(4)
"""Steps of the sort."""
_AHEAD = 16
"""Atoms between the request for a slot's memory and its use."""
_SERIAL_BELOW = 30_000
"""Atoms below which threads cost more than they save."""


def tile_edges(n_points: int) -> tuple[int, int]:
    """Return the largest number of mesh points along y and z of a tile, without the stencils around it.

    With the stencils a tile of one channel fits the second nearest cache; smaller ones would be copied too
    often.
    """
    return (32, 32) if n_points <= 8 else (16, 32)


@dataclass(eq=False)
class SortedAtoms:
    """Atoms in the order of the mesh: tile by tile, and within each by blocks that the nearest cache holds.

    Atoms belong to the tile and the block that the first point of their stencil lies in.
    """

    order: np.ndarray
    """Index of the atom in each slot, int64 (n_atoms,)."""
    coordinates: np.ndarray
    """Mesh coordinates in that order, float64 (n_atoms, 3), each in [0, n)."""
    mesh_shape: tuple[int, ...]
    tiles: tuple[int, int, int]
    """Tiles of a mesh along each axis; tile t of an axis with n points begins at the first one not before t n /
    n_tiles. Slabs of tiles along x are at least a stencil thick, and of even number, so that the last one's wrap
    meets an odd-even border too."""
    starts: np.ndarray
    """First slot of each tile, and the end, int64 (n_structures * n_tiles + 1,)."""

    def slabs(self) -> list[tuple[int, int]]:
        """Return the range of tiles of each slab, structure by structure."""
        n_tiles = self.tiles[1] * self.tiles[2]
        return [(first, first + n_tiles) for first in range(0, len(self.starts) - 1, n_tiles)]

    def tile_ranges(self, n_ranges: int) -> list[tuple[int, int]]:
        """Cut the tiles into ranges with about equally many atoms."""
        if n_ranges == 1:
            return [(0, len(self.starts) - 1)]
        atoms = np.arange(1, n_ranges) * len(self.order) // n_ranges
        borders = np.searchsorted(self.starts, atoms).tolist()
        return list(zip([0, *borders], [*borders, len(self.starts) - 1], strict=True))


def sort_atoms(
    fractional: np.ndarray,
    structure: np.ndarray,
    mesh_shape: tuple[int, ...],
    n_structures: int,
    window: Window,
    n_threads: int = 1,
) -> SortedAtoms:
    """Sort by tiles and blocks of the mesh; `fractional` (n_atoms, 3) any real numbers, `structure` (n_atoms,).

    Raises
    ------
    ValueError
        Coordinates that are not finite.
    """
    n_atoms = len(fractional)
    # slabs of even and of odd index are spread in turn, so each thread wants two
    n_slabs = math.ceil(2 * n_threads / max(n_structures, 1)) if n_atoms >= _THREADED_FROM else 1
    tiles, n_blocks, keys_of_points = _blocks(mesh_shape, window.n_points, n_slabs)
    n_blocks *= tiles[0] * tiles[1] * tiles[2]
    ranges = [(0, n_atoms)] if n_atoms < _SERIAL_BELOW else even_ranges(n_atoms, n_threads)
    # one row of counts per range: threads that shared one would need atomic additions
    counts = np.zeros((len(ranges), n_structures * n_blocks), np.int64)
    starts = np.empty(n_structures * tiles[0] * tiles[1] * tiles[2] + 1, np.int64)
    order, coordinates = np.empty(n_atoms, np.int64), np.empty((n_atoms, 3))
    keys = np.empty(n_atoms, np.int64)
    kernel = _sorting_kernel(fractional.dtype)
    atoms = fractional, structure, mesh_shape, n_blocks, keys_of_points, window.n_points
    arguments = (*atoms, keys, counts, starts, order, coordinates)
    if len(ranges) == 1:
        finite = kernel(*arguments, _ALL, 0, 0, n_atoms)
    else:
        indexed = [(index, *atom_range) for index, atom_range in enumerate(ranges)]
        # three passes, as slots are known only when all ranges have counted
        finite = all(run_over_ranges(kernel, (*arguments, _COUNT), indexed, n_threads))
        if finite:
            kernel(*arguments, _ACCUMULATE, 0, 0, 0)
            run_over_ranges(kernel, (*arguments, _FILL), indexed, n_threads)
    if not finite:
        raise ValueError("`fractional` holds coordinates that are not finite (NaN or infinite)")
    return SortedAtoms(order, coordinates, mesh_shape, tiles, starts)


@lru_cache(maxsize=64)
def _blocks(mesh_shape: tuple[int, ...], n_points: int, n_slabs: int) -> tuple[tuple[int, int, int], int, np.ndarray]:
    """Divide a mesh into tiles and blocks.

    Returns the tiles along each axis (at least `n_slabs` along x where the mesh is large enough), the blocks in each
    tile, and for every mesh point of the three axes, one after the other, what it adds to the number of an atom's
    block: keys are sums over axes, so that sorting needs no division.
    """
    edges = tile_edges(n_points)
    thinnest = max(_THINNEST_SLAB, n_points)
    # even, as the slabs of one parity are spread at the same time and the last one wraps around to the first
    slabs = [max(mesh_shape[0] // thickness // 2 * 2, 1) for thickness in (2 * thinnest, thinnest)]
    tiles = slabs[slabs[0] < n_slabs], math.ceil(mesh_shape[1] / edges[0]), math.ceil(mesh_shape[2] / edges[1])
    lengths = [math.ceil(n / n_tiles) for n, n_tiles in zip(mesh_shape, tiles, strict=True)]  # of the longest tile
    n_blocks = [math.ceil(n / edge) for n, edge in zip(lengths, _BLOCK_EDGES, strict=True)]
    in_tile, columns = math.prod(n_blocks), []
    for axis, n in enumerate(mesh_shape):
        tile = np.arange(n) * tiles[axis] // n
        # -(-a // b) rounds up: tile t begins at the first point not before t n / n_tiles
        within = np.arange(n) - -(-tile * n // tiles[axis])
        block = within // _BLOCK_EDGES[axis]
        columns.append(tile * math.prod(tiles[axis + 1 :]) * in_tile + block * math.prod(n_blocks[axis + 1 :]))
    return tiles, in_tile, np.concatenate(columns)


@inlined
def _coordinate(fractional, n):
    """Return the mesh coordinate in [0, n) of a coordinate in units of the cell vector."""
    # in double precision whatever the input: float32 would lose the place between two points of a large mesh
    wrapped = np.float64(fractional)
    wrapped = (wrapped - np.floor(wrapped)) * n
    return wrapped - n * (wrapped == n)  # a tiny negative coordinate plus one rounds to one


@inlined
def _count(fractional, structure, shape, n_blocks, keys_of_points, n_points, keys, counts, first, last):
    """Find the block of each atom and count the atoms of each; return True if all coordinates are finite."""
    total = 0.0
    for atom in range(first, last):
        key = structure[atom] * n_blocks
        begin = 0
        for axis in range(3):
            coordinate, n = _coordinate(fractional[atom, axis], shape[axis]), shape[axis]
            total += coordinate  # one number that is not finite makes the sum so: one test instead of many
            # of the stencil, which begins half a window before the atom: as in `Window.first_point`
            point = int(np.floor(coordinate - 0.5 * n_points)) + 1
            if point < 0:
                point += n
            # clamped: what is not finite casts to any integer, and must not be read outside the table
            key += keys_of_points[begin + max(min(point, n - 1), 0)]
            begin += n
        keys[atom] = key
        counts[key] += 1
    return np.isfinite(total)


@inlined
def _accumulate(counts, starts):
    """Turn the atoms of each range in each block into their first slot; `starts` as in `SortedAtoms`."""
    total, n_blocks = 0, counts.shape[1] // max(len(starts) - 1, 1)
    for tile in range(len(starts) - 1):
        starts[tile] = total
        for block in range(tile * n_blocks, (tile + 1) * n_blocks):
            # ranges follow each other within a block, so that it keeps the order of the input for any number of threads
            for index in range(counts.shape[0]):
                n_atoms = counts[index, block]
                counts[index, block] = total
                total += n_atoms
    starts[len(starts) - 1] = total


@inlined
def _fill(fractional, shape, keys, following, order, coordinates, first, last):
    """Put atoms into their slots; `following` holds the next free slot of each block."""
    far_order, far_coordinates = address(order), address(coordinates)
    for atom in range(first, last):
        # slots of successive atoms lie anywhere in memory: ask for the cache line before it is needed
        soon = following[keys[min(atom + _AHEAD, last - 1)]]
        prefetch(far_order, soon, 1)
        prefetch(far_coordinates, 3 * soon, 1)
        slot = following[keys[atom]]
        following[keys[atom]] = slot + 1
        order[slot] = atom
        for axis in range(3):
            coordinates[slot, axis] = _coordinate(fractional[atom, axis], shape[axis])


@lru_cache(maxsize=4)
def _sorting_kernel(dtype: np.dtype) -> Any:
    # one kernel with a `step`, as compiling three would take three times as long
    def sort(
        fractional,
        structure,
        shape,
        n_blocks,
        keys_of_points,
        n_points,
        keys,
        counts,
        starts,
        order,
        coordinates,
        step,
        index,
        first,
        last,
    ):
        """Run one step for a range of atoms, or all steps for all atoms; return True if coordinates are finite."""
        finite = True
        if step in (_COUNT, _ALL):
            finite = _count(
                fractional, structure, shape, n_blocks, keys_of_points, n_points, keys, counts[index], first, last
            )
        if step in (_ACCUMULATE, _ALL) and finite:
            _accumulate(counts, starts)
        if step in (_FILL, _ALL) and finite:
            _fill(fractional, shape, keys, counts[index], order, coordinates, first, last)
        return finite

    return compiled(sort, "sort", dtype.name)
