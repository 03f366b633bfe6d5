"""Spreading and gathering on the CPU, compiled by Numba at first use and cached on disk.

What makes them fast: atoms are visited tile by tile of the mesh and block by block within (`sorting`), and their
coordinates are copied into that order first; the mesh around a tile is copied to or from memory of its own, which has
no edges to wrap around, stays in the second nearest cache, and has lines of a length known when compiling; what the
atoms of a block share of it stays in the nearest one; a line of the stencil is one vector in registers
(`lrc_ase.compiled.simd`); the window and its derivatives come from one Horner scheme over the whole line; and all
derivatives asked for share one pass over the mesh. Threads (the kernels release the interpreter lock) spread slabs of
the mesh, those of even index first, then the odd ones, so that no two ever write to the same plane.

Three dimensions only: lines and planes are cheap enough in plain torch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import int64

from lrc_ase.compiled.compilation import compiled, inlined
from lrc_ase.compiled.simd import SPARE, address, aligned_address, fill, load, prefetch, store, total
from lrc_ase.compiled.threads import run_over_ranges
from lrc_ase.layer.mesh.cpu.sorting import SortedAtoms, tile_edges
from lrc_ase.layer.windows import Window

__all__ = ["MAX_LEVEL", "gather_compiled", "spread_compiled"]

MAX_LEVEL = 2
"""Highest total degree of derivatives in the kernels."""
_AHEAD = 16
"""How many atoms early their numbers are asked for: these lie in the order of the input, far from each other."""
_SERIAL_BELOW = 4000
"""Atoms times channels below which threads cost more than they save."""


def _line_width(window: Window) -> int:
    """Points in a line of the stencil as the kernels see it."""
    return -(-window.n_points // 4) * 4


def spread_compiled(
    weights: np.ndarray, atoms: SortedAtoms, window: Window, level: int, mesh: np.ndarray, n_threads: int
) -> None:
    """Add weights to the mesh.

    `weights` (n_atoms, n_orders, n_channels) with the orders of `multi_indices(3, level)`, `mesh` (n_structures,
    n_channels, n_x, n_y, n_z), both contiguous and of one type. No axis of a mesh is shorter than the window.
    """
    kernel = _spread_kernel(_line_width(window), window.n_points, level, mesh.dtype)
    arguments = (weights, *_arguments(atoms, window, mesh))
    if n_threads == 1 or len(atoms.order) * mesh.shape[1] < _SERIAL_BELOW:
        kernel(*arguments, 0, len(atoms.starts) - 1)
        return
    for parity in range(2):
        run_over_ranges(kernel, arguments, atoms.slabs()[parity::2], n_threads)


def gather_compiled(
    mesh: np.ndarray, atoms: SortedAtoms, window: Window, level: int, gathered: np.ndarray, n_threads: int
) -> None:
    """Interpolate the mesh into `gathered` (n_atoms, n_orders, n_channels); the rest as in `spread_compiled`."""
    kernel = _gather_kernel(_line_width(window), window.n_points, level, mesh.dtype)
    arguments = (gathered, *_arguments(atoms, window, mesh))
    n_ranges = 1 if n_threads == 1 or len(atoms.order) * mesh.shape[1] < _SERIAL_BELOW else 4 * n_threads
    run_over_ranges(kernel, arguments, atoms.tile_ranges(n_ranges), n_threads)


def _arguments(atoms: SortedAtoms, window: Window, mesh: np.ndarray) -> tuple[Any, ...]:
    table = window.horner_table(mesh.dtype, _line_width(window))
    layout = atoms.tiles, mesh.shape[1:], window.n_points
    return atoms.order, atoms.coordinates, atoms.starts, *layout, table, mesh.reshape(-1)


# The functions below get width, n_points and level as constants. The memory `s` of a kernel holds the window's factors
# along x and those along y, three vectors each. A tile (n_channels, n_planes, n_rows, n_line) holds the mesh from the
# first point of its own part on, as far as the stencils of its atoms reach; `shape` and `size` are those of mesh and
# tile. `n_across` is n_points once more, as a number that the compiler does not know: it would unroll planes too.


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
def _axis(coordinate, table, n_terms, zero, n_points, width, level, s, factors):
    """First mesh point along one of the first two axes; the window's factors, (level + 1, width), go to memory."""
    first_point, value, first, second = _window(coordinate, table, n_terms, zero, n_points, width, level)
    store(s, factors, value)
    if level > 0:
        store(s, factors + width, first)
    if level > 1:
        store(s, factors + 2 * width, second)
    return first_point


