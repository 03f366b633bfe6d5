"""Spreading and gathering on the CPU, compiled by Numba at first use and cached on disk.

What makes them fast: atoms are visited block by block of the mesh (a counting sort), so that its lines stay in the
nearest cache, and their coordinates and weights are copied into that order first; a line of the stencil is one vector
in registers (`simd`); the window and its derivatives come from one Horner scheme over the whole line; an atom whose
line wraps around the cell is done in two lines instead of point by point; and all derivatives asked for share one pass
over the mesh. Threads (the kernels release the interpreter lock) spread slabs of the mesh, those of even index first,
then the odd ones, so that no two ever write to the same plane.

Three dimensions only: lines and planes are cheap enough in plain torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import int64, njit, uint64

from ..windows import Window
from .simd import load, multiply, multiply_add, splat, store, total

__all__ = ["MAX_LEVEL", "SortedAtoms", "gather_compiled", "line_width", "sort_atoms", "spread_compiled"]

MAX_LEVEL = 2
"""Highest total degree of derivatives in the kernels."""
_BLOCK = 8
"""Mesh points along the edge of a block: with the stencil around it, two channels fit a first-level cache."""
_SERIAL_BELOW = 4000
"""Atoms times channels below which threads cost more than they save."""


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


def line_width(window: Window) -> int:
    """Points in a line of the stencil as the kernels see it; the last axis of a mesh must be at least as long."""
    return next(width for width in (4, 8, 12, 16) if width >= window.n_points)


def sort_atoms(
    coordinates: np.ndarray, structure: np.ndarray, mesh_shape: tuple[int, ...], n_structures: int, window: Window
) -> SortedAtoms:
    """Sort by blocks of the mesh; `coordinates` (n_atoms, 3) float64 in [0, n), `structure` (n_atoms,)."""
    thickness = max(_BLOCK - 1, window.n_points)
    blocks = (max(mesh_shape[0] // thickness // 2 * 2, 1), *(max(n // _BLOCK, 1) for n in mesh_shape[1:]))
    order, sorted_coordinates, sorted_structure, starts = _counting_sort(
        coordinates, structure, mesh_shape, blocks, n_structures
    )
    firsts = starts[:: blocks[1] * blocks[2]]  # (n_structures * n_slabs + 1,)
    slabs = np.stack([firsts[index * blocks[0] : (index + 1) * blocks[0] + 1] for index in range(n_structures)])
    return SortedAtoms(order, sorted_coordinates, sorted_structure, slabs)


def spread_compiled(
    weights: np.ndarray, atoms: SortedAtoms, window: Window, level: int, mesh: np.ndarray, n_threads: int
) -> None:
    """Add weights to the mesh.

    `weights` (n_atoms, n_orders, n_channels) with the orders of `multi_indices(3, level)`, `mesh` (n_structures,
    n_channels, *mesh_shape), both contiguous and of one type.
    """
    kernel = _spread_kernel(line_width(window), window.n_points, level, mesh.dtype.name)
    table = window.horner_table(mesh.dtype, line_width(window))
    arguments = (
        weights[atoms.order],
        atoms.coordinates,
        atoms.structure,
        table,
        mesh.reshape(-1),
        mesh.shape[1:],
    )
    if n_threads == 1 or len(atoms.order) * mesh.shape[1] < _SERIAL_BELOW:
        kernel(*arguments, 0, len(atoms.order))
        return
    for parity in range(2):
        ranges = [slab for own in atoms.slabs for slab in list(pairwise(own.tolist()))[parity::2]]
        _in_threads(kernel, arguments, ranges, n_threads)


def gather_compiled(
    mesh: np.ndarray, atoms: SortedAtoms, window: Window, level: int, gathered: np.ndarray, n_threads: int
) -> None:
    """Interpolate the mesh into `gathered` (n_atoms, n_orders, n_channels); the rest as in `spread_compiled`."""
    kernel = _gather_kernel(line_width(window), window.n_points, level, mesh.dtype.name)
    table = window.horner_table(mesh.dtype, line_width(window))
    in_order = np.empty_like(gathered)
    arguments = (in_order, atoms.coordinates, atoms.structure, table, mesh.reshape(-1), mesh.shape[1:])
    if n_threads == 1 or len(atoms.order) * mesh.shape[1] < _SERIAL_BELOW:
        kernel(*arguments, 0, len(atoms.order))
    else:
        edges = np.linspace(0, len(atoms.order), 4 * n_threads + 1).astype(int)
        _in_threads(kernel, arguments, list(pairwise(edges.tolist())), n_threads)
    gathered[atoms.order] = in_order


def _in_threads(kernel: Callable[..., None], arguments: tuple, ranges: list[tuple[int, int]], n_threads: int) -> None:
    pool = _pool(n_threads, os.getpid())
    for future in [pool.submit(kernel, *arguments, first, last) for first, last in ranges if last > first]:
        future.result()


@lru_cache(maxsize=4)
def _pool(n_threads: int, process: int) -> ThreadPoolExecutor:
    """One pool per process: threads do not survive a fork."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="lrc-ase")


