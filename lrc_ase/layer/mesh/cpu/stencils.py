"""Spreading and gathering on the CPU, compiled by Numba at first use and cached on disk.

What makes them fast:

- Atoms are visited tile by tile of the mesh and block by block within (`sorting`).
- The mesh around a tile is copied to or from separate memory. That memory has no edges to wrap around, stays in the
  second nearest cache, and has lines of a length known when compiling.
- A line of the stencil is one vector in registers (`lrc_ase.compiled.simd`). The window and its derivatives come from
  one Horner scheme over the whole line.
- All derivatives share one pass over the mesh.
- Threads (the kernels release the interpreter lock) spread slabs of the mesh, those of even index first, then the odd
  ones, so that no two ever write to the same plane.

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
"""Atoms between the request for their numbers and the use: these lie in the order of the input, far apart."""
_SERIAL_BELOW = 4000
"""Atoms times channels below which threads cost more than they save."""


def spread_compiled(
    weights: np.ndarray, atoms: SortedAtoms, window: Window, level: int, mesh: np.ndarray, n_threads: int
) -> None:
    """Add weights to the mesh.

    `weights` (n_atoms, n_orders, n_channels) with the orders of `multi_indices(3, level)`, `mesh` (n_structures,
    n_channels, n_x, n_y, n_z), both contiguous and of one type. No axis of a mesh is shorter than the window.
    """
    kernel, table = _prepared(1, window, level, mesh.dtype)
    # `n_points` is given twice: once as a constant of the compilation, and here as a number that the compiler does not
    # know, for the loop over planes, which it would unroll too
    layout = atoms.order, atoms.coordinates, atoms.starts, atoms.tiles, mesh.shape[1:], window.n_points
    arguments = (weights, *layout, table, mesh.reshape(-1))
    if n_threads == 1 or len(atoms.order) * mesh.shape[1] < _SERIAL_BELOW:
        kernel(*arguments, 0, len(atoms.starts) - 1)
        return
    # stencils of a slab reach into the next: slabs of one parity are far enough apart to be spread at the same time
    for parity in range(2):
        run_over_ranges(kernel, arguments, atoms.slabs()[parity::2], n_threads)


def gather_compiled(
    mesh: np.ndarray, atoms: SortedAtoms, window: Window, level: int, gathered: np.ndarray, n_threads: int
) -> None:
    """Interpolate the mesh into `gathered` (n_atoms, n_orders, n_channels); the rest as in `spread_compiled`."""
    kernel, table = _prepared(0, window, level, mesh.dtype)
    layout = atoms.order, atoms.coordinates, atoms.starts, atoms.tiles, mesh.shape[1:], window.n_points
    arguments = (gathered, *layout, table, mesh.reshape(-1))
    if n_threads == 1 or len(atoms.order) * mesh.shape[1] < _SERIAL_BELOW:
        kernel(*arguments, 0, len(atoms.starts) - 1)
        return
    # more ranges than threads, since tiles hold different numbers of atoms
    run_over_ranges(kernel, arguments, atoms.tile_ranges(4 * n_threads), n_threads)


@lru_cache(maxsize=128)
def _prepared(spreads: int, window: Window, level: int, dtype: np.dtype) -> tuple[Any, np.ndarray]:
    """Return the kernel for a window, and the table of its polynomials."""
    width = -(-window.n_points // 4) * 4  # points in a line of the stencil, in whole vectors of four
    return _kernel(spreads, width, window.n_points, level, dtype), window.horner_table(dtype, width)


# The functions below get width, n_points and level as constants, so that branches on them cost nothing. The memory `s`
# of a kernel holds the window's factors along x and those along y, three vectors each. A tile (n_channels, n_planes,
# n_rows, n_line) holds the mesh from its first point on, as far as the stencils of its atoms reach; `shape` and `size`
# are those of mesh and tile, (n_channels, n_x, n_y, n_z). Functions take pointers: arrays as arguments would be counted
# as references in the innermost loop.


@inlined
def _window(coordinate, table, n_terms, zero, n_points, width, level):
    """Return the first mesh point touched, not wrapped, and the window there: value, first and second derivative.

    Each is a vector over the points of the line; derivatives are by the atom's mesh coordinate.
    """
    shifted = coordinate - 0.5 * n_points
    floor = np.floor(shifted)
    variable = 2 * (shifted - floor) - 1
    # Horner for the value and both derivatives at once, p' = p' v + p before p = p v + c
    value, first, second = load(table, 0, width), zero, zero
    for power in range(1, n_terms):
        if level > 1:
            second = second * variable + first
        if level > 0:
            first = first * variable + value
        value = value * variable + load(table, power * width, width)
    # d/dx = 2 d/d(variable); Horner gives half the second derivative, hence 4 * 2
    return int64(floor) + 1, value, first * 2.0, second * 8.0


@inlined
def _axis(coordinate, table, n_terms, zero, n_points, width, level, s, factors):
    """Return the first mesh point along x or y; write the window's factors, (level + 1, width), to memory."""
    # along x and y factors are read one by one, as numbers that multiply a vector along z
    first_point, value, first, second = _window(coordinate, table, n_terms, zero, n_points, width, level)
    store(s, factors, value)
    if level > 0:
        store(s, factors + width, first)
    if level > 1:
        store(s, factors + 2 * width, second)
    return first_point


