"""Averages over the sphere on the CPU, compiled by Numba: one atom at a time, all of it in the first-level cache.

The kernels process one orbit of sign flips after the other. For each factor they sum the harmonics of each parity class
at one point of the orbit. A Walsh-Hadamard transform of the class sums gives the values at the 8 points of the orbit (4
or 2 for orbits on planes and axes, where half or three quarters of the classes vanish). This takes 5 times fewer
multiplications than a matrix product. Vectors run over channels. If the channels do not fill the last vector, it
overlaps the vector before and computes some channels twice.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from lrc_ase.compiled.compilation import compiled
from lrc_ase.compiled.simd import address, fill, load, native_width, store
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.models.descriptors.sphere.atom_averages import add_directed, along_direction, average_rows, pull_rows
from lrc_ase.models.descriptors.sphere.harmonics import (
    harmonic_order,
    parity_class,
    quadrature,
    real_spherical_harmonics,
)
from lrc_ase.models.descriptors.sphere.orbits import add_from_orbit, values_on_orbit
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["average", "average_backward", "average_second", "quadrature_tables"]


Averages: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Averages (n_atoms, n_factors * n_channels) and vector averages (3, n_atoms, n_vectors * n_channels), or their weights
in a sum."""


def average(channels: np.ndarray, averages: Averages, shape: SphereShape, n_threads: int) -> None:
    """Write the averages of `channels` (n_lm, n_atoms, n_factors * n_channels)."""
    _run(_forward, (channels, *averages), shape, n_threads)


def average_backward(
    channels: np.ndarray, weights: Averages, gradient: np.ndarray, shape: SphereShape, n_threads: int
) -> None:
    """Write the gradient by `channels` of the sum of `weights` times the averages."""
    _run(_backward, (channels, *weights, gradient), shape, n_threads)


def average_second(
    channels: np.ndarray,
    weights: Averages,
    direction: np.ndarray,
    gradient: np.ndarray,
    slopes: Averages,
    shape: SphereShape,
    n_threads: int,
) -> None:
    """Write the derivatives along `direction` of the averages (`slopes`) and of `average_backward` (`gradient`)."""
    _run(_second, (channels, *weights, direction, gradient, *slopes), shape, n_threads)


def _run(build: Any, arrays: tuple[np.ndarray, ...], shape: SphereShape, n_threads: int) -> None:
    precision = arrays[0].dtype.name
    width = native_width(arrays[0].itemsize, shape.n_channels)
    kernel = _kernel(build, shape.max_degree, len(shape.degrees), shape.n_vectors, width, precision)
    flat = tuple(array.reshape(-1) for array in arrays)
    n_atoms = arrays[1].shape[0]
    run_over_atoms(
        kernel, (*flat, n_atoms, shape.n_channels, *quadrature_tables(shape.degrees, precision)), n_atoms, n_threads
    )


@lru_cache(maxsize=32)
def quadrature_tables(degrees: tuple[int, ...], precision: str) -> tuple[np.ndarray, ...]:
    """Return the quadrature as the kernels need it, flat arrays.

    - Harmonics at one point of each orbit for each factor, (n_orbits, n_factors, n_lm), zero above the factor's degree;
    - the same times the weight of the orbit;
    - the weight of each orbit;
    - the unit vectors to the points of each orbit, (n_orbits, 8, 3);
    - the number of points of each orbit;
    - the first harmonic of each parity class that does not vanish on the orbit, (n_orbits, 8).
    """
    max_degree, rule = max(degrees), quadrature(sum(degrees))
    order = harmonic_order(max_degree)
    columns = [degree * (degree + 1) + m for degree, m in order]  # l^2 + l + m, as `real_spherical_harmonics`
    # sqrt(4 pi): the harmonic of degree 0 becomes 1, and the average of one factor is its coefficient of degree 0
    harmonics = math.sqrt(4 * math.pi) * real_spherical_harmonics(rule.points, max_degree)[:, columns]
    allowed = np.array([[degree <= highest for degree, _ in order] for highest in degrees])
    values = np.where(allowed, harmonics[:, None], 0.0)
    class_starts = np.searchsorted([parity_class(*pair) for pair in order], np.arange(8))  # sorted: a class is a range
    counts, starts = np.empty(len(rule.points), np.int64), np.zeros((len(rule.points), 8), np.int64)
    directions = np.zeros((len(rule.points), 8, 3))
    for orbit, point in enumerate(rule.points):
        axes = np.flatnonzero(point)
        counts[orbit] = 2 ** len(axes)
        for index in range(counts[orbit]):  # bit b of the index stands for the b-th axis that is not zero
            flipped = [axis for b, axis in enumerate(axes) if index >> b & 1]
            starts[orbit, index] = class_starts[sum(1 << axis for axis in flipped)]
            directions[orbit, index] = point
            directions[orbit, index, flipped] *= -1
    weighted = values * rule.weights[:, None, None]
    flat = values.reshape(-1).astype(precision), weighted.reshape(-1).astype(precision)
    return *flat, rule.weights.astype(precision), directions.reshape(-1).astype(precision), counts, starts


