"""FFTs of many lines at once, one line in each number of a vector; called by compiled kernels.

The transform is Stockham's with radices 2, 3, 4, 5 and 7: a pass of radix r takes n / r times r numbers that lie n / r
apart, and the results of the last pass are in order. Exchanging real and imaginary parts on the way in and out inverts
it, without the factor 1 / n.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numba import int64

from lrc_ase.compiled.compilation import called, inlined
from lrc_ase.compiled.simd import load, store

__all__ = ["is_smooth", "line_plan", "transform"]

_RADICES = (4, 2, 3, 5, 7)


def is_smooth(n: int) -> bool:
    """Whether `n` is a product of 2, 3, 5 and 7, and above 1.

    >>> [n for n in range(12) if is_smooth(n)]
    [2, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    return bool(_factors(n))


@lru_cache(maxsize=256)
def line_plan(n: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    r"""Radices of the passes, and cos and sin of :math:`2\pi j / n` in turn, (2 n,)."""
    angles = 2 * math.pi * np.arange(n) / n
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return np.array(_factors(n), np.int64), np.ascontiguousarray(waves.ravel(), dtype)


def _factors(n: int) -> tuple[int, ...]:
    found = []
    for radix in _RADICES:
        while n > 1 and n % radix == 0:
            found.append(radix)
            n //= radix
    return tuple(found) if n == 1 else ()


_SIN_3 = math.sin(2 * math.pi / 3)
_COS_5 = math.cos(2 * math.pi / 5), math.cos(4 * math.pi / 5)
_SIN_5 = math.sin(2 * math.pi / 5), math.sin(4 * math.pi / 5)
_COS_7 = tuple(math.cos(2 * math.pi * k / 7) for k in range(7))
_SIN_7 = tuple(math.sin(2 * math.pi * k / 7) for k in range(7))

# Complex vectors lie at a place, imaginary parts `im` numbers further on. A pass of radix r reads r of them, `across`
# apart from each other, from ``a + (q + done p) apart`` on, for all q < done and p < left, and writes result k times
# exp(-2 pi i k p done / n) at ``b + (q + done (r p + k)) between``.


@inlined
def _put(target, place, im, real, imaginary, c, s):
    """Store a complex vector times c - i s."""
    if s == 0 and c == 1:
        store(target, place, real)
        store(target, place + im, imaginary)
    else:
        store(target, place, real * c + imaginary * s)
        store(target, place + im, imaginary * c - real * s)


@called
def _pass2(source, begin, apart, target, put, between, left, done, im, waves, width):
    across, along = done * left * apart, done * between
    for p in range(left):
        c, s = waves[2 * done * p], waves[2 * done * p + 1]
        for q in range(done):
            a, b = begin + (q + done * p) * apart, put + (q + 2 * done * p) * between
            r0, i0 = load(source, a, width), load(source, a + im, width)
            r1, i1 = load(source, a + across, width), load(source, a + across + im, width)
            store(target, b, r0 + r1)
            store(target, b + im, i0 + i1)
            _put(target, b + along, im, r0 - r1, i0 - i1, c, s)


@called
def _pass3(source, begin, apart, target, put, between, left, done, im, waves, width):
    across, along = done * left * apart, done * between
    for p in range(left):
        turn = 2 * done * p
        c1, s1, c2, s2 = waves[turn], waves[turn + 1], waves[2 * turn], waves[2 * turn + 1]
        for q in range(done):
            a, b = begin + (q + done * p) * apart, put + (q + 3 * done * p) * between
            r0, i0 = load(source, a, width), load(source, a + im, width)
            r1, i1 = load(source, a + across, width), load(source, a + across + im, width)
            r2, i2 = load(source, a + 2 * across, width), load(source, a + 2 * across + im, width)
            rs, ims = r1 + r2, i1 + i2
            rd, jd = (r1 - r2) * _SIN_3, (i1 - i2) * _SIN_3
            rm, jm = r0 - rs * 0.5, i0 - ims * 0.5
            store(target, b, r0 + rs)
            store(target, b + im, i0 + ims)
            _put(target, b + along, im, rm + jd, jm - rd, c1, s1)
            _put(target, b + 2 * along, im, rm - jd, jm + rd, c2, s2)


@called
def _pass4(source, begin, apart, target, put, between, left, done, im, waves, width):
    across, along = done * left * apart, done * between
    for p in range(left):
        turn = 2 * done * p
        c1, s1, c2, s2 = waves[turn], waves[turn + 1], waves[2 * turn], waves[2 * turn + 1]
        c3, s3 = waves[3 * turn], waves[3 * turn + 1]
        for q in range(done):
            a, b = begin + (q + done * p) * apart, put + (q + 4 * done * p) * between
            r0, i0 = load(source, a, width), load(source, a + im, width)
            r1, i1 = load(source, a + across, width), load(source, a + across + im, width)
            r2, i2 = load(source, a + 2 * across, width), load(source, a + 2 * across + im, width)
            r3, i3 = load(source, a + 3 * across, width), load(source, a + 3 * across + im, width)
            re, ie, ro, io = r0 + r2, i0 + i2, r1 + r3, i1 + i3
            rf, jf, rg, jg = r0 - r2, i0 - i2, r1 - r3, i1 - i3
            store(target, b, re + ro)
            store(target, b + im, ie + io)
            _put(target, b + along, im, rf + jg, jf - rg, c1, s1)
            _put(target, b + 2 * along, im, re - ro, ie - io, c2, s2)
            _put(target, b + 3 * along, im, rf - jg, jf + rg, c3, s3)


@called
def _pass5(source, begin, apart, target, put, between, left, done, im, waves, width):
    across, along = done * left * apart, done * between
    for p in range(left):
        turn = 2 * done * p
        c1, s1, c2, s2 = waves[turn], waves[turn + 1], waves[2 * turn], waves[2 * turn + 1]
        c3, s3, c4, s4 = waves[3 * turn], waves[3 * turn + 1], waves[4 * turn], waves[4 * turn + 1]
        for q in range(done):
            a, b = begin + (q + done * p) * apart, put + (q + 5 * done * p) * between
            r0, i0 = load(source, a, width), load(source, a + im, width)
            r1, i1 = load(source, a + across, width), load(source, a + across + im, width)
            r2, i2 = load(source, a + 2 * across, width), load(source, a + 2 * across + im, width)
            r3, i3 = load(source, a + 3 * across, width), load(source, a + 3 * across + im, width)
            r4, i4 = load(source, a + 4 * across, width), load(source, a + 4 * across + im, width)
            ra, ia, rb, ib = r1 + r4, i1 + i4, r2 + r3, i2 + i3
            rc, ic, rd, jd = r1 - r4, i1 - i4, r2 - r3, i2 - i3
            store(target, b, r0 + ra + rb)
            store(target, b + im, i0 + ia + ib)
            re, ie = r0 + ra * _COS_5[0] + rb * _COS_5[1], i0 + ia * _COS_5[0] + ib * _COS_5[1]
            rf, jf = r0 + ra * _COS_5[1] + rb * _COS_5[0], i0 + ia * _COS_5[1] + ib * _COS_5[0]
            rg, jg = rc * _SIN_5[0] + rd * _SIN_5[1], ic * _SIN_5[0] + jd * _SIN_5[1]
            rh, jh = rc * _SIN_5[1] - rd * _SIN_5[0], ic * _SIN_5[1] - jd * _SIN_5[0]
            _put(target, b + along, im, re + jg, ie - rg, c1, s1)
            _put(target, b + 2 * along, im, rf + jh, jf - rh, c2, s2)
            _put(target, b + 3 * along, im, rf - jh, jf + rh, c3, s3)
            _put(target, b + 4 * along, im, re - jg, ie + rg, c4, s4)


@called
def _pass7(source, begin, apart, target, put, between, left, done, im, waves, width):
    across, along = done * left * apart, done * between
    for p in range(left):
        turn = 2 * done * p
        for q in range(done):
            a, b = begin + (q + done * p) * apart, put + (q + 7 * done * p) * between
            r0, i0 = load(source, a, width), load(source, a + im, width)
            r1, i1 = load(source, a + across, width), load(source, a + across + im, width)
            r6, i6 = load(source, a + 6 * across, width), load(source, a + 6 * across + im, width)
            ra, ia, rd, jd = r1 + r6, i1 + i6, r1 - r6, i1 - i6
            r2, i2 = load(source, a + 2 * across, width), load(source, a + 2 * across + im, width)
            r5, i5 = load(source, a + 5 * across, width), load(source, a + 5 * across + im, width)
            rb, ib, re, je = r2 + r5, i2 + i5, r2 - r5, i2 - i5
            r3, i3 = load(source, a + 3 * across, width), load(source, a + 3 * across + im, width)
            r4, i4 = load(source, a + 4 * across, width), load(source, a + 4 * across + im, width)
            rc, ic, rf, jf = r3 + r4, i3 + i4, r3 - r4, i3 - i4
            store(target, b, r0 + ra + rb + rc)
            store(target, b + im, i0 + ia + ib + ic)
            for k in range(1, 4):
                c1, c2, c3 = _COS_7[k], _COS_7[2 * k % 7], _COS_7[3 * k % 7]
                s1, s2, s3 = _SIN_7[k], _SIN_7[2 * k % 7], _SIN_7[3 * k % 7]
                rg, jg = r0 + ra * c1 + rb * c2 + rc * c3, i0 + ia * c1 + ib * c2 + ic * c3
                rh, jh = rd * s1 + re * s2 + rf * s3, jd * s1 + je * s2 + jf * s3
                here, there = k * turn, (7 - k) * turn
                _put(target, b + k * along, im, rg + jh, jg - rh, waves[here], waves[here + 1])
                _put(target, b + (7 - k) * along, im, rg - jh, jg + rh, waves[there], waves[there + 1])


@called
def transform(source, start, stride, target, place, step, memory, free, plan, width, sign):
    """Transform a line of complex vectors from ``start + j * stride`` to ``place + k * step``, or in place.

    `plan` holds the number of radices in `line_plan` and the addresses of its arrays; `sign` is 1, or -1 for the
    inverse. `memory` has two lines to spare from `free` on. Only `width` may be a literal: for each of them all this is
    compiled anew.
    """
    n_factors, factors, waves = plan
    n, im = int64(1), sign * width
    for index in range(n_factors):
        n *= factors[index]
    if sign < 0:
        start, place, free = start + width, place + width, free + width
    left, done = n, int64(1)  # a literal would be a type of its own
    given, begin, apart = source, start, stride
    for index in range(n_factors):
        radix = factors[index]
        left //= radix
        taken, put, between = memory, free + (index % 2) * 2 * width * n, 2 * width
        if index == n_factors - 1:
            taken, put, between = target, place, step
        if radix == 4:
            _pass4(given, begin, apart, taken, put, between, left, done, im, waves, width)
        elif radix == 2:
            _pass2(given, begin, apart, taken, put, between, left, done, im, waves, width)
        elif radix == 3:
            _pass3(given, begin, apart, taken, put, between, left, done, im, waves, width)
        elif radix == 5:
            _pass5(given, begin, apart, taken, put, between, left, done, im, waves, width)
        else:
            _pass7(given, begin, apart, taken, put, between, left, done, im, waves, width)
        done *= radix
        given, begin, apart = taken, put, between