@inlined
def _inside(first_point, origin, n):
    """Return the index of a mesh point in a tile that begins at `origin`."""
    index = first_point - origin
    return index + n if index < 0 else index  # not wrapped yet: up to a stencil before the mesh begins


@inlined
def _stencil(coordinates, slot, table, n_terms, zero, n_points, width, level, s, origin, shape, size):
    """Return where an atom's stencil begins in the tile, and the window's vectors along z."""
    x = _axis(coordinates[slot, 0], table, n_terms, zero, n_points, width, level, s, int64(0))
    y = _axis(coordinates[slot, 1], table, n_terms, zero, n_points, width, level, s, int64(3 * width))
    z, z0, z1, z2 = _window(coordinates[slot, 2], table, n_terms, zero, n_points, width, level)
    line = _inside(x, origin[0], shape[1]) * size[2] + _inside(y, origin[1], shape[2])
    return line * size[3] + _inside(z, origin[2], shape[3]), (z0, z1, z2)


@inlined
def _origin(tile, tiles, shape):
    """Return the structure of a tile and its first mesh points along the three axes."""
    lines, z = tile // tiles[2], tile % tiles[2]
    planes, y = lines // tiles[1], lines % tiles[1]
    structure, x = planes // tiles[0], planes % tiles[0]
    return structure, (-(-x * shape[1] // tiles[0]), -(-y * shape[2] // tiles[1]), -(-z * shape[3] // tiles[2]))


@inlined
def _move(tile, t, mesh, m, zero, width, adding):
    """Add a vector of the tile to the mesh and clear it, or copy it from there."""
    if adding:
        # cleared on the way out, so that the next tile finds zeros without a pass of its own
        store(mesh, m, load(mesh, m, width) + load(tile, t, width))
        store(tile, t, fill(zero, width))
    else:
        store(tile, t, load(mesh, m, width))


@inlined
def _move_piece(tile, t, mesh, m, count, zero, adding):
    """Move `count` numbers, in vectors of 8, then 4, 2 and 1: lines end anywhere, the mesh has no padding."""
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
        x, plane_of_mesh = origin[0], structure * n_channels + channel
        for plane in range(n_planes):
            y = origin[1]
            for row in range(n_rows):
                t = ((channel * size[1] + plane) * size[2] + row) * size[3]
                line = ((plane_of_mesh * n_x + x) * n_y + y) * n_z
                # a line may wrap around the mesh, more than once where the mesh is smaller than a tile
                z, left = origin[2], n_line
                while left > 0:
                    count = min(left, n_z - z)
                    _move_piece(tile, t, mesh, line + z, count, zero, adding)
                    t, left, z = t + count, left - count, 0
                y = y + 1 if y + 1 < n_y else 0
            x = x + 1 if x + 1 < n_x else 0


@inlined
def _spread_channel(f, i, c, z, tile, start, layout, zero, n_points, width, level, s):
    """Add one atom's weights of one channel, f[i], f[i + c], ... for the orders, to the tile at `start`."""
    # The sum over orders in three steps: `line_pq` sums over derivatives along z what belongs to the p-th along x and
    # the q-th along y, `plane_q` over those along x, and the innermost loop over those along y. Orders in `f` are those
    # of `multi_indices`: 1, x, y, z, xx, xy, xz, yy, yz, zz.
    (z0, z1, z2), (n_rows, n_line, n_across) = z, layout
    line00, line10, line01, line20, line11, line02 = z0 * f[i], zero, zero, zero, zero, zero
    plane1, plane2 = zero, zero
    if level > 0:
        line00 = z1 * f[i + 3 * c] + line00
        line10, line01 = z0 * f[i + c], z0 * f[i + 2 * c]
    if level > 1:
        line00 = z2 * f[i + 9 * c] + line00
        line10, line01 = z1 * f[i + 6 * c] + line10, z1 * f[i + 8 * c] + line01
        line20, line11, line02 = z0 * f[i + 4 * c], z0 * f[i + 5 * c], z0 * f[i + 7 * c]
    for a in range(n_across):
        x0 = s[a]
        plane0 = line00 * x0
        if level > 0:
            x1 = s[width + a]
            plane0 = line10 * x1 + plane0
            plane1 = line01 * x0
        if level > 1:
            plane0 = line20 * s[2 * width + a] + plane0
            plane1 = line11 * x1 + plane1
            plane2 = line02 * x0
        # the innermost loop reads and writes each line of the tile once, whatever the level
        for b in range(n_points):
            line = start + (a * n_rows + b) * n_line
            values = plane0 * s[3 * width + b] + load(tile, line, width)
            if level > 0:
                values = plane1 * s[4 * width + b] + values
            if level > 1:
                values = plane2 * s[5 * width + b] + values
            store(tile, line, values)


@inlined
def _gather_channel(v, i, c, z, tile, start, layout, zero, n_points, width, level, s):
    """Interpolate one channel of the tile at `start` with all derivatives, into v[i], v[i + c], ..."""
    # the transpose of `_spread_channel`, loop by loop: names are those of the same partial sums
    (z0, z1, z2), (n_rows, n_line, n_across) = z, layout
    line00, line10, line01, line20, line11, line02 = zero, zero, zero, zero, zero, zero
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
            line10, line01 = plane0 * x1 + line10, plane1 * x0 + line01
        if level > 1:
            line20 = plane0 * s[2 * width + a] + line20
            line11, line02 = plane1 * x1 + line11, plane2 * x0 + line02
    v[i] = total(line00 * z0)
    if level > 0:
        v[i + c], v[i + 2 * c], v[i + 3 * c] = total(line10 * z0), total(line01 * z0), total(line00 * z1)
    if level > 1:
        v[i + 4 * c], v[i + 5 * c], v[i + 6 * c] = total(line20 * z0), total(line11 * z0), total(line10 * z1)
        v[i + 7 * c], v[i + 8 * c], v[i + 9 * c] = total(line02 * z0), total(line01 * z1), total(line00 * z2)


@lru_cache(maxsize=128)
def _kernel(spreads: int, width: int, n_points: int, level: int, dtype: np.dtype) -> Any:
    """Compile spreading (`spreads` 1) or gathering (0), which visit tiles, atoms and channels alike."""
    n_rows, n_line = _tile(width, n_points)
    gathers = 1 - spreads  # for `prefetch`, which takes constants alone

    def kernel(values, order, coordinates, starts, tiles, shape, n_across, table_array, mesh_array, first, last):
        size = (shape[0], -(-shape[1] // tiles[0]) + n_points - 1, n_rows, n_line)
        layout = n_rows, n_line, n_across
        used = size[1], -(-shape[2] // tiles[1]) + n_points - 1, -(-shape[3] // tiles[2]) + n_points - 1
        n_terms, n_tile = table_array.shape[0], size[1] * n_rows * n_line
        # memory of this call alone, so that the calls of several threads share nothing but the mesh
        memory = np.zeros(6 * width + SPARE, table_array.dtype)
        tile_memory = np.zeros(shape[0] * n_tile + SPARE, table_array.dtype)
        s, tile = aligned_address(memory), aligned_address(tile_memory)
        table, mesh = address(table_array), address(mesh_array)
        rows, n_row = address(values), values.shape[1] * values.shape[2]
        nothing = table_array.dtype.type(0)
        zero = fill(nothing, width)
        for index in range(first, last):
            if starts[index] == starts[index + 1]:
                continue
            structure, origin = _origin(index, tiles, shape)
            if not spreads:
                _move_tile(tile, mesh, structure, origin, shape, size, used, nothing, False)
            for slot in range(starts[index], starts[index + 1]):
                prefetch(rows, order[min(slot + _AHEAD, len(order) - 1)] * n_row, gathers)
                start, z = _stencil(
                    coordinates, slot, table, n_terms, zero, n_points, width, level, s, origin, shape, size
                )
                for channel in range(shape[0]):
                    row = order[slot] * n_row + channel
                    if spreads:
                        _spread_channel(rows, row, shape[0], z, tile, start, layout, zero, n_points, width, level, s)
                    else:
                        _gather_channel(rows, row, shape[0], z, tile, start, layout, zero, n_points, width, level, s)
                    start += n_tile
            if spreads:
                _move_tile(tile, mesh, structure, origin, shape, size, used, nothing, True)
        # pointers hold no reference: without this use the arrays would be freed before the loop
        memory[0], tile_memory[0] = 0, 0

    return compiled(kernel, "spread" if spreads else "gather", width, n_points, level, dtype.name)


def _tile(width: int, n_points: int) -> tuple[int, int]:
    """Return the rows of a tile and the points of its lines, rounded up to whole vectors of eight."""
    edge_y, edge_z = tile_edges(n_points)
    return edge_y + n_points - 1, -(-(edge_z + width) // 8) * 8