@lru_cache(maxsize=32)
def _kernel(build: Any, max_degree: int, n_factors: int, n_vectors: int, width: int, precision: str) -> Any:
    classes = [parity_class(*pair) for pair in harmonic_order(max_degree)]
    sizes = [classes.count(one) for one in (0, 1, 3, 7)]  # of classes odd along 0, 1, 2, 3 axes
    kernel = build((max_degree + 1) ** 2, n_factors, n_vectors, width, *sizes)
    return compiled(kernel, "sphere", build.__name__, max_degree, n_factors, n_vectors, width, precision)


def _forward(n_lm: int, n_factors: int, n_vectors: int, width: int, m0: int, m1: int, m2: int, m3: int) -> Any:
    """Return the kernel of `average`; m0 to m3 are the sizes of classes odd along 0 to 3 axes."""
    n_rows = n_factors * n_lm  # vectors of channels; then come 8 values for each factor, then the results
    points, results = n_rows * width, (n_rows + 8 * n_factors) * width
    directed = results + n_factors * width

    def kernel(
        channels_array, averages_array, vectors_array, n_atoms, n_channels,
        y_array, weighted, weights, directions_array, counts, starts, first, last,
    ):  # fmt: skip
        stride = n_factors * n_channels
        zero = fill(channels_array.dtype.type(0), width)
        scratch = np.empty(directed + 3 * n_vectors * width, channels_array.dtype)
        s = address(scratch)
        channels = address(channels_array)
        averages, vectors = address(averages_array), address(vectors_array)
        y, directions = address(y_array), address(directions_array)
        for atom in range(first, last):
            for block in range((n_channels + width - 1) // width):
                channel = min(block * width, n_channels - width)  # the last vector may overlap the one before
                column = atom * stride + channel
                for lm in range(n_lm):
                    for f in range(n_factors):
                        value = load(channels, lm * n_atoms * stride + column + f * n_channels, width)
                        store(s, (f * n_lm + lm) * width, value)
                average_rows(
                    s, 0, points, results, directed, y, weights, directions, counts, starts,
                    n_lm, n_factors, n_vectors, m0, m1, m2, m3, zero, width,
                )  # fmt: skip
                for f in range(n_factors):
                    store(averages, column + f * n_channels, load(s, results + f * width, width))
                for f in range(n_vectors):
                    for axis in range(3):
                        entry = ((axis * n_atoms + atom) * n_vectors + f) * n_channels + channel  # (3, atom, vector)
                        store(vectors, entry, load(s, directed + (3 * f + axis) * width, width))
        scratch[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel


def _backward(n_lm: int, n_factors: int, n_vectors: int, width: int, m0: int, m1: int, m2: int, m3: int) -> Any:
    """Return the kernel of `average_backward`; arguments as in `_forward`."""
    n_rows = n_factors * n_lm
    # rows of scratch: channels, values at 8 points, slopes at 8 points, gradient
    points, slopes, back = n_rows * width, (n_rows + 8 * n_factors) * width, (n_rows + 16 * n_factors) * width

    def kernel(
        channels_array, cotangent_array, vector_cotangent_array, gradient_array, n_atoms, n_channels,
        y_array, weighted_array, weights, directions_array, counts, starts, first, last,
    ):  # fmt: skip
        stride = n_factors * n_channels
        zero = fill(channels_array.dtype.type(0), width)
        scratch = np.empty(back + n_rows * width, channels_array.dtype)
        s = address(scratch)
        channels = address(channels_array)
        cotangents, vector_cotangents = address(cotangent_array), address(vector_cotangent_array)
        gradient = address(gradient_array)
        y, directions = address(y_array), address(directions_array)
        weighted = address(weighted_array)
        step = n_atoms * n_vectors * n_channels  # from one component of the vectors to the next
        for atom in range(first, last):
            for block in range((n_channels + width - 1) // width):
                channel = min(block * width, n_channels - width)  # overlaps: results are stored, never added
                column, vector_column = atom * stride + channel, atom * n_vectors * n_channels + channel
                for lm in range(n_lm):
                    for f in range(n_factors):
                        value = load(channels, lm * n_atoms * stride + column + f * n_channels, width)
                        store(s, (f * n_lm + lm) * width, value)
                pull_rows(
                    s, 0, points, slopes, back, cotangents, column, n_channels, vector_cotangents, vector_column, step,
                    y, weighted, directions, counts, starts, n_lm, n_factors, n_vectors, m0, m1, m2, m3, zero, width,
                )  # fmt: skip
                for lm in range(n_lm):
                    for f in range(n_factors):
                        value = load(s, back + (f * n_lm + lm) * width, width)
                        store(gradient, lm * n_atoms * stride + column + f * n_channels, value)
        scratch[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel


def _second(n_lm: int, n_factors: int, n_vectors: int, width: int, m0: int, m1: int, m2: int, m3: int) -> Any:
    """Return the kernel of `average_second`; arguments as in `_forward`."""
    n_rows = n_factors * n_lm
    tilted, back, results = n_rows * width, 2 * n_rows * width, 3 * n_rows * width  # as channels: direction, gradient
    directed = results + n_factors * width
    # `tilted` follows the channels and `tilts` follow `points`: the loop over 2 n_factors relies on it
    points, tilts, suffixes, slopes = (directed + (3 * n_vectors + i * 8 * n_factors) * width for i in range(4))

    def kernel(
        channels_array, cotangent_array, vector_cotangent_array, direction_array, gradient_array, rise_array,
        vector_rise_array, n_atoms, n_channels,
        y_array, weighted_array, weights, directions_array, counts, starts, first, last,
    ):  # fmt: skip
        stride = n_factors * n_channels
        zero = fill(channels_array.dtype.type(0), width)
        scratch = np.empty(slopes + 8 * n_factors * width, channels_array.dtype)
        s = address(scratch)
        channels = address(channels_array)
        cotangents, vector_cotangents = address(cotangent_array), address(vector_cotangent_array)
        direction = address(direction_array)
        gradient = address(gradient_array)
        rise, vector_rise = address(rise_array), address(vector_rise_array)
        y, directions = address(y_array), address(directions_array)
        weighted = address(weighted_array)
        step = n_atoms * n_vectors * n_channels  # from one component of the vectors to the next
        for atom in range(first, last):
            for block in range((n_channels + width - 1) // width):
                channel = min(block * width, n_channels - width)
                column, vector_column = atom * stride + channel, atom * n_vectors * n_channels + channel
                for lm in range(n_lm):
                    for f in range(n_factors):
                        source = lm * n_atoms * stride + column + f * n_channels
                        row = (f * n_lm + lm) * width
                        store(s, row, load(channels, source, width))
                        store(s, tilted + row, load(direction, source, width))
                        store(s, back + row, zero)
                for row in range(n_factors + 3 * n_vectors):
                    store(s, results + row * width, zero)
                for orbit in range(len(counts)):
                    count = counts[orbit]
                    # one call in a loop instead of two calls: `values_on_orbit` is inlined and slow to compile
                    for i in range(2 * n_factors):
                        offset, base, row = (
                            orbit * n_rows + i % n_factors * n_lm,
                            i * n_lm * width,
                            points + i * 8 * width,
                        )
                        values_on_orbit(s, base, row, y, offset, count, starts, orbit, m0, m1, m2, m3, zero, width)
                    # forward-mode derivatives ("tangents") of every line of `_backward`
                    for p in range(count):
                        suffix, suffix_tangent = zero, zero
                        for i in range(n_factors):
                            f = n_factors - 1 - i
                            if i > 0:
                                value = load(s, points + ((f + 1) * 8 + p) * width, width)
                                tangent = load(s, tilts + ((f + 1) * 8 + p) * width, width)
                                suffix_tangent = tangent * suffix + value * suffix_tangent  # before `suffix` changes
                                suffix = suffix * value
                            suffix = suffix + load(cotangents, column + f * n_channels, width)  # constant: no tangent
                            if f < n_vectors:
                                entry, at = vector_column + f * n_channels, 24 * orbit + 3 * p
                                suffix = suffix + along_direction(vector_cotangents, entry, step, directions, at, width)
                            store(s, suffixes + (f * 8 + p) * width, suffix)
                            store(s, slopes + (f * 8 + p) * width, suffix_tangent)
                        product, product_tangent = fill(channels_array.dtype.type(1), width), zero
                        for f in range(n_factors):
                            value = load(s, points + (f * 8 + p) * width, width)
                            tangent = load(s, tilts + (f * 8 + p) * width, width)
                            slope = slopes + (f * 8 + p) * width
                            suffix = load(s, suffixes + (f * 8 + p) * width, width)
                            store(s, slope, product * load(s, slope, width) + product_tangent * suffix)  # P dS + dP S
                            product_tangent = product_tangent * value + product * tangent
                            product = product * value
                            result = results + f * width
                            store(s, result, load(s, result, width) + weights[orbit] * product_tangent)
                            if f < n_vectors:  # the values of the factor are no longer needed
                                store(s, points + (f * 8 + p) * width, weights[orbit] * product_tangent)
                    for f in range(n_vectors):
                        row = directed + 3 * f * width
                        add_directed(s, row, points + f * 8 * width, directions, 24 * orbit, count, width)
                    for f in range(n_factors):
                        offset, base, row = (orbit * n_factors + f) * n_lm, f * n_lm * width, slopes + f * 8 * width
                        add_from_orbit(
                            s, back + base, row, weighted, offset, count, starts, orbit, m0, m1, m2, m3, width
                        )
                for lm in range(n_lm):
                    for f in range(n_factors):
                        value = load(s, back + (f * n_lm + lm) * width, width)
                        store(gradient, lm * n_atoms * stride + column + f * n_channels, value)
                for f in range(n_factors):
                    store(rise, column + f * n_channels, load(s, results + f * width, width))
                for f in range(n_vectors):
                    for axis in range(3):
                        entry = vector_column + axis * step + f * n_channels
                        store(vector_rise, entry, load(s, directed + (3 * f + axis) * width, width))
        scratch[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel
