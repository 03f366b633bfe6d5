"""Products of radial functions with the messages of single neighbors, inlined into the kernels of `compiled_messages`.

Columns of a neighbor: K scalars, then the x, y and z components of K vectors, in K / `width` vectors each. Radial
functions are mixed into 2 K functions, K for the scalars and K for the vectors.
"""

from __future__ import annotations

from lrc_ase.compiled.compilation import inlined
from lrc_ase.compiled.simd import load, repeat, store

__all__ = ["add_products", "add_terms", "contract", "mix_radial", "multiply_columns"]


@inlined
def mix_radial(s, rows, row_width, lane, mixing, n_radial, n_messages, at, zero, width):
    """Write the 2 K mixed radial functions of one neighbor of a block."""
    for first in range(0, 2 * n_messages, width):
        kind = first // n_messages
        value = zero
        for n in range(n_radial):
            place = (kind * (n_radial - 1) + n) * n_messages + first
            value = value + repeat(s, rows + n * row_width + lane, width) * load(mixing, place, width)
        store(s, at + first, value)


@inlined
def multiply_columns(s, radial, messages, message, n_messages, at, width):
    """Write the 4 K columns of a neighbor: mixed radial functions times its message."""
    for group in range(4):
        for first in range(0, n_messages, width):
            factor = load(s, radial + min(group, 1) * n_messages + first, width)
            place = group * n_messages + first
            store(s, at + place, factor * load(messages, message + place, width))


@inlined
def add_products(s, tile, harmonics, row_width, lane, columns, n_lm, n_columns, width):
    """Add harmonics times columns of one neighbor to the tile (n_lm, n_columns)."""
    for first in range(0, n_columns, width):
        value = load(s, columns + first, width)
        for lm in range(n_lm):
            entry = tile + lm * n_columns + first
            store(s, entry, load(s, entry, width) + repeat(s, harmonics + lm * row_width + lane, width) * value)


@inlined
def contract(s, factors, step, lane, matrix, n_rows, n_columns, at, zero, width):
    """Write the product of one row of factors, `step` apart, with a matrix (n_rows, n_columns)."""
    for first in range(0, n_columns, width):
        value = zero
        for row in range(n_rows):
            value = value + repeat(s, factors + row * step + lane, width) * load(
                s, matrix + row * n_columns + first, width
            )
        store(s, at + first, value)


@inlined
def add_terms(s, single, double, terms, values, n_terms, n_messages, backwards, width):
    """Multiply vectors with harmonics, rows at `single` (n_lm, 4 K) to rows at `double` (n_lm, 3 K), or backwards.

    Rows at `double` hold scalars, vectors that raised the degree, and vectors that lowered it.
    """
    for term in range(n_terms):
        rises, high, low, axis = terms[term, 0], terms[term, 1], terms[term, 2], terms[term, 3]
        one = single + (4 * low + 1 + axis) * n_messages
        other = double + (3 * high + 2 - rises) * n_messages
        for first in range(0, n_messages, width):
            if backwards:
                change = repeat(values, term, width) * load(s, other + first, width)
                store(s, one + first, load(s, one + first, width) + change)
            else:
                change = repeat(values, term, width) * load(s, one + first, width)
                store(s, other + first, load(s, other + first, width) + change)
