"""Sums over neighbors on the CPU, compiled by Numba: radial functions and harmonics with analytic derivatives.

Neighbors of an atom are sorted by element, without those that are padding or beyond the cutoff, and worked on in blocks
that fill a vector. The functions are evaluated for all neighbors of a block at once: sin(n pi x) by rotations from a
polynomial for n = 1, harmonics as (normalised derivative of a Legendre polynomial in z) times (real or imaginary part
of (x + iy)^m), both by recurrence.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from ...compilation import compiled, run_over_atoms
from ...simd import address, fill, load, repeat, store, vector_sqrt
from .neighbor_functions import (
    SERIES_TERMS,
    collect,
    evaluate_angular,
    evaluate_radial,
    function_tables,
    sort_neighbors,
)
from .shape import SphereShape

__all__ = ["moment", "moment_backward", "moment_slope"]

Neighborhoods = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""`vectors`, `mask`, `species`, `neighbors` as the descriptor gets them."""


def moment(of: Neighborhoods, density: np.ndarray, shape: SphereShape, n_threads: int) -> None:
    """Write the density (n_lm, n_atoms, n_inputs)."""
    _run("moment", (*of, of[0], density), shape, n_threads)


def moment_slope(
    of: Neighborhoods, direction: np.ndarray, slope: np.ndarray, shape: SphereShape, n_threads: int
) -> None:
    """Write the change of the density (`slope`) along `direction`, a change of the vectors."""
    _run("slope", (*of, direction, slope), shape, n_threads)


def moment_backward(
    of: Neighborhoods, weights: np.ndarray, gradient: np.ndarray, shape: SphereShape, n_threads: int
) -> None:
    """Add to `gradient` (zeros) the gradient by the vectors of the sum of `weights` times the density."""
    _run("backward", (*of, weights, gradient), shape, n_threads)


def _run(name: str, arrays: tuple[np.ndarray, ...], shape: SphereShape, n_threads: int) -> None:
    precision = arrays[0].dtype.name
    kernel = _kernel(name, shape.max_degree, len(shape.radial_scale), precision)
    tables = function_tables(shape.max_degree, shape.radial_scale, precision)
    run_over_atoms(kernel, (*arrays, shape.n_weights, shape.cutoff, *tables), arrays[1].shape[0], n_threads)


@lru_cache(maxsize=32)
def _kernel(name: str, max_degree: int, n_radial: int, precision: str) -> Any:
    itemsize = np.dtype(precision).itemsize
    n_terms = SERIES_TERMS[precision]
    width = 64 // itemsize
    if name == "backward":
        kernel = _backward(max_degree, n_radial, width, n_terms)
    else:
        radial_width = min(width, 2 ** math.ceil(math.log2(n_radial)))
        kernel = _density(max_degree, n_radial, width, n_terms, radial_width, name == "slope")
    return compiled(kernel, "sphere", name, max_degree, n_radial, precision)


@njit(inline="always")
def _accumulate(s, tile, harmonics, radial, n_lanes, n_lm, n_blocks, width, radial_width):
    """Add to the tile (n_lm, n_blocks vectors) harmonics (a row each) times radial functions (a lane each)."""
    for lane in range(n_lanes):
        for block in range(n_blocks):
            value = load(s, radial + (lane * n_blocks + block) * radial_width, radial_width)
            for lm in range(n_lm):
                place = tile + (lm * n_blocks + block) * radial_width
                store(
                    s,
                    place,
                    load(s, place, radial_width) + repeat(s, harmonics + lm * width + lane, radial_width) * value,
                )


@njit(inline="always")
def _transpose(s, rows, lanes, n_radial, n_blocks, width, radial_width):
    """From a row for each radial function to a row for each neighbor."""
    for lane in range(width):
        for n in range(n_radial):
            s[lanes + lane * n_blocks * radial_width + n] = s[rows + n * width + lane]


