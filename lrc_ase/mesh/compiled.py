"""Spreading and gathering on the CPU, compiled by Numba at first use and cached on disk.

What makes them fast: atoms are visited block by block of the mesh (`sorting`), so that its lines stay in the nearest
cache, and their coordinates are copied into that order first; a line of the stencil is one vector
in registers (`lrc_ase.simd`); the window and its derivatives come from one Horner scheme over the whole line; an atom
whose line wraps around the cell is done in two lines instead of point by point; and all derivatives asked for share one
pass over the mesh. Threads (the kernels release the interpreter lock) spread slabs of the mesh, those of even index
first, then the odd ones, so that no two ever write to the same plane.

Three dimensions only: lines and planes are cheap enough in plain torch.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import int64

from ..compilation import compiled, even_ranges, inlined, run_over_ranges
from ..simd import address, fill, load, store, total
from ..windows import Window
from .sorting import SortedAtoms

__all__ = ["MAX_LEVEL", "gather_compiled", "line_width", "spread_compiled"]

MAX_LEVEL = 2
"""Highest total degree of derivatives in the kernels."""
_SERIAL_BELOW = 4000
"""Atoms times channels below which threads cost more than they save."""


def line_width(window: Window) -> int:
    """Points in a line of the stencil as the kernels see it; the last axis of a mesh must be at least as long."""
    return next(width for width in (4, 8, 12, 16) if width >= window.n_points)


def spread_compiled(
    weights: np.ndarray, atoms: SortedAtoms, window: Window, level: int, mesh: np.ndarray, n_threads: int
) -> None:
    """Add weights to the mesh.

    `weights` (n_atoms, n_orders, n_channels) with the orders of `multi_indices(3, level)`, `mesh` (n_structures,
    n_channels, *mesh_shape), both contiguous and of one type.
    """
    kernel = _spread_kernel(line_width(window), window.n_points, level, mesh.dtype)
    table = window.horner_table(mesh.dtype, line_width(window))
    arguments = (weights, atoms.order, atoms.coordinates, atoms.structure, table, mesh.reshape(-1), mesh.shape[1:])
    if n_threads == 1 or len(atoms.order) * mesh.shape[1] < _SERIAL_BELOW:
        kernel(*arguments, 0, len(atoms.order))
        return
    for parity in range(2):
        ranges = [slab for own in atoms.slabs for slab in list(pairwise(own.tolist()))[parity::2]]
        run_over_ranges(kernel, arguments, [(first, last) for first, last in ranges if last > first], n_threads)


def gather_compiled(
    mesh: np.ndarray, atoms: SortedAtoms, window: Window, level: int, gathered: np.ndarray, n_threads: int
) -> None:
    """Interpolate the mesh into `gathered` (n_atoms, n_orders, n_channels); the rest as in `spread_compiled`."""
    kernel = _gather_kernel(line_width(window), window.n_points, level, mesh.dtype)
    table = window.horner_table(mesh.dtype, line_width(window))
    arguments = (gathered, atoms.order, atoms.coordinates, atoms.structure, table, mesh.reshape(-1), mesh.shape[1:])
    n_ranges = 1 if n_threads == 1 or len(atoms.order) * mesh.shape[1] < _SERIAL_BELOW else 4 * n_threads
    run_over_ranges(kernel, arguments, even_ranges(len(atoms.order), n_ranges), n_threads)


# The functions below get width, n_points and level as constants. The memory `s` of a kernel holds the window's factors
# along x and those along y, three vectors each, and the lines that `_part` moves, between lines of zeros.


@inlined
def _window(coordinate, table, n_terms, zero, n_points, width, level):
    """First mesh point (before wrapping), and vectors of the window's value, first and second derivative there."""
    shifted = coordinate - 0.5 * n_points
    floor = np.floor(shifted)
    variable = 2 * (shifted - floor) - 1
    value, first, second = load(table, 0, width), zero, zero
    for power in range(1, n_terms):
        if level > 1:
            second = second * variable + first
        if level > 0:
            first = first * variable + value
        value = value * variable + load(table, power * width, width)
    # d/dx = 2 d/d(variable); Horner's second derivative comes halved
    return int64(floor) + 1, value, first * 2.0, second * 8.0


@inlined
def _axis(coordinate, table, n_terms, zero, n_points, width, level, n, stride, s, factors, offsets, own_offsets):
    """Window factors of one of the first two axes, (level + 1, width) in a row, and the wrapped offsets in the mesh."""
    first_point, value, first, second = _window(coordinate, table, n_terms, zero, n_points, width, level)
    store(s, factors, value)
    if level > 0:
        store(s, factors + width, first)
    if level > 1:
        store(s, factors + 2 * width, second)
    for point in range(n_points):
        index = first_point + point
        if index < 0:
            index += n
        if index >= n:
            index -= n
        offsets[own_offsets + point] = index * stride


@inlined
def _stencil(coordinates, place, table, n_terms, zero, n_points, width, level, shape, s, offsets):
    """Window of an atom: factors and offsets along x and y in memory; along z the first point and vectors.

    A line along z that wraps becomes two, one that ends where the axis ends and one that begins where it begins. Then
    `shift` is how far the first one begins before the end, and `_part` has the vectors of each.
    """
    _, n_x, n_y, n_z = shape
    x, y, z = coordinates[place, 0], coordinates[place, 1], coordinates[place, 2]
    _axis(x, table, n_terms, zero, n_points, width, level, n_x, n_y * n_z, s, 0, offsets, 0)
    _axis(y, table, n_terms, zero, n_points, width, level, n_y, n_z, s, 3 * width, offsets, n_points)
    first_point, z0, z1, z2 = _window(z, table, n_terms, zero, n_points, width, level)
    if first_point < 0:
        first_point += n_z
    shift = first_point - (n_z - width)
    if shift > 0:
        store(s, 7 * width, z0)
        store(s, 10 * width, z1)
        store(s, 13 * width, z2)
    return first_point, shift, z0, z1, z2


