"""Spreading and gathering on the CPU, compiled by Numba at first use and cached on disk.

What makes them fast: atoms are visited in the order of the mesh (a counting sort); the window and its derivatives come
from one Horner scheme over all points of the stencil at once; the three directions are contracted one after the other,
so that all derivative orders share the innermost loop; and that loop runs over a whole line of the stencil, channels
included, whose length (padded to a multiple of 4) the compiler knows. Threads (the kernels release the interpreter
lock) spread slabs of the mesh, those of even index first, then the odd ones, so that no two ever write to the same
plane.

Three dimensions only: lines and planes are cheap enough in plain torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit, uintp

__all__ = ["gather_compiled", "spread_compiled"]

_SERIAL_BELOW = 4000
"""Atoms times channels below which threads cost more than they save."""


def spread_compiled(
    weights: np.ndarray,
    coordinates: np.ndarray,
    structure: np.ndarray,
    n_points: int,
    table: np.ndarray,
    orders: Sequence[tuple[int, ...]],
    mesh: np.ndarray,
    n_threads: int,
) -> None:
    """Add weights to the mesh.

    `weights` (n_atoms, n_orders, n_channels), `coordinates` (n_atoms, 3) float64 in [0, n), `structure` (n_atoms,),
    `table` (max_order + 1, degree + 1, n_points rounded up to 4) with the highest power first, `orders`
    (n_orders, 3), `mesh` (n_structures, *mesh_shape, n_channels), all contiguous.
    """
    shape, n_channels = mesh.shape[1:4], mesh.shape[4]
    kernel = _spread_kernel(table.shape[2], table.shape[0], n_channels == 1, mesh.dtype.name)
    atoms, slabs = _counting_sort(coordinates, structure, shape, mesh.shape[0])
    arguments = (
        weights,
        coordinates,
        structure,
        n_points,
        table,
        _slots(orders, table.shape[0]),
        mesh.reshape(-1),
        shape,
        atoms,
    )
    if n_threads == 1 or weights.shape[0] * n_channels < _SERIAL_BELOW:
        kernel(*arguments, 0, len(atoms))
        return
    for phase in _phases(slabs, shape[0], mesh.shape[0], n_points, n_threads):
        _in_threads(kernel, arguments, phase, n_threads)


def gather_compiled(
    mesh: np.ndarray,
    coordinates: np.ndarray,
    structure: np.ndarray,
    n_points: int,
    table: np.ndarray,
    orders: Sequence[tuple[int, ...]],
    gathered: np.ndarray,
    n_threads: int,
) -> None:
    """Interpolate the mesh into `gathered` (n_atoms, n_orders, n_channels); the rest as in `spread_compiled`."""
    shape, n_channels = mesh.shape[1:4], mesh.shape[4]
    kernel = _gather_kernel(table.shape[2], table.shape[0], n_channels == 1, mesh.dtype.name)
    atoms, _ = _counting_sort(coordinates, structure, shape, mesh.shape[0])
    arguments = (
        gathered,
        coordinates,
        structure,
        n_points,
        table,
        _slots(orders, table.shape[0]),
        mesh.reshape(-1),
        shape,
        atoms,
    )
    if n_threads == 1 or gathered.shape[0] * n_channels < _SERIAL_BELOW:
        kernel(*arguments, 0, len(atoms))
        return
    edges = np.linspace(0, len(atoms), 4 * n_threads + 1).astype(int)
    _in_threads(kernel, arguments, list(pairwise(edges.tolist())), n_threads)


def _slots(orders: Sequence[tuple[int, ...]], n_orders: int) -> np.ndarray:
    """Place of each multi-index among all (n_orders)^d of them."""
    return np.array([sum(o * n_orders**p for p, o in enumerate(reversed(order))) for order in orders])


def _phases(
    starts: np.ndarray, n_planes: int, n_structures: int, n_points: int, n_threads: int
) -> list[list[tuple[int, int]]]:
    """Ranges of sorted atoms in two rounds; within a round no two ranges touch the same plane of the mesh."""
    # an even number of slabs, each at least a stencil thick, so that the last one's wrap meets an odd-even border too
    n_slabs = min(n_planes // n_points, 4 * n_threads) // 2 * 2
    edges = [0, n_planes] if n_slabs < 2 else np.linspace(0, n_planes, n_slabs + 1).astype(int).tolist()
    rounds: list[list[tuple[int, int]]] = [[], []]
    slabs = list(pairwise(edges))
    for structure in range(n_structures):
        first = structure * n_planes
        for slab, (low, high) in enumerate(slabs):
            rounds[slab % 2].append((int(starts[first + low]), int(starts[first + high])))
    return rounds


def _in_threads(kernel: Callable[..., None], arguments: tuple, ranges: list[tuple[int, int]], n_threads: int) -> None:
    pool = _pool(n_threads, os.getpid())
    for future in [pool.submit(kernel, *arguments, first, last) for first, last in ranges if last > first]:
        future.result()


@lru_cache(maxsize=4)
def _pool(n_threads: int, process: int) -> ThreadPoolExecutor:
    """One pool per process: threads do not survive a fork."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="lrc-ase")


