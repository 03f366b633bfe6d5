"""Averages over the sphere of one atom and one vector of channels, and their adjoint; inlined into kernels.

Rows are vectors over channels in a scratch array `s`: those of the densities at `rows` (n_factors, n_lm), values at the
8 points of an orbit at `points` (n_factors, 8). `y` and the tables after it are those of `quadrature_tables`, m0 to m3
the sizes of classes odd along 0 to 3 axes.
"""

from __future__ import annotations

from lrc_ase.compiled.compilation import inlined
from lrc_ase.compiled.simd import fill, load, repeat, store
from lrc_ase.models.descriptors.sphere.orbits import add_from_orbit, values_on_orbit

__all__ = ["add_directed", "along_direction", "average_rows", "pull_rows"]


@inlined
def along_direction(cotangents, entry, step, directions, at, width):
    """Return the products of three vectors of cotangents, `step` apart, with the direction of a point, summed."""
    x = load(cotangents, entry, width) * repeat(directions, at, width)
    y = load(cotangents, entry + step, width) * repeat(directions, at + 1, width)
    return x + y + load(cotangents, entry + 2 * step, width) * repeat(directions, at + 2, width)


@inlined
def add_directed(s, rows, values, directions, at, count, width):
    """Add the values at the points of an orbit times their directions to three rows."""
    for axis in range(3):
        total = load(s, rows + axis * width, width)
        for p in range(count):
            total = total + repeat(directions, at + 3 * p + axis, width) * load(s, values + p * width, width)
        store(s, rows + axis * width, total)


@inlined
def average_rows(
    s, rows, points, results, directed, y, weights, directions, counts, starts,
    n_lm, n_factors, n_vectors, m0, m1, m2, m3, zero, width,
):  # fmt: skip
    """Write the averages to `results` (n_factors) and the vector averages to `directed` (n_vectors, 3)."""
    for row in range(n_factors):
        store(s, results + row * width, zero)
    for row in range(3 * n_vectors):
        store(s, directed + row * width, zero)
    for orbit in range(len(counts)):
        count = counts[orbit]
        for f in range(n_factors):
            offset, base, row = (orbit * n_factors + f) * n_lm, rows + f * n_lm * width, points + f * 8 * width
            values_on_orbit(s, base, row, y, offset, count, starts, orbit, m0, m1, m2, m3, zero, width)
        # one factor, two factors, ...: every prefix of the product is averaged
        for p in range(count):
            product = fill(weights[orbit], width)
            for f in range(n_factors):
                product = product * load(s, points + (f * 8 + p) * width, width)
                store(s, results + f * width, load(s, results + f * width, width) + product)
                if f < n_vectors:  # prefixes overwrite values that are no longer needed
                    store(s, points + (f * 8 + p) * width, product)
        for f in range(n_vectors):
            row = directed + 3 * f * width
            add_directed(s, row, points + f * 8 * width, directions, 24 * orbit, count, width)


@inlined
def pull_rows(
    s, rows, points, slopes, back, cotangents, column, n_channels, vector_cotangents, vector_column, step,
    y, weighted, directions, counts, starts, n_lm, n_factors, n_vectors, m0, m1, m2, m3, zero, width,
):  # fmt: skip
    """Write the gradient by the rows to `back` (n_factors, n_lm); `slopes` (n_factors, 8) is scratch.

    `cotangents` of the averages lie at `column` and every `n_channels` numbers, those of vectors at `vector_column`,
    `step` from one component to the next.
    """
    for row in range(n_factors * n_lm):
        store(s, back + row * width, zero)
    for orbit in range(len(counts)):
        count = counts[orbit]
        for f in range(n_factors):
            offset, base, row = (orbit * n_factors + f) * n_lm, rows + f * n_lm * width, points + f * 8 * width
            values_on_orbit(s, base, row, y, offset, count, starts, orbit, m0, m1, m2, m3, zero, width)
        # E = sum_k g_k P_k with the products P_k = F_1 ... F_k; with S_k = g_k + F_(k+1) S_(k+1), from the
        # last factor backwards, dE/dF_k = P_(k-1) S_k. Cotangents of vectors add their component along the
        # direction of the point to g_k.
        for p in range(count):
            suffix = zero
            for i in range(n_factors):
                f = n_factors - 1 - i
                if i > 0:
                    suffix = suffix * load(s, points + ((f + 1) * 8 + p) * width, width)
                suffix = suffix + load(cotangents, column + f * n_channels, width)
                if f < n_vectors:
                    entry, at = vector_column + f * n_channels, 24 * orbit + 3 * p
                    suffix = suffix + along_direction(vector_cotangents, entry, step, directions, at, width)
                store(s, slopes + (f * 8 + p) * width, suffix)
            product = load(s, points + p * width, width)  # P_1; the slope of the first factor is S_1
            for f in range(1, n_factors):
                slope = slopes + (f * 8 + p) * width
                store(s, slope, product * load(s, slope, width))
                product = product * load(s, points + (f * 8 + p) * width, width)
        for f in range(n_factors):
            offset, base, row = (orbit * n_factors + f) * n_lm, back + f * n_lm * width, slopes + f * 8 * width
            # `weighted`: the weight of the orbit enters here
            add_from_orbit(s, base, row, weighted, offset, count, starts, orbit, m0, m1, m2, m3, width)
