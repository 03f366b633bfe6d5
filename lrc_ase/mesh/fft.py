"""FFTs of many lines at once, one line in each number of a vector; called by compiled kernels.

The transform is Stockham's with radices 2, 3, 4, 5 and 7: a pass of radix r takes n / r times r numbers that lie n / r
apart, and the results of the last pass are in order. Exchanging real and imaginary parts on the way in and out inverts
it, without the factor 1 / n.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ..compilation import called, inlined
from ..simd import load, store

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
_COS_7 = math.cos(2 * math.pi / 7), math.cos(4 * math.pi / 7), math.cos(6 * math.pi / 7)
_SIN_7 = math.sin(2 * math.pi / 7), math.sin(4 * math.pi / 7), math.sin(6 * math.pi / 7)

# Complex vectors lie at a place, imaginary parts `im` numbers further on. Radix r reads r of them, `apart` from each
# other from `a` on, and writes result k at ``b + k * step``, times exp(-2 pi i k turn / n).


@inlined
def _put(target, place, im, real, imaginary, waves, turn):
    """Store a complex vector times exp(-2 pi i turn / n)."""
    c, s = waves[2 * turn], waves[2 * turn + 1]
    store(target, place, real * c + imaginary * s)
    store(target, place + im, imaginary * c - real * s)


@inlined
def _radix2(source, a, apart, target, b, step, im, waves, turn, width):
    r0, i0 = load(source, a, width), load(source, a + im, width)
    r1, i1 = load(source, a + apart, width), load(source, a + apart + im, width)
    store(target, b, r0 + r1)
    store(target, b + im, i0 + i1)
    _put(target, b + step, im, r0 - r1, i0 - i1, waves, turn)


@inlined
def _radix3(source, a, apart, target, b, step, im, waves, turn, width):
    r0, i0 = load(source, a, width), load(source, a + im, width)
    r1, i1 = load(source, a + apart, width), load(source, a + apart + im, width)
    r2, i2 = load(source, a + 2 * apart, width), load(source, a + 2 * apart + im, width)
    rs, ims = r1 + r2, i1 + i2
    rd, imd = (r1 - r2) * _SIN_3, (i1 - i2) * _SIN_3
    rm, imm = r0 - rs * 0.5, i0 - ims * 0.5
    store(target, b, r0 + rs)
    store(target, b + im, i0 + ims)
    _put(target, b + step, im, rm + imd, imm - rd, waves, turn)
    _put(target, b + 2 * step, im, rm - imd, imm + rd, waves, 2 * turn)


@inlined
def _radix4(source, a, apart, target, b, step, im, waves, turn, width):
    r0, i0 = load(source, a, width), load(source, a + im, width)
    r1, i1 = load(source, a + apart, width), load(source, a + apart + im, width)
    r2, i2 = load(source, a + 2 * apart, width), load(source, a + 2 * apart + im, width)
    r3, i3 = load(source, a + 3 * apart, width), load(source, a + 3 * apart + im, width)
    re, ie, ro, io = r0 + r2, i0 + i2, r1 + r3, i1 + i3
    rf, jf, rg, jg = r0 - r2, i0 - i2, r1 - r3, i1 - i3
    store(target, b, re + ro)
    store(target, b + im, ie + io)
    _put(target, b + step, im, rf + jg, jf - rg, waves, turn)
    _put(target, b + 2 * step, im, re - ro, ie - io, waves, 2 * turn)
    _put(target, b + 3 * step, im, rf - jg, jf + rg, waves, 3 * turn)


@inlined
def _radix5(source, a, apart, target, b, step, im, waves, turn, width):
    r0, i0 = load(source, a, width), load(source, a + im, width)
    r1, i1 = load(source, a + apart, width), load(source, a + apart + im, width)
    r2, i2 = load(source, a + 2 * apart, width), load(source, a + 2 * apart + im, width)
    r3, i3 = load(source, a + 3 * apart, width), load(source, a + 3 * apart + im, width)
    r4, i4 = load(source, a + 4 * apart, width), load(source, a + 4 * apart + im, width)
    ra, ia, rb, ib = r1 + r4, i1 + i4, r2 + r3, i2 + i3
    rc, ic, rd, jd = r1 - r4, i1 - i4, r2 - r3, i2 - i3
    store(target, b, r0 + ra + rb)
    store(target, b + im, i0 + ia + ib)
    re, ie = r0 + ra * _COS_5[0] + rb * _COS_5[1], i0 + ia * _COS_5[0] + ib * _COS_5[1]
    rf, jf = r0 + ra * _COS_5[1] + rb * _COS_5[0], i0 + ia * _COS_5[1] + ib * _COS_5[0]
    rg, jg = rc * _SIN_5[0] + rd * _SIN_5[1], ic * _SIN_5[0] + jd * _SIN_5[1]
    rh, ih = rc * _SIN_5[1] - rd * _SIN_5[0], ic * _SIN_5[1] - jd * _SIN_5[0]
    _put(target, b + step, im, re + jg, ie - rg, waves, turn)
    _put(target, b + 2 * step, im, rf + ih, jf - rh, waves, 2 * turn)
    _put(target, b + 3 * step, im, rf - ih, jf + rh, waves, 3 * turn)
    _put(target, b + 4 * step, im, re - jg, ie + rg, waves, 4 * turn)


@inlined
def _radix7(source, a, apart, target, b, step, im, waves, turn, width):
    r0, i0 = load(source, a, width), load(source, a + im, width)
    r1, i1 = load(source, a + apart, width), load(source, a + apart + im, width)
    r2, i2 = load(source, a + 2 * apart, width), load(source, a + 2 * apart + im, width)
    r3, i3 = load(source, a + 3 * apart, width), load(source, a + 3 * apart + im, width)
    r4, i4 = load(source, a + 4 * apart, width), load(source, a + 4 * apart + im, width)
    r5, i5 = load(source, a + 5 * apart, width), load(source, a + 5 * apart + im, width)
    r6, i6 = load(source, a + 6 * apart, width), load(source, a + 6 * apart + im, width)
    ra, ia, rb, ib, rc, ic = r1 + r6, i1 + i6, r2 + r5, i2 + i5, r3 + r4, i3 + i4
    rd, jd, re, je, rf, jf = r1 - r6, i1 - i6, r2 - r5, i2 - i5, r3 - r4, i3 - i4
    store(target, b, r0 + ra + rb + rc)
    store(target, b + im, i0 + ia + ib + ic)
    rg, ig = (
        r0 + ra * _COS_7[0] + rb * _COS_7[1] + rc * _COS_7[2],
        i0 + ia * _COS_7[0] + ib * _COS_7[1] + ic * _COS_7[2],
    )
    rh, ih = rd * _SIN_7[0] + re * _SIN_7[1] + rf * _SIN_7[2], jd * _SIN_7[0] + je * _SIN_7[1] + jf * _SIN_7[2]
    _put(target, b + step, im, rg + ih, ig - rh, waves, turn)
    _put(target, b + 6 * step, im, rg - ih, ig + rh, waves, 6 * turn)
    rg, ig = (
        r0 + ra * _COS_7[1] + rb * _COS_7[2] + rc * _COS_7[0],
        i0 + ia * _COS_7[1] + ib * _COS_7[2] + ic * _COS_7[0],
    )
    rh, ih = rd * _SIN_7[1] - re * _SIN_7[2] - rf * _SIN_7[0], jd * _SIN_7[1] - je * _SIN_7[2] - jf * _SIN_7[0]
    _put(target, b + 2 * step, im, rg + ih, ig - rh, waves, 2 * turn)
    _put(target, b + 5 * step, im, rg - ih, ig + rh, waves, 5 * turn)
    rg, ig = (
        r0 + ra * _COS_7[2] + rb * _COS_7[0] + rc * _COS_7[1],
        i0 + ia * _COS_7[2] + ib * _COS_7[0] + ic * _COS_7[1],
    )
    rh, ih = rd * _SIN_7[2] - re * _SIN_7[0] + rf * _SIN_7[1], jd * _SIN_7[2] - je * _SIN_7[0] + jf * _SIN_7[1]
    _put(target, b + 3 * step, im, rg + ih, ig - rh, waves, 3 * turn)
    _put(target, b + 4 * step, im, rg - ih, ig + rh, waves, 4 * turn)


@called
def transform(source, start, stride, target, place, step, memory, free, plan, width, sign):
    """Transform a line of complex vectors from ``start + j * stride`` to ``place + k * step``, or in place.

    `plan` is that of `line_plan` with the address of the waves, `sign` 1, or -1 for the inverse. `memory` has two lines
    to spare from `free` on. Only `width` may be a literal: for each of them all this is compiled anew.
    """
    factors, waves = plan
    n, im = 1, sign * width
    for radix in factors:
        n *= radix
    if sign < 0:
        start, place, free = start + width, place + width, free + width
    left, done = n, 1
    given, begin, apart = source, start, stride
    for index in range(len(factors)):
        radix = factors[index]
        left //= radix
        taken, put, between = memory, free + (index % 2) * 2 * width * n, 2 * width
        if index == len(factors) - 1:
            taken, put, between = target, place, step
        across, along = done * left * apart, done * between
        for p in range(left):
            for q in range(done):
                a, b = begin + (q + done * p) * apart, put + (q + done * radix * p) * between
                if radix == 4:
                    _radix4(given, a, across, taken, b, along, im, waves, p * done, width)
                elif radix == 2:
                    _radix2(given, a, across, taken, b, along, im, waves, p * done, width)
                elif radix == 3:
                    _radix3(given, a, across, taken, b, along, im, waves, p * done, width)
                elif radix == 5:
                    _radix5(given, a, across, taken, b, along, im, waves, p * done, width)
                else:
                    _radix7(given, a, across, taken, b, along, im, waves, p * done, width)
        done *= radix
        given, begin, apart = taken, put, between