@njit(cache=True, nogil=True)
def _counting_sort(coordinates, structure, shape, n_structures):
    """Atoms in the order of the mesh, and where each plane (structure, x) starts among them."""
    n_atoms = len(coordinates)
    rows = shape[1]
    counts = np.zeros(n_structures * shape[0] * rows + 1, np.int64)
    keys = np.empty(n_atoms, np.int64)
    for atom in range(n_atoms):
        # rounding may put an atom at the very end of the mesh
        x = min(int(coordinates[atom, 0]), shape[0] - 1)
        y = min(int(coordinates[atom, 1]), shape[1] - 1)
        keys[atom] = (structure[atom] * shape[0] + x) * rows + y
        counts[keys[atom] + 1] += 1
    starts = np.cumsum(counts)
    plane_starts = starts[::rows].copy()
    order = np.empty(n_atoms, np.int64)
    for atom in range(n_atoms):
        order[starts[keys[atom]]] = atom
        starts[keys[atom]] += 1
    return order, plane_starts


@njit(inline="always", fastmath=True)
def _window(x, n_points, padded, n, table, values, indices):
    """Values (n_orders, padded) at mesh coordinate x and the mesh points they belong to.

    Inlined, so that `padded` is a constant; a kernel that closed over another function would not be cached on disk.
    """
    shifted = x - 0.5 * n_points
    floor = np.floor(shifted)
    variable = 2 * (shifted - floor) - 1
    for order in range(len(values)):
        for point in range(padded):
            values[order, point] = table[order, 0, point]
        for power in range(1, table.shape[1]):
            for point in range(padded):
                values[order, point] = values[order, point] * variable + table[order, power, point]
    for point in range(padded):
        index = int(floor) + 1 + point
        while index < 0:
            index += n
        while index >= n:
            index -= n
        indices[point] = index


def _compiled(function: Callable[..., None], *variant: object) -> Any:
    """Compile a kernel under a name of its own.

    Numba numbers the cached files of all functions of one name by what it finds on disk, so that two processes that
    compile different variants at the same moment would swap them. With one name for each variant, precision included,
    they can only write the same thing twice.
    """
    function.__qualname__ = "_".join(map(str, variant))
    return njit(cache=True, nogil=True, fastmath=True)(function)