@njit(cache=True, nogil=True)
def _counting_sort(coordinates, structure, shape, blocks, n_structures):
    """Order, coordinates and structures of the atoms by block of the mesh, and where each block starts."""
    n_atoms = len(coordinates)
    counts = np.zeros(n_structures * blocks[0] * blocks[1] * blocks[2] + 1, np.int64)
    keys = np.empty(n_atoms, np.int64)
    scale = (blocks[0] / shape[0], blocks[1] / shape[1], blocks[2] / shape[2])
    for atom in range(n_atoms):
        # rounding may put an atom at the very end of the mesh
        x = min(int(coordinates[atom, 0] * scale[0]), blocks[0] - 1)
        y = min(int(coordinates[atom, 1] * scale[1]), blocks[1] - 1)
        z = min(int(coordinates[atom, 2] * scale[2]), blocks[2] - 1)
        keys[atom] = ((structure[atom] * blocks[0] + x) * blocks[1] + y) * blocks[2] + z
        counts[keys[atom] + 1] += 1
    starts = np.cumsum(counts)
    following = starts.copy()
    order = np.empty(n_atoms, np.int64)
    sorted_coordinates = np.empty((n_atoms, 3))
    sorted_structure = np.empty(n_atoms, np.int64)
    for atom in range(n_atoms):
        place = following[keys[atom]]
        following[keys[atom]] += 1
        order[place] = atom
        sorted_structure[place] = structure[atom]
        for axis in range(3):
            sorted_coordinates[place, axis] = coordinates[atom, axis]
    return order, sorted_coordinates, sorted_structure, starts


# The functions below are inlined, so that width, n_points and level are constants; a kernel that closed over another
# function would not be cached on disk. Indices into memory are unsigned: Numba leaves out its test for negative ones.


@njit(inline="always")
def _window(coordinate, table, n_points, width, level):
    """First mesh point (before wrapping), and vectors of the window's value, first and second derivative there."""
    kind = table.dtype.type
    shifted = coordinate - 0.5 * n_points
    floor = np.floor(shifted)
    variable = kind(2 * (shifted - floor) - 1)
    value = load(table, uint64(0), width)
    first = splat(kind(0), width)
    second = splat(kind(0), width)
    for power in range(1, table.shape[0]):
        if level > 1:
            second = multiply_add(second, variable, first)
        if level > 0:
            first = multiply_add(first, variable, value)
        value = multiply_add(value, variable, load(table, uint64(power * width), width))
    # d/dx = 2 d/d(variable); Horner's second derivative comes halved
    return int64(floor) + 1, value, multiply(first, kind(2)), multiply(second, kind(8))


