"""The four kernels behind `launch`, which says how they work together.

Triton makes kernels of these functions at their first use, so that this file can be read without it. Names in capitals
are constants of the compilation.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["evaluate", "gather", "locate", "spread"]

tl: Any = import_module("triton.language") if find_spec("triton") else None


def locate(
    keys, coordinates, structure, n_atoms, n_x, n_y, n_z, bins_x, bins_y,
    POINTS: tl.constexpr, IMAGES: tl.constexpr, BX: tl.constexpr, BY: tl.constexpr, ATOMS: tl.constexpr,
):  # fmt: skip
    """Find the bin of each atom, ((structure, x / BX), y / BY, z) of the first point of its stencil."""
    atom = tl.program_id(0).to(tl.int64) * ATOMS + tl.arange(0, ATOMS)
    exists = atom < n_atoms
    # + IMAGES * n before the remainder, which keeps the sign of a negative number as in C
    x = tl.floor(tl.load(coordinates + 3 * atom, mask=exists, other=0.0) - 0.5 * POINTS).to(tl.int32) + 1
    y = tl.floor(tl.load(coordinates + 3 * atom + 1, mask=exists, other=0.0) - 0.5 * POINTS).to(tl.int32) + 1
    z = tl.floor(tl.load(coordinates + 3 * atom + 2, mask=exists, other=0.0) - 0.5 * POINTS).to(tl.int32) + 1
    row = tl.load(structure + atom, mask=exists, other=0) * bins_x + (x + IMAGES * n_x) % n_x // BX
    key = (row * bins_y + (y + IMAGES * n_y) % n_y // BY) * n_z + (z + IMAGES * n_z) % n_z
    tl.store(keys + atom, key.to(keys.dtype.element_ty), mask=exists)


def evaluate(
    windows, first, coordinates, order, table, n_atoms, n_x, n_y, n_z,
    POINTS: tl.constexpr, PADDED: tl.constexpr, IMAGES: tl.constexpr, DEGREE: tl.constexpr, LEVEL: tl.constexpr,
    ATOMS: tl.constexpr,
):  # fmt: skip
    """Evaluate windows (n_atoms, 3, LEVEL + 1, POINTS) and first points (n_atoms, 3), in sorted order.

    Where the mesh is smaller than the window, the images of a point are summed; nobody reads the points beyond.
    """
    kind = windows.dtype.element_ty
    rank = tl.program_id(0).to(tl.int64) * ATOMS + tl.arange(0, ATOMS)
    point = tl.arange(0, PADDED)
    exists = rank < n_atoms
    atom = tl.load(order + rank, mask=exists, other=0)
    for axis in tl.static_range(3):
        n = n_x  # chosen by branches on a constant: Triton has no tuples of arguments
        if axis == 1:
            n = n_y
        if axis == 2:
            n = n_z
        shifted = tl.load(coordinates + 3 * atom + axis, mask=exists, other=0.0) - 0.5 * POINTS
        base = tl.floor(shifted)
        tl.store(first + 3 * rank + axis, (base.to(tl.int32) + 1 + IMAGES * n) % n, mask=exists)
        variable = (2 * (shifted - base) - 1).to(kind)[:, None]  # in [-1, 1], as the table's polynomials
        for derivative in tl.static_range(LEVEL + 1):
            total = tl.full([ATOMS, PADDED], 0, kind)
            # points that are n apart are the same mesh point
            for image in tl.static_range(IMAGES):
                source = point + image * n
                column = table + derivative * (DEGREE + 1) * POINTS + source
                used = source < POINTS
                value = tl.full([ATOMS, PADDED], 0, kind)
                # Horner, highest power first
                for power in range(DEGREE + 1):
                    value = value * variable + tl.load(column + power * POINTS, mask=used, other=0.0)[None, :]
                total += value
            line = windows + ((rank[:, None] * 3 + axis) * (LEVEL + 1) + derivative) * POINTS
            tl.store(line + point[None, :], total, mask=exists[:, None] & (point < POINTS)[None, :])


def spread(
    mesh, weights, windows, first, order, starts, n_x, n_y, n_z, tiles_x, bins_x, bins_y, tiles_z, n_channels,
    POINTS: tl.constexpr, LEVEL: tl.constexpr, ATOMS: tl.constexpr, BX: tl.constexpr, BY: tl.constexpr,
    TX: tl.constexpr, TZ: tl.constexpr,
):  # fmt: skip
    """Sum up one tile of one channel of the mesh."""
    kind = mesh.dtype.element_ty
    tile, channel = tl.program_id(0), tl.program_id(1)
    structure = (tile // (tiles_z * bins_y * tiles_x)).to(tl.int64)
    tile_x, tile_y, tile_z = tile // (tiles_z * bins_y) % tiles_x, tile // tiles_z % bins_y, tile % tiles_z
    # the bins whose atoms may reach the tile, once around the mesh at most; a tile ends where a bin ends
    low_x = tl.maximum(tile_x * TX - POINTS + 1 + n_x, 0) % n_x // BX
    high_x = tl.minimum(tile_x * TX + TX - 1, n_x - 1) // BX
    # `count` bins from `low` on, modulo their number; all of them where the tile's reach goes around
    count_x = (high_x - low_x + bins_x) % bins_x + 1
    if n_x < TX + POINTS:
        count_x = bins_x
    low_y = tl.maximum(tile_y * BY - POINTS + 1 + n_y, 0) % n_y // BY
    count_y = (tile_y - low_y + bins_y) % bins_y + 1
    if n_y < BY + POINTS:
        count_y = bins_y
    low_z = tile_z * TZ - POINTS + 1
    high_z = tl.minimum(tile_z * TZ + TZ, n_z)
    if n_z < TZ + POINTS:
        low_z = 0
        high_z = n_z
    x = tile_x * TX + tl.arange(0, TX)[None, :]
    yz = tl.arange(0, BY * TZ)[:, None]
    y, z = tile_y * BY + yz // TZ, tile_z * TZ + yz % TZ
    total = tl.full([BY * TZ, TX], 0, kind)
    for row in range(2 * count_x * count_y):
        bin_x, bin_y = (low_x + row // 2 // count_y) % bins_x, (low_y + row // 2 % count_y) % bins_y
        begin, end = tl.maximum(low_z, 0), high_z
        if row % 2 == 1:  # what wraps to the far end
            begin = tl.minimum(low_z, 0) + n_z
            end = n_z
        range_of_bins = starts + ((structure * bins_x + bin_x) * bins_y + bin_y) * n_z
        last = tl.load(range_of_bins + end)
        for start in range(tl.load(range_of_bins + begin), last, ATOMS):
            rank = start + tl.arange(0, ATOMS)
            exists = rank < last
            atom = tl.load(order + rank, mask=exists, other=0)
            # weights in the order of the input, windows in sorted order
            atom_weights = weights + atom * ((LEVEL + 1) * (LEVEL + 2) * (LEVEL + 3) // 6) * n_channels + channel
            atom_windows = windows + rank.to(tl.int64) * (3 * (LEVEL + 1) * POINTS)
            # point of the stencil that meets each point of the tile, per axis; none outside the window
            p_x = x - tl.load(first + 3 * rank, mask=exists, other=0)[:, None]
            p_x = tl.where(p_x < 0, p_x + n_x, p_x)
            in_x = exists[:, None] & (p_x < POINTS)
            p_y = y - tl.load(first + 3 * rank + 1, mask=exists, other=0)[None, :]
            p_y = tl.where(p_y < 0, p_y + n_y, p_y)
            in_y = exists[None, :] & (p_y < POINTS)
            p_z = z - tl.load(first + 3 * rank + 2, mask=exists, other=0)[None, :]
            p_z = tl.where(p_z < 0, p_z + n_z, p_z)
            in_z = exists[None, :] & (p_z < POINTS)
            # the sum of the module `launch`: (yz, atoms) times (atoms, x) for each derivative s along x
            for s in tl.static_range(LEVEL + 1):
                plane = tl.full([BY * TZ, ATOMS], 0, kind)
                for q in tl.static_range(LEVEL + 1 - s):
                    line = tl.full([BY * TZ, ATOMS], 0, kind)
                    for r in tl.static_range(LEVEL + 1 - s - q):
                        # index of (s, q, r) in `multi_indices`: those of lower degree, then those of larger s, then r
                        slot = (s + q + r) * (s + q + r + 1) * (s + q + r + 2) // 6 + (q + r) * (q + r + 1) // 2 + r
                        weight = tl.load(atom_weights + slot * n_channels, mask=exists, other=0.0)
                        g_z = atom_windows[None, :] + (2 * (LEVEL + 1) + r) * POINTS + p_z
                        line += weight[None, :] * tl.load(g_z, mask=in_z, other=0.0)
                    g_y = atom_windows[None, :] + (LEVEL + 1 + q) * POINTS + p_y
                    plane += line * tl.load(g_y, mask=in_y, other=0.0)
                g_x = tl.load(atom_windows[:, None] + s * POINTS + p_x, mask=in_x, other=0.0)
                # "ieee": TF32 would keep ten bits
                total = tl.dot(plane, g_x, total, input_precision="ieee", out_dtype=kind)
    # the last tiles reach beyond the mesh
    inside = (x < n_x) & (y < n_y) & (z < n_z)
    target = mesh + (structure * n_channels + channel) * n_x * n_y * n_z + (x * n_y + y) * n_z + z
    tl.store(target, tl.load(target, mask=inside, other=0.0) + total, mask=inside)


def gather(
    gathered, mesh, windows, first, order, structure, n_atoms, n_x, n_y, n_z, n_channels,
    POINTS: tl.constexpr, PADDED: tl.constexpr, LEVEL: tl.constexpr, ORDERS: tl.constexpr, ATOMS: tl.constexpr,
):  # fmt: skip
    """Interpolate one channel of the mesh at a few atoms."""
    kind = mesh.dtype.element_ty
    channel = tl.program_id(1)
    # blocks are (derivative in x, atom, y, z)
    rank = tl.program_id(0).to(tl.int64) * ATOMS + tl.arange(0, ATOMS)[None, :, None, None]
    exists = rank < n_atoms
    atom = tl.load(order + rank, mask=exists, other=0)
    s = tl.arange(0, ORDERS)[:, None, None, None]
    y, z = tl.arange(0, PADDED)[None, None, :, None], tl.arange(0, PADDED)[None, None, None, :]
    in_y, in_z = exists & (y < POINTS) & (y < n_y), exists & (z < POINTS) & (z < n_z)
    first_x = tl.load(first + 3 * rank, mask=exists, other=0)
    # wrapped once: points beyond a mesh smaller than the window are masked, their images are summed in `evaluate`
    point_y = tl.load(first + 3 * rank + 1, mask=exists, other=0) + y
    point_y = tl.where(point_y < n_y, point_y, point_y - n_y)
    point_z = tl.load(first + 3 * rank + 2, mask=exists, other=0) + z
    point_z = tl.where(point_z < n_z, point_z, point_z - n_z)
    atom_windows = windows + rank * (3 * (LEVEL + 1) * POINTS)
    row = tl.load(structure + atom, mask=exists, other=0) * n_channels + channel
    plane = mesh + row * n_x * n_y * n_z + point_y * n_z + point_z
    total = tl.full([ORDERS, ATOMS, PADDED, PADDED], 0, kind)
    for p in tl.static_range(POINTS):
        point_x = tl.where(first_x + p < n_x, first_x + p, first_x + p - n_x)
        once = (
            first_x + p < first_x + n_x
        )  # not around the mesh again; a block, since interpreted scalars lose their type
        values = tl.load(plane + point_x * (n_y * n_z), mask=in_y & in_z & once, other=0.0)
        total += values * tl.load(atom_windows + s * POINTS + p, mask=exists & (s <= LEVEL), other=0.0)
    # contract y, then z: what is left is one number per atom and derivative
    for q in tl.static_range(LEVEL + 1):
        g_y = tl.load(atom_windows + (LEVEL + 1 + q) * POINTS + y, mask=in_y, other=0.0)
        line = tl.sum(total * g_y, axis=2, keep_dims=True)
        for r in tl.static_range(LEVEL + 1 - q):
            g_z = tl.load(atom_windows + (2 * (LEVEL + 1) + r) * POINTS + z, mask=in_z, other=0.0)
            value = tl.sum(line * g_z, axis=3, keep_dims=True)
            slot = (s + q + r) * (s + q + r + 1) * (s + q + r + 2) // 6 + (q + r) * (q + r + 1) // 2 + r
            target = (atom * ((LEVEL + 1) * (LEVEL + 2) * (LEVEL + 3) // 6) + slot) * n_channels + channel
            tl.store(gathered + target, value, mask=exists & (s + q + r <= LEVEL))
