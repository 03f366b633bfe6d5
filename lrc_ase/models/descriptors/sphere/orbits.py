"""Values at the points of an orbit of sign flips from harmonics, and the adjoint; inlined into kernels of the averages.

`_class_sum` sums the harmonics of a parity class at the first point of the orbit. Classes that vanish there are left
out. A Walsh-Hadamard transform of the 8 class sums (4 on a plane, 2 on an axis) gives the values at all points.

Rows are vectors over channels. `y` holds the values of the harmonics from `offset` on, `starts` the first harmonic of
each class that does not vanish on an orbit; m0 to m3 are the sizes of classes that are odd along 0 to 3 axes.
"""

from __future__ import annotations

from lrc_ase.compiled.compilation import inlined
from lrc_ase.compiled.simd import load, repeat, store

__all__ = ["add_from_orbit", "values_on_orbit"]


@inlined
def _class_sum(rows, base, y, offset, first, size, zero, width):
    """Sum the harmonics of one class at the first point of an orbit."""
    value = zero
    # a class is one range of rows, see `harmonic_order`; `size` is a constant, so the loop unrolls
    for q in range(size):
        value = value + repeat(y, offset + first + q, width) * load(rows, base + (first + q) * width, width)
    return value


@inlined
def values_on_orbit(rows, base, points, y, offset, count, starts, orbit, m0, m1, m2, m3, zero, width):
    """Evaluate one factor at the points of an orbit: rows at `base` (n_lm vectors) to rows at `points` (8 vectors)."""
    # a: class sums; b, c: butterflies over the first and second axis; the last one over the third axis
    # bit b of a point flips its b-th nonzero coordinate, and changes the sign of the classes that are odd along it
    a0 = _class_sum(rows, base, y, offset, starts[orbit, 0], m0, zero, width)
    a1 = _class_sum(rows, base, y, offset, starts[orbit, 1], m1, zero, width)
    b0, b1 = a0 + a1, a0 - a1
    if count == 2:  # on an axis: classes odd along the two other axes vanish
        store(rows, points, b0)
        store(rows, points + width, b1)
    else:
        a2 = _class_sum(rows, base, y, offset, starts[orbit, 2], m1, zero, width)
        a3 = _class_sum(rows, base, y, offset, starts[orbit, 3], m2, zero, width)
        b2, b3 = a2 + a3, a2 - a3
        c0, c1, c2, c3 = b0 + b2, b1 + b3, b0 - b2, b1 - b3
        if count == 4:  # on a plane
            store(rows, points, c0)
            store(rows, points + width, c1)
            store(rows, points + 2 * width, c2)
            store(rows, points + 3 * width, c3)
        else:
            a4 = _class_sum(rows, base, y, offset, starts[orbit, 4], m1, zero, width)
            a5 = _class_sum(rows, base, y, offset, starts[orbit, 5], m2, zero, width)
            a6 = _class_sum(rows, base, y, offset, starts[orbit, 6], m2, zero, width)
            a7 = _class_sum(rows, base, y, offset, starts[orbit, 7], m3, zero, width)
            # named variables instead of arrays: the transform stays in registers
            b4, b5, b6, b7 = a4 + a5, a4 - a5, a6 + a7, a6 - a7
            c4, c5, c6, c7 = b4 + b6, b5 + b7, b4 - b6, b5 - b7
            store(rows, points, c0 + c4)
            store(rows, points + width, c1 + c5)
            store(rows, points + 2 * width, c2 + c6)
            store(rows, points + 3 * width, c3 + c7)
            store(rows, points + 4 * width, c0 - c4)
            store(rows, points + 5 * width, c1 - c5)
            store(rows, points + 6 * width, c2 - c6)
            store(rows, points + 7 * width, c3 - c7)


@inlined
def _class_add(rows, base, y, offset, first, size, value, width):
    """Add `value` times the harmonics of one class to the rows: the adjoint of `_class_sum`."""
    for q in range(size):
        store(
            rows,
            base + (first + q) * width,
            load(rows, base + (first + q) * width, width) + repeat(y, offset + first + q, width) * value,
        )


@inlined
def add_from_orbit(rows, base, points, y, offset, count, starts, orbit, m0, m1, m2, m3, width):
    """Add the rows at `points` of an orbit to the rows at `base`: the adjoint of `values_on_orbit`."""
    # the Walsh-Hadamard transform is symmetric: the adjoint has the same butterflies
    a0, a1 = load(rows, points, width), load(rows, points + width, width)
    b0, b1 = a0 + a1, a0 - a1
    if count == 2:  # the rows of vanishing classes get nothing
        _class_add(rows, base, y, offset, starts[orbit, 0], m0, b0, width)
        _class_add(rows, base, y, offset, starts[orbit, 1], m1, b1, width)
    else:
        a2, a3 = load(rows, points + 2 * width, width), load(rows, points + 3 * width, width)
        b2, b3 = a2 + a3, a2 - a3
        c0, c1, c2, c3 = b0 + b2, b1 + b3, b0 - b2, b1 - b3
        if count == 4:  # classes are numbered as the points, in 3, 2 or 1 bits
            _class_add(rows, base, y, offset, starts[orbit, 0], m0, c0, width)
            _class_add(rows, base, y, offset, starts[orbit, 1], m1, c1, width)
            _class_add(rows, base, y, offset, starts[orbit, 2], m1, c2, width)
            _class_add(rows, base, y, offset, starts[orbit, 3], m2, c3, width)
        else:
            a4, a5 = load(rows, points + 4 * width, width), load(rows, points + 5 * width, width)
            a6, a7 = load(rows, points + 6 * width, width), load(rows, points + 7 * width, width)
            b4, b5, b6, b7 = a4 + a5, a4 - a5, a6 + a7, a6 - a7
            c4, c5, c6, c7 = b4 + b6, b5 + b7, b4 - b6, b5 - b7
            _class_add(rows, base, y, offset, starts[orbit, 0], m0, c0 + c4, width)
            _class_add(rows, base, y, offset, starts[orbit, 1], m1, c1 + c5, width)
            _class_add(rows, base, y, offset, starts[orbit, 2], m1, c2 + c6, width)
            _class_add(rows, base, y, offset, starts[orbit, 3], m2, c3 + c7, width)
            _class_add(rows, base, y, offset, starts[orbit, 4], m1, c0 - c4, width)
            _class_add(rows, base, y, offset, starts[orbit, 5], m2, c1 - c5, width)
            _class_add(rows, base, y, offset, starts[orbit, 6], m2, c2 - c6, width)
            _class_add(rows, base, y, offset, starts[orbit, 7], m3, c3 - c7, width)
