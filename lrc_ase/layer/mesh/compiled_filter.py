"""The filter on the CPU, compiled: a mesh to its spectrum, times the table, and back.

Transforms along x and y take neighbors in z as the numbers of a vector; lines along z are turned into that form, a
vector of them at a time, by `transpose`. Real lines of even length n go as complex ones of length n / 2. Planes are
transformed in z and y while in the cache, then lines in x, which are multiplied and transformed back on the spot, then
planes back.

All of it happens in the memory of the mesh, whose rows and planes are padded to whole vectors (`padded_shape`). A
spectrum lies there as (n_x, n_rows, n_vectors, 2, width): waves along z vector by vector, real parts before imaginary
ones. It ends before index n_z / 2, whose waves the table leaves out.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import int64

from lrc_ase.compiled.compilation import called, compiled
from lrc_ase.compiled.simd import SPARE, address, aligned_address, load, prefetch, store, transpose
from lrc_ase.compiled.threads import even_ranges, run_over_ranges
from lrc_ase.layer.mesh.fft import is_smooth, line_plan, transform

__all__ = ["SHARED_FROM", "can_filter", "correlate_compiled", "filter_compiled", "padded_shape"]

SHARED_FROM = 100_000
"""Points of a mesh from which threads share it; smaller ones are theirs one by one."""
_PAGE = 4096
"""Bytes after which numbers compete for the same places in a cache."""
_FAR = 10**6
"""Numbers of a mesh that no near cache holds."""
_PLANES, _LINES, _PLANES_BACK, _ALL = range(4)


@lru_cache(maxsize=256)
def can_filter(mesh_shape: tuple[int, ...]) -> bool:
    """Whether these kernels know the shape: three axes, products of 2, 3, 5 and 7, the last one even."""
    smooth = all(map(is_smooth, (*mesh_shape, mesh_shape[-1] // 2)))
    return len(mesh_shape) == 3 and min(mesh_shape) >= 4 and mesh_shape[2] % 2 == 0 and smooth


@lru_cache(maxsize=64)
def padded_shape(mesh_shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int, int]:
    """Planes, rows of a plane and numbers of a row that a mesh has in memory.

    Rows begin on borders of cache lines; an empty row is added where lines along x would share places in caches.
    """
    n_x, n_y, n_z = mesh_shape
    width = _width(dtype)
    n_rows, row = math.ceil(n_y / width) * width, math.ceil(n_z / (2 * width)) * 2 * width
    return n_x, n_rows + (n_rows * row * dtype.itemsize % _PAGE == 0), row


def filter_compiled(
    mesh: np.ndarray, mesh_shape: tuple[int, ...], table: np.ndarray, kept: np.ndarray, n_threads: int
) -> None:
    """Turn densities into potentials in place.

    `mesh` (n_meshes, *padded_shape) and `table`, the half meshes of all one after the other, are of one type. `kept`
    takes the spectra of the densities, as large as the meshes, unless it is empty. What lies between the rows of a mesh
    must be finite, and is lost.
    """
    n_meshes = len(mesh)
    kernel, plans = _prepared(mesh_shape, mesh.dtype)
    arguments = (mesh, mesh_shape, table, kept, *plans)
    if n_threads == 1 or mesh[0].size < SHARED_FROM:
        run_over_ranges(kernel, (*arguments, _ALL, 0), even_ranges(n_meshes, min(n_threads, n_meshes)), n_threads)
        return
    for index in range(n_meshes):
        for step, n in ((_PLANES, mesh_shape[0]), (_LINES, mesh_shape[1]), (_PLANES_BACK, mesh_shape[0])):
            run_over_ranges(kernel, (*arguments, step, index), even_ranges(n, min(4 * n_threads, n)), n_threads)


@lru_cache(maxsize=64)
def _prepared(mesh_shape: tuple[int, ...], dtype: np.dtype) -> tuple[Any, tuple]:
    """The kernel for a mesh, and the plans of its lines along x, y, z: all factors, then all waves."""
    plans = [line_plan(n, dtype) for n in (*mesh_shape[:2], mesh_shape[2] // 2, mesh_shape[2])]
    return _filter_kernel(dtype), tuple(zip(*plans, strict=True))


def correlate_compiled(first: np.ndarray, second: np.ndarray, correlation: np.ndarray) -> None:
    """Real part of conj(first) second times the number of waves that each stands for, (n_meshes, *half mesh).

    The spectra lie in memory as those that `filter_compiled` keeps.
    """
    width = _width(first.dtype)
    in_vectors = (*first.shape[:3], -1, 2, width)
    _correlate_kernel(first.dtype)(first.reshape(in_vectors), second.reshape(in_vectors), correlation)


def _width(dtype: np.dtype) -> int:
    """Numbers in a vector, a cache line."""
    return 64 // dtype.itemsize


# In the functions below `shape` is (n_x, n_y, n_z, n_vectors, n_rows); mesh and table are read from places `m` and `t`
# on; `s` is memory for four lines of length `line`.


@called
def _planes(mesh, m, s, line, shape, plans, first, last, width):
    """Transform planes of constant x in z and y."""
    _, n_y, n_z, n_vectors, n_rows = shape
    zero, forward = int64(0), int64(1)
    row, half, waves_z = 2 * n_vectors * width, n_z // 2, plans[3][2]
    for x in range(first, last):
        for y in range(0, n_y, width):
            place = m + (x * n_rows + y) * row
            for z in range(0, n_z, width):
                transpose(mesh, place + z, row, s, z * width, width, width)
            transform(s, zero, 2 * width, s, line, 2 * width, s, 2 * line, plans[2], width, forward)
            for k in range(half):
                # even and odd points were the real and imaginary parts: their spectra, joined
                a, b = line + 2 * width * k, line + 2 * width * ((half - k) % half)
                ra, ia, rb, ib = (
                    load(s, a, width),
                    load(s, a + width, width),
                    load(s, b, width),
                    load(s, b + width, width),
                )
                c, t = waves_z[2 * k] * 0.5, waves_z[2 * k + 1] * 0.5
                rd, jd = ra - rb, ia + ib
                store(s, 2 * width * k, (ra + rb) * 0.5 - rd * t + jd * c)
                store(s, 2 * width * k + width, (ia - ib) * 0.5 - jd * t - rd * c)
            for part in range(2 * n_vectors):
                begin = (part // 2 * width * 2 + part % 2) * width
                transpose(s, begin, 2 * width, mesh, place + part * width, row, width)
        for vector in range(n_vectors):
            place = m + x * n_rows * row + 2 * vector * width
            transform(mesh, place, row, mesh, place, row, s, zero, plans[1], width, forward)


@called
def _lines(mesh, m, table, t, kept, k, tail, n_table, s, line, shape, plans, first, last, width):
    """Transform lines along x, multiply by the table, and transform back; `k` -1 keeps no spectrum."""
    n_x, n_y, n_z, n_vectors, n_rows = shape
    zero, forward, backward = int64(0), int64(1), int64(-1)
    row, n_half = 2 * n_vectors * width, n_z // 2 + 1
    plane = n_rows * row
    is_far = n_x * plane > _FAR
    for y in range(first, last):
        for vector in range(n_vectors):
            place = y * row + 2 * vector * width
            transform(mesh, m + place, plane, s, 2 * line, 2 * width, s, zero, plans[0], width, forward)
            for x in range(n_x):
                a, b = 2 * line + 2 * width * x, t + (x * n_y + y) * n_half + vector * width
                real, imaginary = load(s, a, width), load(s, a + width, width)
                if k >= 0:
                    store(kept, k + x * plane + place, real)
                    store(kept, k + x * plane + place + width, imaginary)
                factor = load(table, b, width) if b + width <= n_table else load(tail, b + width - n_table, width)
                store(s, a, real * factor)
                store(s, a + width, imaginary * factor)
                if is_far:  # the next line
                    prefetch(mesh, m + x * plane + place + 2 * width, 1)
                    prefetch(mesh, m + x * plane + place + 3 * width, 1)
                    prefetch(table, b + width, 0)
            transform(s, 2 * line, 2 * width, mesh, m + place, plane, s, zero, plans[0], width, backward)


@called
def _planes_back(mesh, m, s, line, shape, plans, first, last, width):
    """Transform planes of constant x back in y and z."""
    n_x, n_y, n_z, n_vectors, n_rows = shape
    zero, backward = int64(0), int64(-1)
    row, half, waves_z = 2 * n_vectors * width, n_z // 2, plans[3][2]
    is_far = n_x * n_rows * row > _FAR
    for x in range(first, last):
        for vector in range(n_vectors):
            place = m + x * n_rows * row + 2 * vector * width
            transform(mesh, place, row, mesh, place, row, s, zero, plans[1], width, backward)
        for y in range(0, n_y, width):
            place = m + (x * n_rows + y) * row
            for part in range(2 * n_vectors):
                begin = (part // 2 * width * 2 + part % 2) * width
                transpose(mesh, place + part * width, row, s, begin, 2 * width, width)
                if is_far:  # the same rows of the next plane, whose first transforms jump from row to row
                    for index in range(part * width, (part + 1) * width):
                        prefetch(mesh, place + n_rows * row + index * width, 1)
            constant = load(s, 0, width)
            store(s, line, constant)
            store(s, line + width, constant)
            for k in range(1, half):
                a, b = 2 * width * k, 2 * width * (half - k)
                ra, ia, rb, ib = (
                    load(s, a, width),
                    load(s, a + width, width),
                    load(s, b, width),
                    load(s, b + width, width),
                )
                c, t = waves_z[2 * k], waves_z[2 * k + 1]
                rd, jd = ra - rb, ia + ib
                store(s, line + a, ra + rb - rd * t - jd * c)
                store(s, line + a + width, ia - ib - jd * t + rd * c)
            transform(s, line, 2 * width, s, zero, 2 * width, s, 2 * line, plans[2], width, backward)
            for z in range(0, n_z, width):
                transpose(s, z * width, width, mesh, place + z, row, width)


@lru_cache(maxsize=2)
def _filter_kernel(dtype: np.dtype) -> Any:
    width = _width(dtype)

    def kernel(mesh_array, mesh_shape, table_array, kept_array, factors, waves, step, index, first, last):
        n_x, n_y, n_z = mesh_shape
        n_rows, row = mesh_array.shape[2:]
        shape = (n_x, n_y, n_z, row // (2 * width), n_rows)
        line = 2 * width * max(n_x, n_y, row // 2)
        memory, tail_memory = np.zeros(4 * line + SPARE, mesh_array.dtype), np.zeros(2 * width, mesh_array.dtype)
        s, tail, table = aligned_address(memory), address(tail_memory), address(table_array)
        mesh, kept = address(mesh_array), address(kept_array)
        plans = (
            (factors[0].size, address(factors[0]), address(waves[0])),
            (factors[1].size, address(factors[1]), address(waves[1])),
            (factors[2].size, address(factors[2]), address(waves[2])),
            (factors[3].size, address(factors[3]), address(waves[3])),
        )
        n_mesh, n_half, n_table = n_x * n_rows * row, n_x * n_y * (n_z // 2 + 1), table_array.size
        for i in range(width):  # for vectors of the table that would end beyond it
            tail_memory[i] = table[n_table - width + i]
        begin, end = (first, last) if step == _ALL else (index, index + 1)
        x_begin, x_end = (0, n_x) if step == _ALL else (first, last)
        y_begin, y_end = (0, n_y) if step == _ALL else (first, last)
        for own in range(begin, end):
            m, t, k = own * n_mesh, own * n_half, own * n_mesh if kept_array.size > 0 else -1
            if step in (_PLANES, _ALL):
                _planes(mesh, m, s, line, shape, plans, x_begin, x_end, width)
            if step in (_LINES, _ALL):
                _lines(mesh, m, table, t, kept, k, tail, n_table, s, line, shape, plans, y_begin, y_end, width)
            if step in (_PLANES_BACK, _ALL):
                _planes_back(mesh, m, s, line, shape, plans, x_begin, x_end, width)
        memory[0], tail_memory[0] = 0, 0  # keeps them alive until here

    return compiled(kernel, "filter", dtype.name)


@lru_cache(maxsize=2)
def _correlate_kernel(dtype: np.dtype) -> Any:
    def kernel(first, second, correlation):
        n_vectors, width = first.shape[3], first.shape[5]
        n_meshes, n_x, n_y, n_half = correlation.shape
        half = n_half - 1
        for own in range(n_meshes):
            for x in range(n_x):
                for y in range(n_y):
                    a, b, out = first[own, x, y], second[own, x, y], correlation[own, x, y]
                    for vector in range(n_vectors):
                        for i in range(min(width, half - vector * width)):
                            product = a[vector, 0, i] * b[vector, 0, i] + a[vector, 1, i] * b[vector, 1, i]
                            out[vector * width + i] = product + product
                    out[0] *= a.dtype.type(0.5)
                    out[half] = 0

    return compiled(kernel, "correlate", dtype.name)