@inlined
def _inside(first_point, origin, n):
    """Place of a mesh point in a tile that begins at `origin`."""
    place = first_point - origin
    return place + n if place < 0 else place


@inlined
def _stencil(coordinates, place, table, n_terms, zero, n_points, width, level, s, origin, shape, size):
    """Where an atom's stencil begins in the tile, and the window's vectors along z."""
    x = _axis(coordinates[place, 0], table, n_terms, zero, n_points, width, level, s, int64(0))
    y = _axis(coordinates[place, 1], table, n_terms, zero, n_points, width, level, s, int64(3 * width))
    z, z0, z1, z2 = _window(coordinates[place, 2], table, n_terms, zero, n_points, width, level)
    line = _inside(x, origin[0], shape[1]) * size[2] + _inside(y, origin[1], shape[2])
    return line * size[3] + _inside(z, origin[2], shape[3]), z0, z1, z2


@inlined
def _origin(tile, tiles, shape):
    """Structure of a tile, and its first mesh points along the three axes."""
    lines, z = tile // tiles[2], tile % tiles[2]
    planes, y = lines // tiles[1], lines % tiles[1]
    structure, x = planes // tiles[0], planes % tiles[0]
    return structure, (-(-x * shape[1] // tiles[0]), -(-y * shape[2] // tiles[1]), -(-z * shape[3] // tiles[2]))


@inlined
def _move(tile, t, mesh, m, zero, width, adding):
    """Add a vector of the tile to the mesh and clear it, or copy it from there."""
    if adding:
        store(mesh, m, load(mesh, m, width) + load(tile, t, width))
        store(tile, t, fill(zero, width))
    else:
        store(tile, t, load(mesh, m, width))


@inlined
def _move_piece(tile, t, mesh, m, count, zero, adding):
    """Move so many numbers."""
    i = 0
    while i + 8 <= count:
        _move(tile, t + i, mesh, m + i, zero, 8, adding)
        i += 8
    if count & 4:
        _move(tile, t + i, mesh, m + i, zero, 4, adding)
        i += 4
    if count & 2:
        _move(tile, t + i, mesh, m + i, zero, 2, adding)
        i += 2
    if count & 1:
        _move(tile, t + i, mesh, m + i, zero, 1, adding)


@inlined
def _move_tile(tile, mesh, structure, origin, shape, size, used, zero, adding):
    """Add the tile to the mesh and clear it, or copy it from there: `used` planes, rows and points of a line."""
    n_channels, n_x, n_y, n_z = shape
    n_planes, n_rows, n_line = used
    for channel in range(n_channels):
        x, own = origin[0], structure * n_channels + channel
        for plane in range(n_planes):
            y = origin[1]
            for row in range(n_rows):
                t = ((channel * size[1] + plane) * size[2] + row) * size[3]
                line = ((own * n_x + x) * n_y + y) * n_z
                z, left = origin[2], n_line
                while left > 0:
                    count = min(left, n_z - z)
                    _move_piece(tile, t, mesh, line + z, count, zero, adding)
                    t, left, z = t + count, left - count, 0
                y = y + 1 if y + 1 < n_y else 0
            x = x + 1 if x + 1 < n_x else 0


@lru_cache(maxsize=64)
def _spread_kernel(width: int, n_points: int, level: int, dtype: np.dtype) -> Any:
    n_rows, n_line = _tile(width, n_points)

    def kernel(weights, order, coordinates, starts, tiles, shape, n_across, table_array, mesh_array, first, last):
        size = (shape[0], -(-shape[1] // tiles[0]) + n_points - 1, n_rows, n_line)
        used = size[1], -(-shape[2] // tiles[1]) + n_points - 1, -(-shape[3] // tiles[2]) + n_points - 1
        n_terms, n_tile = table_array.shape[0], size[1] * n_rows * n_line
        memory = np.zeros(6 * width + SPARE, table_array.dtype)
        tile_memory = np.zeros(shape[0] * n_tile + SPARE, table_array.dtype)
        s, tile = aligned_address(memory), aligned_address(tile_memory)
        table, mesh = address(table_array), address(mesh_array)
        own, n_own = address(weights), weights.shape[1] * weights.shape[2]
        nothing = table_array.dtype.type(0)
        zero = fill(nothing, width)
        for own_tile in range(first, last):
            if starts[own_tile] == starts[own_tile + 1]:
                continue
            structure, origin = _origin(own_tile, tiles, shape)
            for place in range(starts[own_tile], starts[own_tile + 1]):
                prefetch(own, order[min(place + _AHEAD, len(order) - 1)] * n_own, 0)
                start, z0, z1, z2 = _stencil(
                    coordinates, place, table, n_terms, zero, n_points, width, level, s, origin, shape, size
                )
                for channel in range(shape[0]):
                    f = weights[order[place], :, channel]
                    line00 = z0 * f[0]
                    if level > 0:
                        line00 = z1 * f[3] + line00
                        line10, line01 = z0 * f[1], z0 * f[2]
                    if level > 1:
                        line00 = z2 * f[9] + line00
                        line10, line01 = z1 * f[6] + line10, z1 * f[8] + line01
                        line20, line11, line02 = z0 * f[4], z0 * f[5], z0 * f[7]
                    for a in range(n_across):
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
                            line = start + (a * n_rows + b) * n_line
                            values = plane0 * s[3 * width + b] + load(tile, line, width)
                            if level > 0:
                                values = plane1 * s[4 * width + b] + values
                            if level > 1:
                                values = plane2 * s[5 * width + b] + values
                            store(tile, line, values)
                    start += n_tile
            _move_tile(tile, mesh, structure, origin, shape, size, used, nothing, True)
        memory[0], tile_memory[0] = 0, 0  # keeps them alive until here

    return compiled(kernel, "spread", width, n_points, level, dtype.name)


@lru_cache(maxsize=64)
def _gather_kernel(width: int, n_points: int, level: int, dtype: np.dtype) -> Any:
    n_rows, n_line = _tile(width, n_points)

    def kernel(gathered, order, coordinates, starts, tiles, shape, n_across, table_array, mesh_array, first, last):
        size = (shape[0], -(-shape[1] // tiles[0]) + n_points - 1, n_rows, n_line)
        used = size[1], -(-shape[2] // tiles[1]) + n_points - 1, -(-shape[3] // tiles[2]) + n_points - 1
        n_terms, n_tile = table_array.shape[0], size[1] * n_rows * n_line
        memory = np.zeros(6 * width + SPARE, table_array.dtype)
        tile_memory = np.zeros(shape[0] * n_tile + SPARE, table_array.dtype)
        s, tile = aligned_address(memory), aligned_address(tile_memory)
        table, mesh = address(table_array), address(mesh_array)
        own, n_own = address(gathered), gathered.shape[1] * gathered.shape[2]
        nothing = table_array.dtype.type(0)
        zero = fill(nothing, width)
        for own_tile in range(first, last):
            if starts[own_tile] == starts[own_tile + 1]:
                continue
            structure, origin = _origin(own_tile, tiles, shape)
            _move_tile(tile, mesh, structure, origin, shape, size, used, nothing, False)
            for place in range(starts[own_tile], starts[own_tile + 1]):
                prefetch(own, order[min(place + _AHEAD, len(order) - 1)] * n_own, 1)
                start, z0, z1, z2 = _stencil(
                    coordinates, place, table, n_terms, zero, n_points, width, level, s, origin, shape, size
                )
                for channel in range(shape[0]):
                    line00, line10, line01 = zero, zero, zero
                    line20, line11, line02 = zero, zero, zero
                    for a in range(n_across):
                        plane0, plane1, plane2 = zero, zero, zero
                        for b in range(n_points):
                            values = load(tile, start + (a * n_rows + b) * n_line, width)
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
                    v = gathered[order[place], :, channel]
                    v[0] = total(line00 * z0)
                    if level > 0:
                        v[1] = total(line10 * z0)
                        v[2] = total(line01 * z0)
                        v[3] = total(line00 * z1)
                    if level > 1:
                        v[4] = total(line20 * z0)
                        v[5] = total(line11 * z0)
                        v[6] = total(line10 * z1)
                        v[7] = total(line02 * z0)
                        v[8] = total(line01 * z1)
                        v[9] = total(line00 * z2)
                    start += n_tile
        memory[0], tile_memory[0] = 0, 0  # keeps them alive until here

    return compiled(kernel, "gather", width, n_points, level, dtype.name)


def _tile(width: int, n_points: int) -> tuple[int, int]:
    """Rows of a tile and points of a line, whole vectors of them."""
    edge_y, edge_z = tile_edges(n_points)
    return edge_y + n_points - 1, -(-(edge_z + width) // 8) * 8