@inlined
def _part(s, width, shift):
    """Lines of the window and its derivatives moved right by `shift`, the rest zero."""
    return load(s, 7 * width - shift, width), load(s, 10 * width - shift, width), load(s, 13 * width - shift, width)


@lru_cache(maxsize=64)
def _spread_kernel(width: int, n_points: int, level: int, dtype: np.dtype) -> Any:
    def kernel(weights, order, coordinates, structure, table_array, mesh_array, shape, first_place, last_place):
        n_channels, n_x, n_y, n_z = shape
        n_terms = table_array.shape[0]
        memory, offset_memory = np.zeros(15 * width, table_array.dtype), np.empty(2 * n_points, np.int64)
        s, offsets, table, mesh = address(memory), address(offset_memory), address(table_array), address(mesh_array)
        zero = fill(table_array.dtype.type(0), width)
        for place in range(first_place, last_place):
            atom = order[place]
            first_point, shift, z0, z1, z2 = _stencil(
                coordinates, place, table, n_terms, zero, n_points, width, level, shape, s, offsets
            )
            for part in range(2 if shift > 0 else 1):
                begin = first_point
                if shift > 0:
                    begin = (n_z - width) * (1 - part)
                    z0, z1, z2 = _part(s, width, shift - width * part)
                for channel in range(n_channels):
                    f = weights[atom, :, channel]
                    line00 = z0 * f[0]
                    if level > 0:
                        line00 = z1 * f[3] + line00
                        line10, line01 = z0 * f[1], z0 * f[2]
                    if level > 1:
                        line00 = z2 * f[9] + line00
                        line10, line01 = z1 * f[6] + line10, z1 * f[8] + line01
                        line20, line11, line02 = z0 * f[4], z0 * f[5], z0 * f[7]
                    start = (structure[place] * n_channels + channel) * n_x * n_y * n_z + begin
                    for a in range(n_points):
                        x0 = s[a]
                        plane0 = line00 * x0
                        if level > 0:
                            x1 = s[width + a]
                            plane0 = line10 * x1 + plane0
                            plane1 = line01 * x0
                        if level > 1:
                            x2 = s[2 * width + a]
                            plane0 = line20 * x2 + plane0
                            plane1 = line11 * x1 + plane1
                            plane2 = line02 * x0
                        for b in range(n_points):
                            row = start + offsets[a] + offsets[n_points + b]
                            values = plane0 * s[3 * width + b] + load(mesh, row, width)
                            if level > 0:
                                values = plane1 * s[4 * width + b] + values
                            if level > 1:
                                values = plane2 * s[5 * width + b] + values
                            store(mesh, row, values)
        memory[0], offset_memory[0] = 0, 0  # keeps them alive until here

    return compiled(kernel, "spread", width, n_points, level, dtype.name)


@lru_cache(maxsize=64)
def _gather_kernel(width: int, n_points: int, level: int, dtype: np.dtype) -> Any:
    def kernel(gathered, order, coordinates, structure, table_array, mesh_array, shape, first_place, last_place):
        n_channels, n_x, n_y, n_z = shape
        n_terms = table_array.shape[0]
        memory, offset_memory = np.zeros(15 * width, table_array.dtype), np.empty(2 * n_points, np.int64)
        s, offsets, table, mesh = address(memory), address(offset_memory), address(table_array), address(mesh_array)
        zero = fill(table_array.dtype.type(0), width)
        for place in range(first_place, last_place):
            atom = order[place]
            first_point, shift, z0, z1, z2 = _stencil(
                coordinates, place, table, n_terms, zero, n_points, width, level, shape, s, offsets
            )
            gathered[atom] = 0
            for part in range(2 if shift > 0 else 1):
                begin = first_point
                if shift > 0:
                    begin = (n_z - width) * (1 - part)
                    z0, z1, z2 = _part(s, width, shift - width * part)
                for channel in range(n_channels):
                    line00, line10, line01 = zero, zero, zero
                    line20, line11, line02 = zero, zero, zero
                    start = (structure[place] * n_channels + channel) * n_x * n_y * n_z + begin
                    for a in range(n_points):
                        plane0, plane1, plane2 = zero, zero, zero
                        for b in range(n_points):
                            values = load(mesh, start + offsets[a] + offsets[n_points + b], width)
                            plane0 = values * s[3 * width + b] + plane0
                            if level > 0:
                                plane1 = values * s[4 * width + b] + plane1
                            if level > 1:
                                plane2 = values * s[5 * width + b] + plane2
                        x0 = s[a]
                        line00 = plane0 * x0 + line00
                        if level > 0:
                            x1 = s[width + a]
                            line10 = plane0 * x1 + line10
                            line01 = plane1 * x0 + line01
                        if level > 1:
                            line20 = plane0 * s[2 * width + a] + line20
                            line11 = plane1 * x1 + line11
                            line02 = plane2 * x0 + line02
                    v = gathered[atom, :, channel]
                    v[0] += total(line00 * z0)
                    if level > 0:
                        v[1] += total(line10 * z0)
                        v[2] += total(line01 * z0)
                        v[3] += total(line00 * z1)
                    if level > 1:
                        v[4] += total(line20 * z0)
                        v[5] += total(line11 * z0)
                        v[6] += total(line10 * z1)
                        v[7] += total(line02 * z0)
                        v[8] += total(line01 * z1)
                        v[9] += total(line00 * z2)
        memory[0], offset_memory[0] = 0, 0  # keeps them alive until here

    return compiled(kernel, "gather", width, n_points, level, dtype.name)
