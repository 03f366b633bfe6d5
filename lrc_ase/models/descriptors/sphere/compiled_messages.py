"""Sums over neighbors that hand on messages, compiled by Numba; see `messages` for the formula.

Functions of distance and direction are evaluated for a block of neighbors at once, a row for each function, as in
`compiled_moments`. Products with messages run over one neighbor after the other, in vectors over columns: K scalars,
then the x, y and z components of K vectors. The message of a neighbor is contiguous in memory and read where it is.

Gradients by messages and by the mixing of radial functions are sums over all atoms around a neighbor. Each thread sums
into a buffer of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from lrc_ase.compiled.compilation import PRECISIONS, compiled
from lrc_ase.compiled.simd import address, fill, native_width
from lrc_ase.compiled.threads import even_ranges, run_over_ranges
from lrc_ase.models.descriptors.sphere.compiled_message_pulls import build_pull
from lrc_ase.models.descriptors.sphere.harmonics import gaunt_terms
from lrc_ase.models.descriptors.sphere.message_columns import (
    LANES,
    add_products,
    add_terms,
    mix_radial,
    multiply_columns,
)
from lrc_ase.models.descriptors.sphere.neighbor_functions import (
    SERIES_TERMS,
    changes_of_directions,
    collect,
    directions,
    evaluate_angular,
    evaluate_harmonics,
    evaluate_radial,
    function_tables,
    sort_neighbors,
)
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["message_moment", "message_pull", "message_second", "message_slope"]

_ATOMS_PER_THREAD = 8  # as in `run_over_atoms`, which has no numbers for threads
Surroundings: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""`vectors`, `mask`, `neighbors` as in `Descriptor.forward`."""
Carried: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Messages (n_atoms with ghosts, 4, K) and the mixing of radial functions (2, n_radial, K); K fills whole vectors."""


def message_moment(of: Surroundings, carried: Carried, density: np.ndarray, shape: SphereShape, n_threads: int) -> None:
    """Write the density (n_lm, n_atoms, 3 K)."""
    _run("moment", of, carried, (of[0], carried[0], density), shape, n_threads)


def message_slope(
    of: Surroundings,
    carried: Carried,
    direction: np.ndarray,
    message_direction: np.ndarray,
    slope: np.ndarray,
    shape: SphereShape,
    n_threads: int,
) -> None:
    """Write the derivative of the density along a change of vectors (`direction`) and messages."""
    _run("slope", of, carried, (direction, message_direction, slope), shape, n_threads)


def message_pull(
    of: Surroundings,
    carried: Carried,
    cotangents: np.ndarray,
    gradient: np.ndarray,
    shape: SphereShape,
    n_threads: int,
    *,
    by_mixing: bool,
) -> Carried:
    """Return the gradients by messages and, with `by_mixing`, mixing of the sum of `cotangents` times the density.

    Write the gradient by vectors into `gradient`, an array of zeros.
    """
    # the changes are not read
    arrays = cotangents, gradient, of[0], carried[0]
    return _run("pull", of, carried, arrays, shape, n_threads, by_messages=True, by_mixing=by_mixing)


def message_second(
    of: Surroundings,
    carried: Carried,
    cotangents: np.ndarray,
    direction: np.ndarray,
    message_direction: np.ndarray,
    shape: SphereShape,
    n_threads: int,
) -> Carried:
    """Return the derivatives by messages and mixing of two gradients of `message_pull`.

    The two are the gradient by vectors times `direction` and the gradient by messages times `message_direction`.
    """
    arrays = cotangents, of[0], direction, message_direction
    return _run("second", of, carried, arrays, shape, n_threads, by_messages=True, by_mixing=True)


def _run(
    name: str,
    of: Surroundings,
    carried: Carried,
    arrays: tuple[np.ndarray, ...],
    shape: SphereShape,
    n_threads: int,
    *,
    by_messages: bool = False,
    by_mixing: bool = False,
) -> Carried:
    """Run a kernel; return the sums over threads of its gradients by messages and mixing, zeros without a flag."""
    messages, mixing = carried
    kernel, constants = _prepared(name, shape, mixing.shape[1], mixing.shape[2], PRECISIONS[messages.dtype])
    # every range costs a buffer as large as all messages: no more of them than the atoms fill
    n_ranges = max(min(n_threads, len(of[1]) // _ATOMS_PER_THREAD), 1)
    ranges = [(*bounds, slot) for slot, bounds in enumerate(even_ranges(len(of[1]), n_ranges))]
    sums = [
        # empty and not None without the flag: a kernel is compiled for fixed types, and reads the length
        np.zeros((len(ranges) if wanted else 0, *one.shape), one.dtype)
        for one, wanted in ((messages, by_messages), (mixing, by_mixing))
    ]
    run_over_ranges(kernel, (*of, messages, mixing, *arrays, *sums, *constants), ranges, len(ranges))
    # always in the order of the ranges: the same bits in every run with this number of threads
    of_messages, of_mixing = (one[0] if len(one) == 1 else one.sum(axis=0) for one in sums)
    return of_messages, of_mixing


@lru_cache(maxsize=32)
def _prepared(
    name: str, shape: SphereShape, n_radial: int, n_messages: int, precision: str
) -> tuple[Any, tuple[Any, ...]]:
    """Return a kernel, and its arguments that depend on the shape alone."""
    terms, values = gaunt_terms(shape.max_degree)
    tables = *function_tables(shape.max_degree, shape.radial_scale, precision), terms, values.astype(precision)
    return _kernel(name, shape.max_degree, n_radial, n_messages, precision), (shape.cutoff, *tables)


@lru_cache(maxsize=32)
def _kernel(name: str, max_degree: int, n_radial: int, n_messages: int, precision: str) -> Any:
    itemsize = np.dtype(precision).itemsize
    sizes = n_messages, 4 * n_messages, (max_degree + 1) ** 2
    # blocks of neighbors fill 64 bytes; vectors over columns are no wider than there are columns
    widths = 64 // itemsize, *(native_width(itemsize, size) for size in sizes)
    build, flag = (build_pull, name == "second") if name in ("pull", "second") else (_density, name == "slope")
    kernel = build(max_degree, n_radial, n_messages, widths, SERIES_TERMS[precision], flag)
    return compiled(kernel, "sphere_message", name, max_degree, n_radial, n_messages, precision)


def _density(
    max_degree: int, n_radial: int, n_messages: int, widths: tuple[int, ...], n_terms: int, with_slope: bool
) -> Any:
    """Return the kernel of `message_moment`, or with a slope that of `message_slope`.

    `widths` are those of vectors over a block of neighbors, over K columns, over all 4 K columns and over harmonics.
    """
    width, group_width, columns_width, _ = widths
    # layout of one scratch array: all intermediate values of a block, one after the other
    n_lm, n_pairs, n_columns = (max_degree + 1) ** 2, (max_degree + 1) * (max_degree + 2) // 2, 4 * n_messages
    points, changes = 0, 3 * width
    radial, radial_slopes = 6 * width, (6 + n_radial) * width
    powers = radial_slopes + n_radial * width
    legendre = powers + 2 * (max_degree + 1) * width
    harmonics = legendre + n_pairs * width
    harmonics_along, harmonic_slopes = harmonics + n_lm * width, harmonics + 2 * n_lm * width
    # from here on rows over columns: 2 K mixed functions, 4 K columns of `LANES` neighbors, the sums
    mixed = harmonics + 3 * n_lm * width
    columns = mixed + 2 * n_messages
    tile = columns + LANES * n_columns
    coupled = tile + n_lm * n_columns
    size = coupled + 3 * n_lm * n_messages

    def kernel(
        vectors, mask, neighbors, messages_array, mixing_array, direction, changed_array, density,
        by_messages, by_mixing, cutoff, recurrence_array, series_array, scale_array, places, terms, values_array,
        first, last, slot,
    ):  # fmt: skip
        kind = vectors.dtype.type
        scratch = np.zeros(size, vectors.dtype)
        s, recurrence = address(scratch), address(recurrence_array)
        series, scale = address(series_array), address(scale_array)
        messages, changed, mixing = address(messages_array), address(changed_array), address(mixing_array)
        values = address(values_array)
        # one group of neighbors: with three starts `species` is not read, and `order` stands in for it
        order, starts = np.empty(mask.shape[1], np.int64), np.empty(3, np.int64)
        zero, group_zero = fill(kind(0), width), fill(kind(0), group_width)
        for atom in range(first, last):
            sort_neighbors(vectors, mask, order, neighbors, atom, cutoff, order, starts)
            for entry in range(tile, size):  # tile and coupled: both are added to
                s[entry] = 0
            for begin in range(0, starts[1], width):
                end = min(begin + width, starts[1])
                # lanes without a neighbor get a point at the cutoff: finite values, which are not summed
                collect(vectors, atom, order, begin, end, s, points, width, kind(cutoff))
                x, y, z, distance, inverse = directions(s, points, width)
                evaluate_radial(
                    s, distance, cutoff, series, n_terms, scale, n_radial, radial, radial_slopes, with_slope, width
                )
                evaluate_angular(s, x, y, z, recurrence, max_degree, powers, legendre, width)
                along, dx, dy, dz = zero, zero, zero, zero
                if with_slope:
                    collect(direction, atom, order, begin, end, s, changes, width, kind(0))
                    along, dx, dy, dz = changes_of_directions(s, changes, x, y, z, inverse, width)
                evaluate_harmonics(
                    s, recurrence, places, max_degree, powers, legendre, harmonics, with_slope,
                    along, dx, dy, dz, harmonics_along, harmonic_slopes, width,
                )  # fmt: skip
                # product rule: the change of the harmonics, of the messages, of the radial functions (with the
                # harmonics times the change of the distance)
                for term in range(3 if with_slope else 1):
                    rows, factors, carried = radial, harmonics, messages
                    if with_slope and term == 0:
                        factors = harmonic_slopes  # dY R h
                    elif with_slope and term == 1:
                        carried = changed  # Y R dh
                    elif with_slope:
                        rows, factors = radial_slopes, harmonics_along  # Y dR/dr dr h
                    for lane in range(0, end - begin, LANES):
                        for i in range(LANES):
                            row = columns + i * n_columns
                            if begin + lane + i < end:
                                message = neighbors[atom, order[begin + lane + i]] * n_columns  # (n_atoms, 4, K), flat
                                mix_radial(
                                    s,
                                    rows,
                                    width,
                                    lane + i,
                                    mixing,
                                    n_radial,
                                    n_messages,
                                    mixed,
                                    group_zero,
                                    group_width,
                                )
                                multiply_columns(s, mixed, carried, message, n_messages, row, group_width)
                            else:
                                # `add_products` takes all LANES: these must add zero
                                for entry in range(row, row + n_columns):
                                    s[entry] = 0
                        add_products(s, tile, factors + lane, width, columns, n_lm, n_columns, columns_width)
            # coupling, once per atom and not per neighbor: it is linear in the sums; scalars pass unchanged
            for lm in range(n_lm):
                for k in range(n_messages):
                    s[coupled + 3 * lm * n_messages + k] = s[tile + lm * n_columns + k]
            add_terms(s, tile, coupled, terms, values, len(terms), n_messages, False, group_width)
            for lm in range(n_lm):
                for k in range(3 * n_messages):
                    density[lm, atom, k] = s[coupled + 3 * lm * n_messages + k]  # scalars, raised, lowered: K of each
        scratch[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel
