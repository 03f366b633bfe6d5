"""Products of radial functions with the messages of single neighbors, inlined into the kernels of `compiled_messages`.

Columns of a neighbor: K scalars, then the x, y and z components of K vectors, in K / `width` vectors each. Radial
functions are mixed into 2 K functions, K for the scalars and K for the vectors. Products with matrices take `LANES`
neighbors at once, so that a number of the matrix is loaded once for all of them.
"""

from __future__ import annotations

from lrc_ase.compiled.compilation import inlined
from lrc_ase.compiled.simd import load, repeat, store

__all__ = ["LANES", "add_products", "add_terms", "contract", "mix_radial", "multiply_columns"]

LANES = 4
"""Neighbors whose products share the loads of a matrix; written out in `add_products` and `contract`."""


@inlined
def mix_radial(s, rows, row_width, lane, mixing, n_radial, n_messages, at, zero, width):
    """Write the 2 K mixed radial functions of one neighbor of a block."""
    for first in range(0, 2 * n_messages, width):
        kind = first // n_messages
        value = zero
        for n in range(n_radial):
            # mixing (2, n_radial, K), flat; K fills whole vectors, so none holds columns of both kinds
            offset = (kind * (n_radial - 1) + n) * n_messages + first
            value = value + repeat(s, rows + n * row_width + lane, width) * load(mixing, offset, width)
        store(s, at + first, value)


@inlined
def multiply_columns(s, radial, messages, message, n_messages, at, width):
    """Write the 4 K columns of a neighbor: mixed radial functions times its message."""
    # group 0: scalars; 1 to 3: x, y, z, which share the radial functions of vectors
    for group in range(4):
        for first in range(0, n_messages, width):
            factor = load(s, radial + min(group, 1) * n_messages + first, width)
            offset = group * n_messages + first
            store(s, at + offset, factor * load(messages, message + offset, width))


@inlined
def add_products(s, tile, harmonics, row_width, columns, n_lm, n_columns, width):
    """Add harmonics times columns of `LANES` neighbors to the tile (n_lm, n_columns)."""
    for first in range(0, n_columns, width):
        # four vectors stay in registers over all harmonics; the tile is loaded and stored once for four neighbors
        c0, c1 = load(s, columns + first, width), load(s, columns + n_columns + first, width)
        c2, c3 = load(s, columns + 2 * n_columns + first, width), load(s, columns + 3 * n_columns + first, width)
        for lm in range(n_lm):
            entry, row = tile + lm * n_columns + first, harmonics + lm * row_width
            value = load(s, entry, width) + repeat(s, row, width) * c0 + repeat(s, row + 1, width) * c1
            store(s, entry, value + repeat(s, row + 2, width) * c2 + repeat(s, row + 3, width) * c3)


@inlined
def contract(s, factors, step, lane_step, matrix, n_rows, row_length, at, zero, width):
    """Write products of a matrix (n_rows, row_length) with the factors of `LANES` neighbors, one row for each.

    Factors are `step` apart for the rows of the matrix, and `lane_step` for the neighbors.
    """
    for first in range(0, row_length, width):
        # four independent sums: each load of the matrix feeds four multiply-adds that do not wait for one another
        v0, v1, v2, v3 = zero, zero, zero, zero
        for row in range(n_rows):
            offset, value = factors + row * step, load(s, matrix + row * row_length + first, width)
            v0 = v0 + repeat(s, offset, width) * value
            v1 = v1 + repeat(s, offset + lane_step, width) * value
            v2 = v2 + repeat(s, offset + 2 * lane_step, width) * value
            v3 = v3 + repeat(s, offset + 3 * lane_step, width) * value
        store(s, at + first, v0)
        store(s, at + row_length + first, v1)
        store(s, at + 2 * row_length + first, v2)
        store(s, at + 3 * row_length + first, v3)


@inlined
def add_terms(s, single, double, terms, values, n_terms, n_messages, backwards, width):
    """Multiply vectors with harmonics, rows at `single` (n_lm, 4 K) to rows at `double` (n_lm, 3 K), or backwards.

    Rows at `double` hold scalars, vectors that raised the degree, and vectors that lowered it.
    """
    for term in range(n_terms):
        rises, high, low, axis = terms[term, 0], terms[term, 1], terms[term, 2], terms[term, 3]
        # group 1 + axis of the vectors' 4; group 1 (raised) or 2 (lowered) of the product's 3
        one = single + (4 * low + 1 + axis) * n_messages
        other = double + (3 * high + 2 - rises) * n_messages
        for first in range(0, n_messages, width):
            if backwards:  # the adjoint: same numbers, source and target exchanged
                change = repeat(values, term, width) * load(s, other + first, width)
                store(s, one + first, load(s, one + first, width) + change)
            else:
                change = repeat(values, term, width) * load(s, one + first, width)
                store(s, other + first, load(s, other + first, width) + change)