@njit(inline="always")
def _axis(coordinate, table, n_points, width, level, n, stride, factors, starts):
    """Window factors of one of the first two axes, (level + 1, width) in a row, and the wrapped offsets in the mesh."""
    first_point, value, first, second = _window(coordinate, table, n_points, width, level)
    store(factors, uint64(0), value)
    if level > 0:
        store(factors, uint64(width), first)
    if level > 1:
        store(factors, uint64(2 * width), second)
    for point in range(n_points):
        index = first_point + point
        if index < 0:
            index += n
        if index >= n:
            index -= n
        starts[point] = uint64(index * stride)


@njit(inline="always")
def _part(shifted, order, width, shift):
    """Line of the window moved right by `shift`, the rest zero."""
    return load(shifted, uint64((3 * order + 1) * width - shift), width)


def _compiled(function: Callable[..., None], *variant: object) -> Any:
    """Compile a kernel under a name of its own.

    Numba numbers the cached files of all functions of one name by what it finds on disk, so that two processes that
    compile different variants at the same moment would swap them. With one name for each variant, precision included,
    they can only write the same thing twice.
    """
    function.__qualname__ = "_".join(map(str, variant))
    return njit(cache=True, nogil=True, error_model="numpy")(function)


@lru_cache(maxsize=64)
def _spread_kernel(width: int, n_points: int, level: int, precision: str) -> Any:
    def kernel(weights, coordinates, structure, table, mesh, shape, first_place, last_place):
        n_channels, n_x, n_y, n_z = shape
        x_factors, y_factors = np.empty(3 * width, table.dtype), np.empty(3 * width, table.dtype)
        x_starts, y_starts = np.empty(n_points, np.uint64), np.empty(n_points, np.uint64)
        shifted = np.zeros(9 * width, table.dtype)
        for place in range(first_place, last_place):
            _axis(coordinates[place, 0], table, n_points, width, level, n_x, n_y * n_z, x_factors, x_starts)
            _axis(coordinates[place, 1], table, n_points, width, level, n_y, n_z, y_factors, y_starts)
            first_point, z0, z1, z2 = _window(coordinates[place, 2], table, n_points, width, level)
            if first_point < 0:
                first_point += n_z
            # a line that wraps becomes two: one that ends where the axis ends, one that begins where it begins
            shift = first_point - (n_z - width)
            parts = 2 if shift > 0 else 1
            begin = first_point
            if parts == 2:
                store(shifted, uint64(width), z0)
                store(shifted, uint64(4 * width), z1)
                store(shifted, uint64(7 * width), z2)
            for part in range(parts):
                if parts == 2:
                    begin = (n_z - width) * (1 - part)
                    moved = shift - width * part
                    z0 = _part(shifted, 0, width, moved)
                    z1 = _part(shifted, 1, width, moved)
                    z2 = _part(shifted, 2, width, moved)
                for channel in range(n_channels):
                    f = weights[place, :, channel]
                    line00 = multiply(z0, f[0])
                    if level > 0:
                        line00 = multiply_add(z1, f[3], line00)
                        line10, line01 = multiply(z0, f[1]), multiply(z0, f[2])
                    if level > 1:
                        line00 = multiply_add(z2, f[9], line00)
                        line10, line01 = multiply_add(z1, f[6], line10), multiply_add(z1, f[8], line01)
                        line20, line11, line02 = multiply(z0, f[4]), multiply(z0, f[5]), multiply(z0, f[7])
                    start = uint64((structure[place] * n_channels + channel) * n_x * n_y * n_z + begin)
                    for a in range(n_points):
                        x0 = x_factors[uint64(a)]
                        plane0 = multiply(line00, x0)
                        if level > 0:
                            x1 = x_factors[uint64(width + a)]
                            plane0 = multiply_add(line10, x1, plane0)
                            plane1 = multiply(line01, x0)
                        if level > 1:
                            x2 = x_factors[uint64(2 * width + a)]
                            plane0 = multiply_add(line20, x2, plane0)
                            plane1 = multiply_add(line11, x1, plane1)
                            plane2 = multiply(line02, x0)
                        for b in range(n_points):
                            row = start + x_starts[uint64(a)] + y_starts[uint64(b)]
                            values = multiply_add(plane0, y_factors[uint64(b)], load(mesh, row, width))
                            if level > 0:
                                values = multiply_add(plane1, y_factors[uint64(width + b)], values)
                            if level > 1:
                                values = multiply_add(plane2, y_factors[uint64(2 * width + b)], values)
                            store(mesh, row, values)

    return _compiled(kernel, "spread", width, n_points, level, precision)


