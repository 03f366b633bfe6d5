"""Kernels for the gradients of sums over messages, and for their derivatives; see `compiled_messages`."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrc_ase.compiled.compilation import inlined
from lrc_ase.compiled.simd import address, fill, load, repeat, store, total
from lrc_ase.models.descriptors.sphere.message_columns import LANES, add_terms, contract, mix_radial, multiply_columns
from lrc_ase.models.descriptors.sphere.neighbor_functions import (
    angular_gradient,
    changes_of_directions,
    collect,
    directions,
    evaluate_angular,
    evaluate_harmonics,
    evaluate_radial,
    sort_neighbors,
)

__all__ = ["build_pull"]


@inlined
def _add_rows(s, rows, row_width, lane, sums, n_radial, n_messages, target, target_offset, width):
    """Add radial functions of one neighbor times 2 K sums to the gradient by the mixing."""
    for n in range(n_radial):
        factor = repeat(s, rows + n * row_width + lane, width)
        for first in range(0, 2 * n_messages, width):
            # mixing is (2, n_radial, K), and `first` holds K for the kind already: n_radial - 1 rows more
            kind = first // n_messages
            offset = target_offset + (kind * (n_radial - 1) + n) * n_messages + first
            store(target, offset, load(target, offset, width) + factor * load(s, sums + first, width))


@inlined
def _add_columns(s, columns, radial, target, target_offset, n_messages, width):
    """Add 4 K columns of one neighbor times mixed radial functions to the gradient by its message."""
    # group 0: scalars; 1 to 3: x, y, z of the vectors, which share their radial functions
    for group in range(4):
        for first in range(0, n_messages, width):
            offset = group * n_messages + first
            change = load(s, columns + offset, width) * load(s, radial + min(group, 1) * n_messages + first, width)
            store(target, target_offset + offset, load(target, target_offset + offset, width) + change)


@inlined
def _sum_groups(s, one, other, other_offset, n_messages, at, width):
    """Add products of two rows of 4 K columns to sums of 2 K: scalars, and vectors summed over components."""
    for group in range(4):
        for first in range(0, n_messages, width):
            offset = group * n_messages + first
            entry = at + min(group, 1) * n_messages + first  # x, y and z into one sum
            change = load(s, one + offset, width) * load(other, other_offset + offset, width)
            store(s, entry, load(s, entry, width) + change)


def build_pull(
    max_degree: int, n_radial: int, n_messages: int, widths: tuple[int, ...], n_terms: int, second: bool
) -> Any:
    """Return the kernel of `message_pull`, or that of `message_second`.

    With the cotangents g, after the coupling of vectors with harmonics, a neighbor has the energy E = sum over l, m and
    columns c of g_lm,c Y_lm R_c(r) h_c. The kernel contracts g with the harmonics, which gives the gradients by h and
    R, and with the columns R h, which gives factors of the harmonics for the gradient by the vector.
    """
    width, group_width, columns_width, lm_width = widths
    # scratch, first part: rows over a block of neighbors, `width` numbers each
    n_lm, n_pairs, n_columns = (max_degree + 1) ** 2, (max_degree + 1) * (max_degree + 2) // 2, 4 * n_messages
    points, changes = 0, 3 * width
    radial, radial_slopes = 6 * width, (6 + n_radial) * width
    powers = radial_slopes + n_radial * width
    legendre = powers + 2 * (max_degree + 1) * width
    harmonics = legendre + n_pairs * width
    harmonics_along, harmonic_slopes = harmonics + n_lm * width, harmonics + 2 * n_lm * width
    factors, pulls = harmonics + 3 * n_lm * width, harmonics + 4 * n_lm * width
    # second part: rows over columns, for one neighbor or `LANES` neighbors at once
    mixed = pulls + width
    mixed_slopes = mixed + 2 * n_messages
    sums, sum_slopes = mixed_slopes + 2 * n_messages, mixed_slopes + 4 * n_messages
    columns = mixed_slopes + 6 * n_messages
    pulled, changed_columns = columns + LANES * n_columns, columns + 2 * LANES * n_columns
    harmonic_factors = columns + 3 * LANES * n_columns
    n_padded = -(-n_lm // lm_width) * lm_width  # whole vectors over harmonics
    turned = harmonic_factors + LANES * n_padded
    tile = turned + n_columns * n_padded
    coupled = tile + n_lm * n_columns
    size = coupled + 3 * n_lm * n_messages

    def kernel(
        vectors, mask, neighbors, messages_array, mixing_array, cotangents, gradient, direction, changed_array,
        by_messages_array, by_mixing_array, cutoff, recurrence_array, series_array, scale_array, places, terms,
        values_array, first, last, slot,
    ):  # fmt: skip
        kind = vectors.dtype.type
        scratch = np.zeros(size, vectors.dtype)
        s, recurrence = address(scratch), address(recurrence_array)
        series, scale = address(series_array), address(scale_array)
        messages, changed, mixing = address(messages_array), address(changed_array), address(mixing_array)
        by_messages, by_mixing = address(by_messages_array), address(by_mixing_array)
        values = address(values_array)
        # one group of neighbors: with three starts `species` is not read, and `order` stands in for it
        order, starts = np.empty(mask.shape[1], np.int64), np.empty(3, np.int64)
        zero, group_zero = fill(kind(0), width), fill(kind(0), group_width)
        columns_zero, lm_zero = fill(kind(0), columns_width), fill(kind(0), lm_width)
        with_mixing = len(by_mixing_array) > 0
        mixing_offset = slot * 2 * n_radial * n_messages  # buffer of this thread, (2, n_radial, K)
        for atom in range(first, last):
            sort_neighbors(vectors, mask, order, neighbors, atom, cutoff, order, starts)
            if starts[1] == 0:  # gradients arrive as zeros
                continue
            # adjoint of the coupling: g of (n_lm, 3 K) becomes g of (n_lm, 4 K), scalars unchanged
            for lm in range(n_lm):
                for k in range(3 * n_messages):
                    s[coupled + 3 * lm * n_messages + k] = cotangents[lm, atom, k]
                for k in range(n_messages):
                    s[tile + lm * n_columns + k] = cotangents[lm, atom, k]
                for k in range(n_messages, n_columns):
                    s[tile + lm * n_columns + k] = 0
            add_terms(s, tile, coupled, terms, values, len(terms), n_messages, True, group_width)
            # transposed, (4 K, n_lm), for the factors of the harmonics; the padding stays zero from the allocation
            if not second:
                for column in range(n_columns):
                    for lm in range(n_lm):
                        s[turned + column * n_padded + lm] = s[tile + lm * n_columns + column]
            for begin in range(0, starts[1], width):
                end = min(begin + width, starts[1])
                # lanes without a neighbor get a point at the cutoff, not the origin: 1 / r stays finite there
                collect(vectors, atom, order, begin, end, s, points, width, kind(cutoff))
                x, y, z, distance, inverse = directions(s, points, width)
                evaluate_radial(
                    s, distance, cutoff, series, n_terms, scale, n_radial, radial, radial_slopes, True, width
                )
                evaluate_angular(s, x, y, z, recurrence, max_degree, powers, legendre, width)
                along, dx, dy, dz = zero, zero, zero, zero
                if second:
                    collect(direction, atom, order, begin, end, s, changes, width, kind(0))
                    along, dx, dy, dz = changes_of_directions(s, changes, x, y, z, inverse, width)
                evaluate_harmonics(
                    s, recurrence, places, max_degree, powers, legendre, harmonics, second,
                    along, dx, dy, dz, harmonics_along, harmonic_slopes, width,
                )  # fmt: skip
                if second:  # from here on slopes are the changes of the radial functions
                    for n in range(n_radial):
                        row = radial_slopes + n * width
                        store(s, row, along * load(s, row, width))
                for lane in range(0, end - begin, LANES):
                    # (LANES, n_lm) times (n_lm, 4 K): dE by the columns R h of each neighbor
                    contract(s, harmonics + lane, width, 1, tile, n_lm, n_columns, pulled, columns_zero, columns_width)
                    if second:
                        contract(
                            s, harmonic_slopes + lane, width, 1, tile, n_lm, n_columns, changed_columns, columns_zero,
                            columns_width,
                        )  # fmt: skip
                    for i in range(min(LANES, end - begin - lane)):
                        # neighbors are shared between atoms: each thread adds to the buffer of its slot
                        message = neighbors[atom, order[begin + lane + i]] * n_columns
                        target = slot * len(messages_array) * n_columns + message
                        pulled_row, changed_row = pulled + i * n_columns, changed_columns + i * n_columns
                        mix_radial(
                            s, radial, width, lane + i, mixing, n_radial, n_messages, mixed, group_zero, group_width
                        )
                        mix_radial(
                            s, radial_slopes, width, lane + i, mixing, n_radial, n_messages, mixed_slopes, group_zero,
                            group_width,
                        )  # fmt: skip
                        for entry in range(sums, columns):  # sums, and sum_slopes behind them
                            s[entry] = 0
                        # E is linear in Y, R and h each: the product rule, term by term
                        if second:
                            _add_columns(s, changed_row, mixed, by_messages, target, n_messages, group_width)  # dY R
                            # Y dR
                            _add_columns(s, pulled_row, mixed_slopes, by_messages, target, n_messages, group_width)
                            _sum_groups(s, changed_row, messages, message, n_messages, sums, group_width)  # dY h
                            _sum_groups(s, pulled_row, changed, message, n_messages, sums, group_width)  # Y dh
                            # Y h, times dR below
                            _sum_groups(s, pulled_row, messages, message, n_messages, sum_slopes, group_width)
                            _add_rows(
                                s, radial_slopes, width, lane + i, sum_slopes, n_radial, n_messages, by_mixing,
                                mixing_offset, group_width,
                            )  # fmt: skip
                        else:
                            row = columns + i * n_columns
                            multiply_columns(s, mixed, messages, message, n_messages, row, group_width)
                            _add_columns(s, pulled_row, mixed, by_messages, target, n_messages, group_width)
                            _sum_groups(s, pulled_row, messages, message, n_messages, sums, group_width)
                            # dE/dr: Y h summed over components, times the slopes of the mixed radial functions
                            pull = group_zero
                            for start in range(0, 2 * n_messages, group_width):
                                slope = load(s, mixed_slopes + start, group_width)
                                pull = pull + load(s, sums + start, group_width) * slope
                            s[pulls + lane + i] = total(pull)
                        if with_mixing:
                            _add_rows(
                                s, radial, width, lane + i, sums, n_radial, n_messages, by_mixing, mixing_offset,
                                group_width,
                            )  # fmt: skip
                    if not second:
                        # factors of the harmonics: columns times g, transposed
                        contract(
                            s, columns, 1, n_columns, turned, n_columns, n_padded, harmonic_factors, lm_zero, lm_width
                        )
                        # back to rows over neighbors; lanes past the last one hold finite leftovers, which nobody reads
                        for i in range(LANES):
                            for lm in range(n_lm):
                                s[factors + lm * width + lane + i] = s[harmonic_factors + i * n_padded + lm]
                if not second:
                    gx, gy, gz = angular_gradient(
                        s, factors, recurrence, places, max_degree, powers, legendre, zero, width
                    )
                    # the unit vector changes only perpendicular to the vector, by (1 - n n^T) / r
                    radially, pull_row = x * gx + y * gy + z * gz, load(s, pulls, width)
                    store(s, points, x * pull_row + (gx - radially * x) * inverse)
                    store(s, points + width, y * pull_row + (gy - radially * y) * inverse)
                    store(s, points + 2 * width, z * pull_row + (gz - radially * z) * inverse)
                    for lane in range(end - begin):
                        for axis in range(3):
                            gradient[atom, order[begin + lane], axis] = s[points + axis * width + lane]
        scratch[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel
