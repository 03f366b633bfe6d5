"""The filter on the CPU, compiled: a mesh to its spectrum, times the table, and back.

Transforms along x and y take neighbors in z as the numbers of a vector; lines along z are turned into that form, a
vector of them at a time, by `transpose`. Real lines of even length n go as complex ones of length n / 2. Planes are
transformed in z and y while in the cache, then lines in x, which are multiplied and transformed back on the spot, then
planes back.

A spectrum is (n_x, n_rows, n_vectors, 2, width): waves along z vector by vector, real parts before imaginary ones. It
ends before index n_z / 2, whose waves the table leaves out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import int64

from ..compilation import called, compiled
from ..simd import SPARE, address, aligned_address, load, native_width, store, transpose
from ..threads import even_ranges, run_over_ranges
from .fft import is_smooth, line_plan, transform

__all__ = ["SHARED_FROM", "can_filter", "correlate_compiled", "filter_compiled", "spectrum_shape"]

SHARED_FROM = 100_000
"""Points of a mesh from which threads share it; smaller ones are theirs one by one."""
_PAGE = 4096
"""Bytes after which numbers compete for the same places in a cache."""
_PLANES, _LINES, _PLANES_BACK, _ALL = range(4)


@lru_cache(maxsize=256)
def can_filter(mesh_shape: tuple[int, ...]) -> bool:
    """Whether these kernels know the shape: three axes, products of 2, 3, 5 and 7, the last one even."""
    smooth = all(map(is_smooth, (*mesh_shape, mesh_shape[-1] // 2)))
    return len(mesh_shape) == 3 and min(mesh_shape) >= 4 and mesh_shape[2] % 2 == 0 and smooth


@lru_cache(maxsize=64)
def spectrum_shape(mesh_shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Shape of one spectrum: n_y rows in a plane, and an empty one where lines along x would share places in caches."""
    width = _width(mesh_shape, dtype)
    n_vectors = -(-mesh_shape[2] // (2 * width))
    aliased = mesh_shape[1] * n_vectors * 2 * width * dtype.itemsize % _PAGE == 0
    return mesh_shape[0], mesh_shape[1] + aliased, n_vectors, 2, width


def filter_compiled(mesh: np.ndarray, table: np.ndarray, work: np.ndarray, kept: np.ndarray, n_threads: int) -> None:
    """Turn densities into potentials in place.

    `mesh` (n_meshes, *mesh_shape) and `table`, the half meshes of all one after the other, are of one type. `work` is
    memory for spectra, as many as meshes shall be filtered at a time; `kept` takes the spectra of the densities, unless
    it is empty.
    """
    n_meshes, mesh_shape = len(mesh), mesh.shape[1:]
    kernel, plans = _prepared(mesh_shape, mesh.dtype)
    arguments = (mesh, table, work, kept, *plans)
    if len(work) > 1 or n_threads == 1 or mesh[0].size < SHARED_FROM:
        run_over_ranges(kernel, (*arguments, _ALL, 0), even_ranges(n_meshes, len(work)), n_threads)
        return
    for index in range(n_meshes):
        for step, n in ((_PLANES, mesh_shape[0]), (_LINES, mesh_shape[1]), (_PLANES_BACK, mesh_shape[0])):
            run_over_ranges(kernel, (*arguments, step, index), even_ranges(n, min(4 * n_threads, n)), n_threads)


@lru_cache(maxsize=64)
def _prepared(mesh_shape: tuple[int, ...], dtype: np.dtype) -> tuple[Any, tuple]:
    """The kernel for a mesh, and the plans of its lines along x, y, z: all factors, then all waves."""
    plans = [line_plan(n, dtype) for n in (*mesh_shape[:2], mesh_shape[2] // 2, mesh_shape[2])]
    return _filter_kernel(_width(mesh_shape, dtype), dtype.name), tuple(zip(*plans, strict=True))


def correlate_compiled(first: np.ndarray, second: np.ndarray, correlation: np.ndarray) -> None:
    """Real part of conj(first) second times the number of waves that each stands for, (n_meshes, *half mesh)."""
    kernel = _correlate_kernel(first.dtype.name)
    kernel(first, second, correlation)


def _width(mesh_shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Numbers in a vector."""
    return native_width(dtype.itemsize, min(mesh_shape[1:]))


# In the functions below `shape` is (n_x, n_y, n_z, n_vectors, n_rows); mesh, table and spectrum are read from places
# `m`, `t` and `h` on; `s` is memory for four lines of length `line`.


@called
def _planes(mesh, m, spectrum, h, s, line, shape, plans, first, last, width):
    """Transform planes of constant x in z and y."""
    _, n_y, n_z, n_vectors, n_rows = shape
    zero, forward = int64(0), int64(1)
    row, half, waves_z = 2 * n_vectors * width, n_z // 2, plans[3][1]
    for x in range(first, last):
        for y_start in range(0, n_y, width):
            y = min(y_start, n_y - width)
            for z_start in range(0, n_z, width):
                z = min(z_start, n_z - width)
                transpose(mesh, m + (x * n_y + y) * n_z + z, n_z, s, z * width, width, width)
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
            place = h + (x * n_rows + y) * row
            for part in range(2 * n_vectors):
                begin = (part // 2 * width * 2 + part % 2) * width
                transpose(s, begin, 2 * width, spectrum, place + part * width, row, width)
        for vector in range(n_vectors):
            place = h + x * n_rows * row + 2 * vector * width
            transform(spectrum, place, row, spectrum, place, row, s, zero, plans[1], width, forward)


@called
def _lines(spectrum, h, table, t, kept, k, tail, n_table, s, line, shape, plans, first, last, width):
    """Transform lines along x, multiply by the table, and transform back; `k` -1 keeps no spectrum."""
    n_x, n_y, n_z, n_vectors, n_rows = shape
    zero, forward, backward = int64(0), int64(1), int64(-1)
    row, n_half = 2 * n_vectors * width, n_z // 2 + 1
    plane = n_rows * row
    for y in range(first, last):
        for vector in range(n_vectors):
            place = y * row + 2 * vector * width
            transform(spectrum, h + place, plane, s, 2 * line, 2 * width, s, zero, plans[0], width, forward)
            for x in range(n_x):
                a, b = 2 * line + 2 * width * x, t + (x * n_y + y) * n_half + vector * width
                real, imaginary = load(s, a, width), load(s, a + width, width)
                if k >= 0:
                    store(kept, k + x * plane + place, real)
                    store(kept, k + x * plane + place + width, imaginary)
                factor = load(table, b, width) if b + width <= n_table else load(tail, 0, width)
                store(s, a, real * factor)
                store(s, a + width, imaginary * factor)
            transform(s, 2 * line, 2 * width, spectrum, h + place, plane, s, zero, plans[0], width, backward)


@called
def _planes_back(mesh, m, spectrum, h, s, line, shape, plans, first, last, width):
    """Transform planes of constant x back in y and z."""
    _, n_y, n_z, n_vectors, n_rows = shape
    zero, backward = int64(0), int64(-1)
    row, half, waves_z = 2 * n_vectors * width, n_z // 2, plans[3][1]
    for x in range(first, last):
        for vector in range(n_vectors):
            place = h + x * n_rows * row + 2 * vector * width
            transform(spectrum, place, row, spectrum, place, row, s, zero, plans[1], width, backward)
        for y_start in range(0, n_y, width):
            y = min(y_start, n_y - width)
            place = h + (x * n_rows + y) * row
            for part in range(2 * n_vectors):
                begin = (part // 2 * width * 2 + part % 2) * width
                transpose(spectrum, place + part * width, row, s, begin, 2 * width, width)
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
            for z_start in range(0, n_z, width):
                z = min(z_start, n_z - width)
                transpose(s, z * width, width, mesh, m + (x * n_y + y) * n_z + z, n_z, width)


@lru_cache(maxsize=8)
def _filter_kernel(width: int, precision: str) -> Any:
    def kernel(mesh_array, table_array, work_array, kept_array, factors, waves, step, index, first, last):
        n_meshes, n_x, n_y, n_z = mesh_array.shape
        shape = (n_x, n_y, n_z, work_array.shape[3], work_array.shape[2])
        line = 2 * width * max(n_x, n_y, shape[3] * width)
        memory, tail_memory = np.zeros(4 * line + SPARE, mesh_array.dtype), np.zeros(width, mesh_array.dtype)
        s, tail, table = aligned_address(memory), address(tail_memory), address(table_array)
        mesh, spectrum, kept = address(mesh_array), address(work_array), address(kept_array)
        plans = (
            (factors[0], address(waves[0])),
            (factors[1], address(waves[1])),
            (factors[2], address(waves[2])),
            (factors[3], address(waves[3])),
        )
        points, half_points, n_work = n_x * n_y * n_z, n_x * n_y * (n_z // 2 + 1), 2 * n_x * shape[4] * shape[3] * width
        left = (n_z // 2) % width
        for i in range(left):  # the vector of the table that would end beyond it
            tail_memory[i] = table[table_array.size - 1 - left + i]
        begin, end = (first, last) if step == _ALL else (index, index + 1)
        h = -(-first * len(work_array) // n_meshes) * n_work if step == _ALL else 0
        for own in range(begin, end):
            m, k = own * points, own * n_work if kept_array.size > 0 else -1
            x_range = (0, n_x) if step == _ALL else (first, last)
            y_range = (0, n_y) if step == _ALL else (first, last)
            if step in (_PLANES, _ALL):
                _planes(mesh, m, spectrum, h, s, line, shape, plans, x_range[0], x_range[1], width)
            if step in (_LINES, _ALL):
                t, n_table = own * half_points, table_array.size
                _lines(
                    spectrum, h, table, t, kept, k, tail, n_table, s, line, shape, plans, y_range[0], y_range[1], width
                )
            if step in (_PLANES_BACK, _ALL):
                _planes_back(mesh, m, spectrum, h, s, line, shape, plans, x_range[0], x_range[1], width)
        memory[0], tail_memory[0] = 0, 0  # keeps them alive until here

    return compiled(kernel, "filter", width, precision)


@lru_cache(maxsize=4)
def _correlate_kernel(precision: str) -> Any:
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

    return compiled(kernel, "correlate", precision)