@lru_cache(maxsize=64)
def _gather_kernel(width: int, n_points: int, level: int, precision: str) -> Any:
    def kernel(gathered, coordinates, structure, table, mesh, shape, first_place, last_place):
        kind = table.dtype.type
        zero = splat(kind(0), width)
        n_channels, n_x, n_y, n_z = shape
        x_factors, y_factors = np.empty(3 * width, table.dtype), np.empty(3 * width, table.dtype)
        x_starts, y_starts = np.empty(n_points, np.uint64), np.empty(n_points, np.uint64)
        shifted = np.zeros(9 * width, table.dtype)
        for place in range(first_place, last_place):
            _axis(coordinates[place, 0], table, n_points, width, level, n_x, n_y * n_z, x_factors, x_starts)
            _axis(coordinates[place, 1], table, n_points, width, level, n_y, n_z, y_factors, y_starts)
            first_point, z0, z1, z2 = _window(coordinates[place, 2], table, n_points, width, level)
            if first_point < 0:
                first_point += n_z
            shift = first_point - (n_z - width)
            parts = 2 if shift > 0 else 1
            begin = first_point
            if parts == 2:
                store(shifted, uint64(width), z0)
                store(shifted, uint64(4 * width), z1)
                store(shifted, uint64(7 * width), z2)
            gathered[place] = kind(0)
            for part in range(parts):
                if parts == 2:
                    begin = (n_z - width) * (1 - part)
                    moved = shift - width * part
                    z0 = _part(shifted, 0, width, moved)
                    z1 = _part(shifted, 1, width, moved)
                    z2 = _part(shifted, 2, width, moved)
                for channel in range(n_channels):
                    line00, line10, line01 = zero, zero, zero
                    line20, line11, line02 = zero, zero, zero
                    start = uint64((structure[place] * n_channels + channel) * n_x * n_y * n_z + begin)
                    for a in range(n_points):
                        plane0, plane1, plane2 = zero, zero, zero
                        for b in range(n_points):
                            values = load(mesh, start + x_starts[uint64(a)] + y_starts[uint64(b)], width)
                            plane0 = multiply_add(values, y_factors[uint64(b)], plane0)
                            if level > 0:
                                plane1 = multiply_add(values, y_factors[uint64(width + b)], plane1)
                            if level > 1:
                                plane2 = multiply_add(values, y_factors[uint64(2 * width + b)], plane2)
                        x0 = x_factors[uint64(a)]
                        line00 = multiply_add(plane0, x0, line00)
                        if level > 0:
                            x1 = x_factors[uint64(width + a)]
                            line10 = multiply_add(plane0, x1, line10)
                            line01 = multiply_add(plane1, x0, line01)
                        if level > 1:
                            line20 = multiply_add(plane0, x_factors[uint64(2 * width + a)], line20)
                            line11 = multiply_add(plane1, x1, line11)
                            line02 = multiply_add(plane2, x0, line02)
                    v = gathered[place, :, channel]
                    v[0] += total(multiply(line00, z0))
                    if level > 0:
                        v[1] += total(multiply(line10, z0))
                        v[2] += total(multiply(line01, z0))
                        v[3] += total(multiply(line00, z1))
                    if level > 1:
                        v[4] += total(multiply(line20, z0))
                        v[5] += total(multiply(line11, z0))
                        v[6] += total(multiply(line10, z1))
                        v[7] += total(multiply(line02, z0))
                        v[8] += total(multiply(line01, z1))
                        v[9] += total(multiply(line00, z2))

    return _compiled(kernel, "gather", width, n_points, level, precision)