@lru_cache(maxsize=32)
def _spread_kernel(padded: int, n_orders: int, single: bool, precision: str) -> Any:
    def kernel(weights, coordinates, structure, n_points, table, slots, mesh, shape, atoms, first, last):
        kind = mesh.dtype
        zero = kind.type(0)
        n_channels = 1 if single else weights.shape[2]
        line = padded * n_channels
        wx, ix = np.empty((n_orders, padded), kind), np.empty(padded, np.int64)
        wy, iy = np.empty((n_orders, padded), kind), np.empty(padded, np.int64)
        wz, iz = np.empty((n_orders, padded), kind), np.empty(padded, np.int64)
        dense = np.zeros((n_orders, n_orders, n_orders, n_channels), kind)
        flat_dense = dense.reshape(-1, n_channels)
        lines = np.empty((n_orders, n_orders, line), kind)
        plane = np.empty((n_orders, line), kind)
        for place in range(first, last):
            atom = atoms[place]
            _window(coordinates[atom, 0], n_points, padded, shape[0], table, wx, ix)
            _window(coordinates[atom, 1], n_points, padded, shape[1], table, wy, iy)
            _window(coordinates[atom, 2], n_points, padded, shape[2], table, wz, iz)
            for slot in range(len(slots)):
                for c in range(n_channels):
                    flat_dense[slots[slot], c] = weights[atom, slot, c]
            for s in range(n_orders):
                for q in range(n_orders):
                    for point in range(padded):
                        for c in range(n_channels):
                            total = zero
                            for r in range(n_orders):
                                total += wz[r, point] * dense[s, q, r, c]
                            lines[s, q, point * n_channels + c] = total
            wraps = iz[padded - 1] - iz[0] != padded - 1
            for a in range(n_points):
                for q in range(n_orders):
                    for i in range(line):
                        total = zero
                        for s in range(n_orders):
                            total += wx[s, a] * lines[s, q, uintp(i)]
                        plane[q, uintp(i)] = total
                for b in range(n_points):
                    row = ((structure[atom] * shape[0] + ix[a]) * shape[1] + iy[b]) * shape[2] * n_channels
                    # unsigned indices: Numba then leaves out its test for negative ones, and the loop is vectorised
                    start = uintp(row + iz[0] * n_channels)
                    if wraps:
                        for point in range(padded):
                            for c in range(n_channels):
                                total = zero
                                for q in range(n_orders):
                                    total += wy[q, b] * plane[q, point * n_channels + c]
                                mesh[uintp(row + iz[point] * n_channels + c)] += total
                    else:
                        for i in range(line):
                            total = zero
                            for q in range(n_orders):
                                total += wy[q, b] * plane[q, uintp(i)]
                            mesh[start + uintp(i)] += total

    return _compiled(kernel, "spread", padded, n_orders, single, precision)


@lru_cache(maxsize=32)
def _gather_kernel(padded: int, n_orders: int, single: bool, precision: str) -> Any:
    def kernel(gathered, coordinates, structure, n_points, table, slots, mesh, shape, atoms, first, last):
        kind = mesh.dtype
        zero = kind.type(0)
        n_channels = 1 if single else gathered.shape[2]
        line = padded * n_channels
        wx, ix = np.empty((n_orders, padded), kind), np.empty(padded, np.int64)
        wy, iy = np.empty((n_orders, padded), kind), np.empty(padded, np.int64)
        wz, iz = np.empty((n_orders, padded), kind), np.empty(padded, np.int64)
        dense = np.empty((n_orders, n_orders, n_orders, n_channels), kind)
        flat_dense = dense.reshape(-1, n_channels)
        plane = np.empty((n_orders, line), kind)
        buffer = np.empty(line, kind)
        for place in range(first, last):
            atom = atoms[place]
            _window(coordinates[atom, 0], n_points, padded, shape[0], table, wx, ix)
            _window(coordinates[atom, 1], n_points, padded, shape[1], table, wy, iy)
            _window(coordinates[atom, 2], n_points, padded, shape[2], table, wz, iz)
            dense[:] = zero
            wraps = iz[padded - 1] - iz[0] != padded - 1
            for a in range(n_points):
                plane[:] = zero
                for b in range(n_points):
                    row = ((structure[atom] * shape[0] + ix[a]) * shape[1] + iy[b]) * shape[2] * n_channels
                    start = uintp(row + iz[0] * n_channels)
                    if wraps:
                        for point in range(padded):
                            for c in range(n_channels):
                                buffer[point * n_channels + c] = mesh[uintp(row + iz[point] * n_channels + c)]
                        for q in range(n_orders):
                            for i in range(line):
                                plane[q, uintp(i)] += wy[q, b] * buffer[uintp(i)]
                    else:
                        for q in range(n_orders):
                            for i in range(line):
                                plane[q, uintp(i)] += wy[q, b] * mesh[start + uintp(i)]
                for q in range(n_orders):
                    for r in range(n_orders):
                        for c in range(n_channels):
                            total = zero
                            for point in range(padded):
                                total += wz[r, point] * plane[q, point * n_channels + c]
                            for s in range(n_orders):
                                dense[s, q, r, c] += wx[s, a] * total
            for slot in range(len(slots)):
                for c in range(n_channels):
                    gathered[atom, slot, c] = flat_dense[slots[slot], c]

    return _compiled(kernel, "gather", padded, n_orders, single, precision)
