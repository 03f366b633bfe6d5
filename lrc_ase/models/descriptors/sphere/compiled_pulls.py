"""Kernels for the gradients of the moments by vectors and weights, compiled by Numba; see `compiled_moments`."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrc_ase.compiled.compilation import inlined
from lrc_ase.compiled.simd import address, fill, load, repeat, store
from lrc_ase.models.descriptors.sphere.neighbor_functions import (
    changes_of_directions,
    collect,
    collect_weights,
    directions,
    evaluate_angular,
    evaluate_harmonics,
    evaluate_radial,
    sort_neighbors,
)

__all__ = ["build_backward", "build_weight_slope"]


@inlined
def _combine(s, factors, rows, n_radial, width):
    """Return the sum over radial functions of factors (one number each) times rows (one vector of neighbors each)."""
    value = repeat(s, factors, width) * load(s, rows, width)
    for n in range(1, n_radial):
        value = value + repeat(s, factors + n, width) * load(s, rows + n * width, width)
    return value


@inlined
def _combine_weighted(s, factors, rows, block_weights, weight_gradients, harmonic, n_radial, n_weights, width):
    """Return the sum of `_combine` over weights; add `harmonic` times each term to the gradient by its weight."""
    combined = 0.0 * harmonic  # a vector of zeros, of the width of `harmonic`
    for k in range(n_weights):
        value = _combine(s, factors + k * n_radial, rows, n_radial, width)
        combined = combined + load(s, block_weights + k * width, width) * value
        row = weight_gradients + k * width
        store(s, row, load(s, row, width) + harmonic * value)
    return combined


def build_backward(max_degree: int, n_radial: int, n_weights: int, width: int, n_terms: int) -> Any:
    """Return the kernel for the gradients of the density by vectors and, if any, weights.

    With the cotangents g of the density, an edge has the energy E = sum over l, m, n of g B_n(r) P_lm(z) Q_m(x, y),
    where P are normalized Legendre functions and Q the real and imaginary parts of (x + iy)^m. The kernel sums over n
    first and differentiates by r and by the unit vector (x, y, z), then by the vector.
    """
    n_lm, n_pairs = (max_degree + 1) ** 2, (max_degree + 1) * (max_degree + 2) // 2
    points = 0
    radial, radial_slopes = 3 * width, (3 + n_radial) * width
    powers = radial_slopes + n_radial * width
    legendre = powers + 2 * (max_degree + 1) * width
    block_weights = legendre + n_pairs * width
    # `unused` takes the second result of `_combine_weighted` where the combination alone is wanted
    weight_gradients, unused = block_weights + n_weights * width, block_weights + 2 * n_weights * width
    tile = unused + n_weights * width
    n_inputs = n_radial * max(n_weights, 1)
    size = tile + n_lm * n_inputs
    copy_width = 1
    while 2 * copy_width <= min(width, n_inputs):
        copy_width *= 2
    n_whole = n_inputs // copy_width * copy_width

    def kernel(
        vectors, mask, species, neighbors, weights, cotangents, gradient, weight_gradient, n_elements, cutoff,
        recurrence_array, series_array, scale_array, places, first, last,
    ):  # fmt: skip
        kind = vectors.dtype.type
        scratch = np.zeros(size, vectors.dtype)
        s, recurrence = address(scratch), address(recurrence_array)
        series, scale, factors_of_all = address(series_array), address(scale_array), address(cotangents)
        n_atoms = cotangents.shape[1]
        # two entries more than elements, see `sort_neighbors`
        order, starts = np.empty(mask.shape[1], np.int64), np.empty(n_elements + 2, np.int64)
        zero = fill(kind(0), width)
        for atom in range(first, last):
            sort_neighbors(vectors, mask, species, neighbors, atom, cutoff, order, starts)
            for element in range(n_elements):
                if starts[element] == starts[element + 1]:  # no neighbor: gradients stay the zeros passed in
                    continue
                # factors g of this element, contiguous in the first-level cache: every neighbor reads all of them
                for lm in range(n_lm):
                    # (n_lm, n_atoms, n_elements, n_inputs), flat
                    row = ((lm * n_atoms + atom) * n_elements + element) * n_inputs
                    # whole vectors first: the compiler copies single numbers, as memory might overlap
                    for n in range(0, n_whole, copy_width):
                        store(s, tile + lm * n_inputs + n, load(factors_of_all, row + n, copy_width))
                    for n in range(n_whole, n_inputs):
                        s[tile + lm * n_inputs + n] = factors_of_all[row + n]
                for begin in range(starts[element], starts[element + 1], width):
                    end = min(begin + width, starts[element + 1])
                    # lanes without a neighbor get a point at the cutoff, not the origin: 1 / r stays finite there
                    collect(vectors, atom, order, begin, end, s, points, width, kind(cutoff))
                    x, y, z, distance, inverse = directions(s, points, width)
                    evaluate_radial(
                        s, distance, cutoff, series, n_terms, scale, n_radial, radial, radial_slopes, True, width
                    )
                    evaluate_angular(s, x, y, z, recurrence, max_degree, powers, legendre, width)
                    collect_weights(weights, atom, order, begin, end, s, block_weights, n_weights, width)
                    for k in range(n_weights):
                        store(s, weight_gradients + k * width, zero)  # summed over l, m below
                    pull, gx, gy, gz = zero, zero, zero, zero  # dE/dr; dE/dx, dE/dy, dE/dz of the unit vector
                    # m outside, l inside: the order of the Legendre rows, and one power of x + iy for all l
                    row = 0
                    order_m = 0.0
                    for m in range(max_degree + 1):
                        real, imaginary = (
                            load(s, powers + 2 * m * width, width),
                            load(s, powers + (2 * m + 1) * width, width),
                        )
                        # d(x + iy)^m / dx = m (x + iy)^(m - 1), and i times that for y
                        low, low_imaginary = zero, zero
                        if m > 0:
                            low = order_m * load(s, powers + 2 * (m - 1) * width, width)
                            low_imaginary = order_m * load(s, powers + (2 * m - 1) * width, width)
                        for degree in range(m, max_degree + 1):
                            value = load(s, legendre + row * width, width)
                            # a: the factor of P_lm Re (x + iy)^m, b: that of the imaginary part
                            factors = tile + places[2 * row] * n_inputs  # harmonic (l, m)
                            if n_weights > 0:
                                a = _combine_weighted(
                                    s,
                                    factors,
                                    radial,
                                    block_weights,
                                    weight_gradients,
                                    value * real,
                                    n_radial,
                                    n_weights,
                                    width,
                                )
                                # zero in place of a harmonic: nothing is added to the gradient by weights
                                a_slope = _combine_weighted(
                                    s, factors, radial_slopes, block_weights, unused, zero, n_radial, n_weights, width
                                )
                            else:
                                a = _combine(s, factors, radial, n_radial, width)
                                a_slope = _combine(s, factors, radial_slopes, n_radial, width)
                            both, both_slope = a * real, a_slope * real
                            # m = 0 has no imaginary part, and both `places` name the same row
                            if m > 0:
                                factors = tile + places[2 * row + 1] * n_inputs
                                if n_weights > 0:
                                    turned = value * imaginary
                                    b = _combine_weighted(
                                        s,
                                        factors,
                                        radial,
                                        block_weights,
                                        weight_gradients,
                                        turned,
                                        n_radial,
                                        n_weights,
                                        width,
                                    )
                                    b_slope = _combine_weighted(
                                        s,
                                        factors,
                                        radial_slopes,
                                        block_weights,
                                        unused,
                                        zero,
                                        n_radial,
                                        n_weights,
                                        width,
                                    )
                                else:
                                    b = _combine(s, factors, radial, n_radial, width)
                                    b_slope = _combine(s, factors, radial_slopes, n_radial, width)
                                both, both_slope = both + b * imaginary, both_slope + b_slope * imaginary
                                gx = gx + value * (a * low + b * low_imaginary)
                                gy = gy + value * (b * low - a * low_imaginary)  # i (u + iv) = -v + iu: hence the signs
                            pull = pull + value * both_slope  # dE/dr: the radial functions alone depend on r
                            # dP_lm/dz is a multiple of P_l,m+1, which vanishes for l = m
                            if degree > m:
                                above = load(s, legendre + (row + max_degree - m) * width, width)
                                gz = gz + repeat(recurrence, 3 * row + 2, width) * above * both
                            row += 1
                        order_m += 1.0
                    # the unit vector changes only perpendicular to the vector, by (1 - n n^T) / r
                    radially = x * gx + y * gy + z * gz
                    store(s, points, x * pull + (gx - radially * x) * inverse)
                    store(s, points + width, y * pull + (gy - radially * y) * inverse)
                    store(s, points + 2 * width, z * pull + (gz - radially * z) * inverse)
                    for lane in range(end - begin):
                        for axis in range(3):
                            # every neighbor is in one block: stored, not added
                            gradient[atom, order[begin + lane], axis] = s[points + axis * width + lane]
                        for k in range(n_weights):
                            weight_gradient[atom, order[begin + lane], k] = s[weight_gradients + k * width + lane]
        scratch[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel


def build_weight_slope(max_degree: int, n_radial: int, n_weights: int, width: int, n_terms: int) -> Any:
    """Return the kernel for the derivative of the gradient by the weights along a change of the vectors."""
    n_lm, n_pairs = (max_degree + 1) ** 2, (max_degree + 1) * (max_degree + 2) // 2
    points, changes = 0, 3 * width
    radial, radial_slopes = 6 * width, (6 + n_radial) * width
    powers = radial_slopes + n_radial * width
    legendre = powers + 2 * (max_degree + 1) * width
    harmonics = legendre + n_pairs * width
    harmonics_along, harmonic_slopes = harmonics + n_lm * width, harmonics + 2 * n_lm * width
    tile = harmonics + 3 * n_lm * width
    n_inputs = n_radial * n_weights
    size = tile + n_lm * n_inputs

    def kernel(
        vectors, mask, species, neighbors, weights, cotangents, direction, slope, n_elements, cutoff,
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
            # weights enter E linearly: the gradient by weight k is the sum over l, m, n of g B_n Y_lm, without weights
            for lm in range(n_lm):
                for n in range(n_inputs):
                    s[tile + lm * n_inputs + n] = cotangents[lm, atom, n]
            for begin in range(0, starts[1], width):  # one group: with weights elements play no part
                end = min(begin + width, starts[1])
                collect(vectors, atom, order, begin, end, s, points, width, kind(cutoff))
                x, y, z, distance, inverse = directions(s, points, width)
                evaluate_radial(
                    s, distance, cutoff, series, n_terms, scale, n_radial, radial, radial_slopes, True, width
                )
                evaluate_angular(s, x, y, z, recurrence, max_degree, powers, legendre, width)
                collect(direction, atom, order, begin, end, s, changes, width, kind(0))
                along, dx, dy, dz = changes_of_directions(s, changes, x, y, z, inverse, width)
                evaluate_harmonics(
                    s, recurrence, places, max_degree, powers, legendre, harmonics, True,
                    along, dx, dy, dz, harmonics_along, harmonic_slopes, width,
                )  # fmt: skip
                # product rule: harmonics change with the direction, radial functions with the distance (`along`)
                for k in range(n_weights):
                    change = zero
                    for lm in range(n_lm):
                        factors = tile + lm * n_inputs + k * n_radial  # columns are (k, n)
                        change = change + load(s, harmonic_slopes + lm * width, width) * _combine(
                            s, factors, radial, n_radial, width
                        )
                        change = change + load(s, harmonics_along + lm * width, width) * _combine(
                            s, factors, radial_slopes, n_radial, width
                        )
                    store(s, points, change)
                    for lane in range(end - begin):
                        slope[atom, order[begin + lane], k] = s[points + lane]  # `points` serves as scratch
        scratch[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel
