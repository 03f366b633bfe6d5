"""Radial functions and harmonics of a block of neighbors, inlined into the kernels of the moments.

A polynomial approximates sin(pi x); rotations give sin(n pi x) for n > 1. A harmonic is a normalized derivative of a
Legendre polynomial in z times the real or imaginary part of (x + iy)^m; both follow from recurrences.

Values are kept in rows of one scratch array `s`: a row holds one number per neighbor of the block.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from lrc_ase.compiled.compilation import inlined
from lrc_ase.compiled.simd import load, repeat, store, vector_sqrt
from lrc_ase.models.descriptors.sphere.harmonics import harmonic_order, normalization

__all__ = [
    "SERIES_TERMS",
    "angular_gradient",
    "changes_of_directions",
    "collect",
    "collect_weights",
    "directions",
    "evaluate_angular",
    "evaluate_harmonics",
    "evaluate_radial",
    "function_tables",
    "sort_neighbors",
]

SERIES_TERMS = {"float32": 7, "float64": 12}
"""Number of terms of the series of sine and cosine for angles up to a quarter turn, to rounding."""


@lru_cache(maxsize=32)
def function_tables(max_degree: int, radial_scale: tuple[float, ...], precision: str) -> tuple[np.ndarray, ...]:
    """Return the coefficients of recurrences and series, radial factors, and the rows of each pair (l, m), flat arrays.

    The rows of a pair are those of (l, m) and (l, -m) in `harmonic_order`.
    """
    pairs = [(degree, m) for m in range(max_degree + 1) for degree in range(m, max_degree + 1)]
    order = harmonic_order(max_degree)
    places = [[order.index((degree, m)), order.index((degree, -m))] for degree, m in pairs]
    recurrence = np.zeros((len(pairs), 3))
    for row, (degree, m) in enumerate(pairs):
        factor = normalization(degree, m)
        if degree == m:  # the start, a constant
            recurrence[row, 0] = factor * math.prod(range(1, 2 * m, 2))
        else:  # times z, times the one before the last
            recurrence[row, 0] = (2 * degree - 1) / (degree - m) * factor / normalization(degree - 1, m)
            if degree > m + 1:
                recurrence[row, 1] = -(degree + m - 1) / (degree - m) * factor / normalization(degree - 2, m)
            # derivative by z: this times the function of (l, m + 1)
            recurrence[row, 2] = factor / normalization(degree, m + 1)
    # Taylor series of cos(pi t) and sin(pi t) / t in t^2 for |t| <= 1/2, highest power first, to rounding
    n_terms = SERIES_TERMS[precision]
    cosine = [(-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k) for k in reversed(range(n_terms))]
    sine = [(-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in reversed(range(n_terms))]
    series = np.array([cosine, sine])
    floats = [recurrence.reshape(-1), series.reshape(-1), np.array(radial_scale)]
    return *(values.astype(precision) for values in floats), np.array(places).reshape(-1)


@inlined
def sort_neighbors(vectors, mask, species, neighbors, atom, cutoff, order, starts):
    """Sort the columns of neighbors within the cutoff by element: `order[starts[z]:starts[z + 1]]`.

    `starts` has one entry more than that needs, with which the counting sort works in place.
    """
    n_elements = len(starts) - 2
    # counts stand at z + 2: after the sums starts[z + 1] is the first row of z, after sorting its end
    starts[:] = 0
    for column in range(mask.shape[1]):
        x, y, z = vectors[atom, column, 0], vectors[atom, column, 1], vectors[atom, column, 2]
        # `not >=` instead of `<`: a vector with NaN counts as a neighbor, so that the NaN shows in the result
        if mask[atom, column] and not x * x + y * y + z * z >= cutoff * cutoff:
            starts[(species[neighbors[atom, column]] if n_elements > 1 else 0) + 2] += 1
    for z in range(n_elements):
        starts[z + 2] += starts[z + 1]
    for column in range(mask.shape[1]):
        x, y, z = vectors[atom, column, 0], vectors[atom, column, 1], vectors[atom, column, 2]
        if mask[atom, column] and not x * x + y * y + z * z >= cutoff * cutoff:
            element = species[neighbors[atom, column]] if n_elements > 1 else 0
            order[starts[element + 1]] = column
            starts[element + 1] += 1


@inlined
def collect(vectors, atom, order, first, last, s, at, width, filler):
    """Write the components of the vectors of a block to three rows; lanes without a neighbor get (filler, 0, 0)."""
    for lane in range(width):
        if first + lane < last:
            for axis in range(3):
                s[at + axis * width + lane] = vectors[atom, order[first + lane], axis]
        else:
            s[at + lane] = filler
            s[at + width + lane] = 0
            s[at + 2 * width + lane] = 0


@inlined
def directions(s, points, width):
    """Compute unit vectors, lengths and inverse lengths of a collected block: x, y, z, r, 1/r."""
    x, y, z = load(s, points, width), load(s, points + width, width), load(s, points + 2 * width, width)
    distance = vector_sqrt(x * x + y * y + z * z)
    inverse = 1.0 / distance
    return x * inverse, y * inverse, z * inverse, distance, inverse


@inlined
def changes_of_directions(s, changes, x, y, z, inverse, width):
    """Compute the changes of r and of the unit vector x, y, z along collected changes of the vectors."""
    dx, dy, dz = load(s, changes, width), load(s, changes + width, width), load(s, changes + 2 * width, width)
    along = dx * x + dy * y + dz * z
    return along, (dx - along * x) * inverse, (dy - along * y) * inverse, (dz - along * z) * inverse


@inlined
def collect_weights(weights, atom, order, first, last, s, at, n_weights, width):
    """Write the weights of a block of neighbors, a row for each weight; lanes without a neighbor get zero."""
    for k in range(n_weights):
        for lane in range(width):
            s[at + k * width + lane] = 0
            if first + lane < last:
                s[at + k * width + lane] = weights[atom, order[first + lane], k]


@inlined
def evaluate_radial(s, distance, cutoff, series, n_terms, scale, n_radial, values, slopes, with_slopes, width):
    """Evaluate radial functions, and their derivatives by the distance, for a block: a row for each."""
    # t in [-1/2, 1/2]: the series about the middle of the range needs the fewest terms
    x = distance * (1.0 / cutoff)
    t = x - 0.5
    t2 = t * t
    sine, cosine = repeat(series, 0, width), repeat(series, n_terms, width)  # of pi x = pi t + pi / 2
    for term in range(1, n_terms):
        sine = sine * t2 + repeat(series, term, width)
        cosine = cosine * t2 + repeat(series, n_terms + term, width)
    cosine = (0.0 - t) * cosine
    inverse = 1.0 / x
    # 1 - 28 x^6 + 48 x^7 - 21 x^8 without cancellation at the cutoff
    gap = 1.0 - x
    gap2 = gap * gap
    envelope = gap2 * gap * (1.0 + x * (3.0 + x * (6.0 + x * (10.0 + x * (15.0 + 21.0 * x))))) * inverse
    x2 = x * x
    # the derivative of envelope / x, where `envelope` has been divided by x already
    slope = (-168.0 * gap2 * x2 * x2 - envelope * inverse) * (1.0 / cutoff)  # f' = -168 x^5 (1 - x)^2
    wave, quarter = sine, cosine  # sin and cos of n pi x
    frequency = envelope * (math.pi / cutoff)
    order = 1.0
    for n in range(n_radial):
        factor = repeat(scale, n, width)
        store(s, values + n * width, envelope * wave * factor)
        if with_slopes:
            store(s, slopes + n * width, (slope * wave + order * frequency * quarter) * factor)
        order += 1.0
        # addition theorem: sin and cos of (n + 1) pi x
        wave, quarter = wave * cosine + quarter * sine, quarter * cosine - wave * sine


@inlined
def evaluate_angular(s, x, y, z, recurrence, max_degree, powers, legendre, width):
    """Evaluate rows Re (x + iy)^m and Im (x + iy)^m, alternating, and normalized Legendre functions of all (l, m)."""
    real, imaginary = 1.0 + 0.0 * x, 0.0 * x
    row = 0
    for m in range(max_degree + 1):
        store(s, powers + 2 * m * width, real)
        store(s, powers + (2 * m + 1) * width, imaginary)
        real, imaginary = x * real - y * imaginary, x * imaginary + y * real  # times x + iy: no angle, no pole at z = 1
        before, value = 0.0 * x, repeat(recurrence, 3 * row, width)  # l = m: a constant
        store(s, legendre + row * width, value)
        row += 1
        for _degree in range(m + 1, max_degree + 1):
            following = repeat(recurrence, 3 * row, width) * z * value + repeat(recurrence, 3 * row + 1, width) * before
            before, value = value, following
            store(s, legendre + row * width, value)
            row += 1


@inlined
def evaluate_harmonics(
    s, recurrence, places, max_degree, powers, legendre, harmonics, with_slope,
    along, dx, dy, dz, harmonics_along, slopes, width,
):  # fmt: skip
    """Evaluate rows of harmonics; with a slope also harmonics times `along`, and their derivative along (dx, dy, dz).

    The unit vector changes by (dx, dy, dz), which is perpendicular to it; `along` is the change of the distance.
    """
    row = 0
    order = 0.0
    for m in range(max_degree + 1):
        real, imaginary = load(s, powers + 2 * m * width, width), load(s, powers + (2 * m + 1) * width, width)
        for degree in range(m, max_degree + 1):
            value = load(s, legendre + row * width, width)
            cosine, sine = places[2 * row] * width, places[2 * row + 1] * width
            # the cosine last: for m = 0 it is the only one, and the two rows are the same
            store(s, harmonics + sine, value * imaginary)
            store(s, harmonics + cosine, value * real)
            if with_slope:
                store(s, harmonics_along + sine, along * value * imaginary)
                store(s, harmonics_along + cosine, along * value * real)
                # of the polynomial in z, and of the power of x + iy
                rise = 0.0 * dz
                if degree > m:
                    above = load(s, legendre + (row + max_degree - m) * width, width)
                    rise = repeat(recurrence, 3 * row + 2, width) * above * dz
                turn, turn_imaginary = 0.0 * dx, 0.0 * dx
                if m > 0:
                    low = order * load(s, powers + 2 * (m - 1) * width, width)
                    low_imaginary = order * load(s, powers + (2 * m - 1) * width, width)
                    turn = dx * low - dy * low_imaginary
                    turn_imaginary = dx * low_imaginary + dy * low
                store(s, slopes + sine, value * turn_imaginary + rise * imaginary)
                store(s, slopes + cosine, value * turn + rise * real)
            row += 1
        order += 1.0


@inlined
def angular_gradient(s, factors, recurrence, places, max_degree, powers, legendre, zero, width):
    """Compute the gradient by the unit vector (x, y, z) of the sum of harmonics times rows of factors."""
    gx, gy, gz = zero, zero, zero
    row = 0
    order = 0.0
    for m in range(max_degree + 1):
        real, imaginary = load(s, powers + 2 * m * width, width), load(s, powers + (2 * m + 1) * width, width)
        # d(x + iy)^m / dx = m (x + iy)^(m - 1), and i times that for y
        low, low_imaginary = zero, zero
        if m > 0:
            low = order * load(s, powers + 2 * (m - 1) * width, width)
            low_imaginary = order * load(s, powers + (2 * m - 1) * width, width)
        for degree in range(m, max_degree + 1):
            value = load(s, legendre + row * width, width)
            a = load(s, factors + places[2 * row] * width, width)
            both = a * real
            if m > 0:
                b = load(s, factors + places[2 * row + 1] * width, width)
                both = both + b * imaginary
                gx = gx + value * (a * low + b * low_imaginary)
                gy = gy + value * (b * low - a * low_imaginary)
            # dP_lm/dz is a multiple of P_l,m+1, which vanishes for l = m
            if degree > m:
                above = load(s, legendre + (row + max_degree - m) * width, width)
                gz = gz + repeat(recurrence, 3 * row + 2, width) * above * both
            row += 1
        order += 1.0
    return gx, gy, gz