def _density(max_degree: int, n_radial: int, width: int, n_terms: int, radial_width: int, with_slope: bool) -> Any:
    n_lm, n_pairs = (max_degree + 1) ** 2, (max_degree + 1) * (max_degree + 2) // 2
    n_blocks = -(-n_radial // radial_width)
    points = 0
    changes = 3 * width
    radial, radial_slopes = 6 * width, (6 + n_radial) * width
    powers = radial_slopes + n_radial * width
    legendre = powers + 2 * (max_degree + 1) * width
    harmonics = legendre + n_pairs * width
    harmonic_slopes = harmonics + n_lm * width
    lanes = harmonic_slopes + n_lm * width
    slope_lanes = lanes + width * n_blocks * radial_width
    tile = slope_lanes + width * n_blocks * radial_width
    size = tile + n_lm * n_blocks * radial_width

    def kernel(
        vectors, mask, species, neighbors, direction, density, n_elements, cutoff,
        recurrence_array, series_array, scale_array, places, first, last,
    ):  # fmt: skip
        kind = vectors.dtype.type
        scratch = np.zeros(size, vectors.dtype)
        s, recurrence = address(scratch), address(recurrence_array)
        series, scale = address(series_array), address(scale_array)
        order, starts = np.empty(mask.shape[1], np.int64), np.empty(n_elements + 2, np.int64)
        zero = fill(kind(0), width)
        radial_zero = fill(kind(0), radial_width)
        for atom in range(first, last):
            sort_neighbors(vectors, mask, species, neighbors, atom, cutoff, order, starts)
            for element in range(n_elements):
                for row in range(n_lm * n_blocks):
                    store(s, tile + row * radial_width, radial_zero)
                for begin in range(starts[element], starts[element + 1], width):
                    end = min(begin + width, starts[element + 1])
                    collect(vectors, atom, order, begin, end, s, points, width, kind(cutoff))
                    x, y, z = load(s, points, width), load(s, points + width, width), load(s, points + 2 * width, width)
                    distance = vector_sqrt(x * x + y * y + z * z)
                    inverse = 1.0 / distance
                    x, y, z = x * inverse, y * inverse, z * inverse
                    evaluate_radial(
                        s, distance, cutoff, series, n_terms, scale, n_radial, radial, radial_slopes, with_slope, width
                    )
                    evaluate_angular(s, x, y, z, recurrence, max_degree, powers, legendre, width)
                    if with_slope:
                        collect(direction, atom, order, begin, end, s, changes, width, kind(0))
                        dx, dy, dz = (
                            load(s, changes, width),
                            load(s, changes + width, width),
                            load(s, changes + 2 * width, width),
                        )
                        along = dx * x + dy * y + dz * z
                        dx, dy, dz = (dx - along * x) * inverse, (dy - along * y) * inverse, (dz - along * z) * inverse
                    else:
                        along, dx, dy, dz = zero, zero, zero, zero
                    row = 0
                    order_m = 0.0
                    for m in range(max_degree + 1):
                        real, imaginary = (
                            load(s, powers + 2 * m * width, width),
                            load(s, powers + (2 * m + 1) * width, width),
                        )
                        for degree in range(m, max_degree + 1):
                            value = load(s, legendre + row * width, width)
                            cos_row, sin_row = (
                                harmonics + places[2 * row] * width,
                                harmonics + places[2 * row + 1] * width,
                            )
                            if with_slope:
                                # of the polynomial in z, and of the power of x + iy
                                rise = zero
                                if degree > m:
                                    rise = (
                                        repeat(recurrence, 3 * row + 2, width)
                                        * load(s, legendre + (row + max_degree - m) * width, width)
                                        * dz
                                    )
                                turn_real, turn_imaginary = zero, zero
                                if m > 0:
                                    low = load(s, powers + 2 * (m - 1) * width, width)
                                    low_imaginary = load(s, powers + (2 * m - 1) * width, width)
                                    turn_real = (dx * low - dy * low_imaginary) * order_m
                                    turn_imaginary = (dx * low_imaginary + dy * low) * order_m
                                to = harmonic_slopes - harmonics
                                store(s, sin_row + to, value * turn_imaginary + rise * imaginary)
                                store(s, cos_row + to, value * turn_real + rise * real)
                                value = value * along
                            store(s, sin_row, value * imaginary)
                            store(s, cos_row, value * real)  # last, as for m = 0 the two rows are one
                            row += 1
                        order_m += 1.0
                    _transpose(s, radial, lanes, n_radial, n_blocks, width, radial_width)
                    if with_slope:
                        _transpose(s, radial_slopes, slope_lanes, n_radial, n_blocks, width, radial_width)
                        _accumulate(s, tile, harmonic_slopes, lanes, end - begin, n_lm, n_blocks, width, radial_width)
                        _accumulate(s, tile, harmonics, slope_lanes, end - begin, n_lm, n_blocks, width, radial_width)
                    else:
                        _accumulate(s, tile, harmonics, lanes, end - begin, n_lm, n_blocks, width, radial_width)
                for lm in range(n_lm):
                    for n in range(n_radial):
                        density[lm, atom, element * n_radial + n] = s[tile + lm * n_blocks * radial_width + n]
        scratch[0] = 0  # keeps it alive until here

    return kernel


@njit(inline="always")
def _combine(s, weights, rows, n_radial, width):
    """Sum of a block's radial rows with the given weights."""
    value = repeat(s, weights, width) * load(s, rows, width)
    for n in range(1, n_radial):
        value = value + repeat(s, weights + n, width) * load(s, rows + n * width, width)
    return value


def _backward(max_degree: int, n_radial: int, width: int, n_terms: int) -> Any:
    n_lm, n_pairs = (max_degree + 1) ** 2, (max_degree + 1) * (max_degree + 2) // 2
    points = 0
    radial, radial_slopes = 3 * width, (3 + n_radial) * width
    powers = radial_slopes + n_radial * width
    legendre = powers + 2 * (max_degree + 1) * width
    tile = legendre + n_pairs * width
    size = tile + n_lm * n_radial

    def kernel(
        vectors, mask, species, neighbors, weights, gradient, n_elements, cutoff,
        recurrence_array, series_array, scale_array, places, first, last,
    ):  # fmt: skip
        kind = vectors.dtype.type
        scratch = np.zeros(size, vectors.dtype)
        s, recurrence = address(scratch), address(recurrence_array)
        series, scale = address(series_array), address(scale_array)
        order, starts = np.empty(mask.shape[1], np.int64), np.empty(n_elements + 2, np.int64)
        zero = fill(kind(0), width)
        for atom in range(first, last):
            sort_neighbors(vectors, mask, species, neighbors, atom, cutoff, order, starts)
            for element in range(n_elements):
                if starts[element] == starts[element + 1]:
                    continue
                for lm in range(n_lm):
                    for n in range(n_radial):
                        s[tile + lm * n_radial + n] = weights[lm, atom, element * n_radial + n]
                for begin in range(starts[element], starts[element + 1], width):
                    end = min(begin + width, starts[element + 1])
                    collect(vectors, atom, order, begin, end, s, points, width, kind(cutoff))
                    x, y, z = load(s, points, width), load(s, points + width, width), load(s, points + 2 * width, width)
                    distance = vector_sqrt(x * x + y * y + z * z)
                    inverse = 1.0 / distance
                    x, y, z = x * inverse, y * inverse, z * inverse
                    evaluate_radial(
                        s, distance, cutoff, series, n_terms, scale, n_radial, radial, radial_slopes, True, width
                    )
                    evaluate_angular(s, x, y, z, recurrence, max_degree, powers, legendre, width)
                    pull, gx, gy, gz = zero, zero, zero, zero  # along the vector; by x, y, z of its direction
                    row = 0
                    order_m = 0.0
                    for m in range(max_degree + 1):
                        real, imaginary = (
                            load(s, powers + 2 * m * width, width),
                            load(s, powers + (2 * m + 1) * width, width),
                        )
                        low, low_imaginary = zero, zero
                        if m > 0:
                            low = order_m * load(s, powers + 2 * (m - 1) * width, width)
                            low_imaginary = order_m * load(s, powers + (2 * m - 1) * width, width)
                        for degree in range(m, max_degree + 1):
                            value = load(s, legendre + row * width, width)
                            own = tile + places[2 * row] * n_radial
                            a = _combine(s, own, radial, n_radial, width)
                            a_slope = _combine(s, own, radial_slopes, n_radial, width)
                            both, both_slope = a * real, a_slope * real
                            if m > 0:
                                own = tile + places[2 * row + 1] * n_radial
                                b = _combine(s, own, radial, n_radial, width)
                                b_slope = _combine(s, own, radial_slopes, n_radial, width)
                                both, both_slope = both + b * imaginary, both_slope + b_slope * imaginary
                                gx = gx + value * (a * low + b * low_imaginary)
                                gy = gy + value * (b * low - a * low_imaginary)
                            pull = pull + value * both_slope
                            if degree > m:
                                above = load(s, legendre + (row + max_degree - m) * width, width)
                                gz = gz + repeat(recurrence, 3 * row + 2, width) * above * both
                            row += 1
                        order_m += 1.0
                    radially = x * gx + y * gy + z * gz
                    store(s, points, x * pull + (gx - radially * x) * inverse)
                    store(s, points + width, y * pull + (gy - radially * y) * inverse)
                    store(s, points + 2 * width, z * pull + (gz - radially * z) * inverse)
                    for lane in range(end - begin):
                        for axis in range(3):
                            gradient[atom, order[begin + lane], axis] = s[points + axis * width + lane]
        scratch[0] = 0  # keeps it alive until here

    return kernel
