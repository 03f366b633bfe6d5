"""Sums over neighbors on the CPU, compiled by Numba: radial functions and harmonics with analytic derivatives.

The kernels sort the neighbors of an atom by element, leave out padding and neighbors beyond the cutoff, and process the
rest in blocks as wide as a vector register: one instruction evaluates a function for all neighbors of a block. With
weights, all neighbors belong to one group, and each contributes to the columns (weight, radial function) instead of the
columns of its element.

"Cotangents" are the gradients of a loss by the density, "slopes" derivatives along a given direction.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from lrc_ase.compiled.compilation import PRECISIONS, compiled, inlined
from lrc_ase.compiled.simd import address, fill, load, repeat, store
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.models.descriptors.sphere.compiled_pulls import build_backward, build_weight_slope
from lrc_ase.models.descriptors.sphere.neighbor_functions import (
    SERIES_TERMS,
    changes_of_directions,
    collect,
    collect_weights,
    directions,
    evaluate_angular,
    evaluate_harmonics,
    evaluate_radial,
    function_tables,
    sort_neighbors,
)
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["Neighborhoods", "moment", "moment_backward", "moment_slope", "weight_slope"]

Neighborhoods = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""`vectors`, `mask`, `species`, `neighbors` as in `Descriptor.forward`."""


def moment(
    of: Neighborhoods, weights: np.ndarray | None, density: np.ndarray, shape: SphereShape, n_threads: int
) -> None:
    """Write the density (n_lm, n_atoms, n_inputs); `weights` (n_atoms, n_neighbors, n_weights) or None for elements."""
    _run("moment", of, weights, (of[0], _NONE[of[0].dtype] if weights is None else weights, density), shape, n_threads)


def moment_slope(
    of: Neighborhoods,
    weights: np.ndarray | None,
    direction: np.ndarray,
    weight_direction: np.ndarray | None,
    slope: np.ndarray,
    shape: SphereShape,
    n_threads: int,
) -> None:
    """Write the derivative of the density (`slope`) along a change of vectors (`direction`) and weights."""
    _run(
        "slope",
        of,
        weights,
        (direction, _NONE[of[0].dtype] if weight_direction is None else weight_direction, slope),
        shape,
        n_threads,
    )


def moment_backward(
    of: Neighborhoods,
    weights: np.ndarray | None,
    cotangents: np.ndarray,
    gradient: np.ndarray,
    weight_gradient: np.ndarray | None,
    shape: SphereShape,
    n_threads: int,
) -> None:
    """Write the gradients by vectors and weights of the sum of `cotangents` times the density, into arrays of zeros."""
    _run(
        "backward",
        of,
        weights,
        (cotangents, gradient, _NONE[of[0].dtype] if weight_gradient is None else weight_gradient),
        shape,
        n_threads,
    )


def weight_slope(
    of: Neighborhoods,
    weights: np.ndarray,
    cotangents: np.ndarray,
    direction: np.ndarray,
    slope: np.ndarray,
    shape: SphereShape,
    n_threads: int,
) -> None:
    """Write the derivative of the gradient by the weights along a change of the vectors, into an array of zeros."""
    _run("weight_slope", of, weights, (cotangents, direction, slope), shape, n_threads)


_NONE = {np.dtype(name): np.empty((0, 0, 0), name) for name in ("float32", "float64")}
"""Arrays that stand for None: a kernel is compiled for fixed types."""


def _run(
    name: str,
    of: Neighborhoods,
    weights: np.ndarray | None,
    arrays: tuple[np.ndarray, ...],
    shape: SphereShape,
    n_threads: int,
) -> None:
    precision = PRECISIONS[of[0].dtype]
    kernel, constants = _prepared(name, shape, weights is not None, precision)
    arguments = (*of, _NONE[of[0].dtype] if weights is None else weights, *arrays, *constants)
    run_over_atoms(kernel, arguments, len(of[1]), n_threads)


@lru_cache(maxsize=64)
def _prepared(name: str, shape: SphereShape, is_weighed: bool, precision: str) -> tuple[Any, tuple[Any, ...]]:
    """Return a kernel, and its arguments that depend on the shape alone."""
    # 0 weights: columns of the neighbor's element; otherwise one group, in which elements play no part
    n_weights, n_elements = (shape.n_weights, 1) if is_weighed else (0, shape.n_weights)
    kernel = _kernel(name, shape.max_degree, len(shape.radial_scale), n_weights, precision)
    tables = function_tables(shape.max_degree, shape.radial_scale, precision)
    return kernel, (n_elements, shape.cutoff, *tables)


@lru_cache(maxsize=32)
def _kernel(name: str, max_degree: int, n_radial: int, n_weights: int, precision: str) -> Any:
    """Return a compiled kernel; `n_weights` is 0 if columns belong to elements instead of weights."""
    # 64 bytes: the compiler splits such vectors where registers are narrower
    width, n_terms = 64 // np.dtype(precision).itemsize, SERIES_TERMS[precision]
    if name == "backward":
        kernel = build_backward(max_degree, n_radial, n_weights, width, n_terms)
    elif name == "weight_slope":
        kernel = build_weight_slope(max_degree, n_radial, n_weights, width, n_terms)
    else:
        # no wider than the columns, rounded up to a power of two: fewer lanes of padding
        columns_width = min(width, 2 ** math.ceil(math.log2(n_radial * max(n_weights, 1))))
        kernel = _density(max_degree, n_radial, n_weights, width, n_terms, columns_width, name == "slope")
    return compiled(kernel, "sphere", name, max_degree, n_radial, n_weights, precision)


@inlined
def _accumulate(s, tile, harmonics, columns, n_lanes, n_lm, n_blocks, width, columns_width):
    """Add harmonics times columns of all neighbors of a block to the tile (n_lm, n_blocks vectors)."""
    # a small matrix product: columns stay in registers over all harmonics, the tile in the first-level cache
    for lane in range(n_lanes):
        for block in range(n_blocks):
            value = load(s, columns + (lane * n_blocks + block) * columns_width, columns_width)
            for lm in range(n_lm):
                entry = tile + (lm * n_blocks + block) * columns_width
                store(
                    s,
                    entry,
                    load(s, entry, columns_width) + repeat(s, harmonics + lm * width + lane, columns_width) * value,
                )


@inlined
def _spread_columns(s, rows, weights, columns, n_radial, n_weights, n_columns, width):
    """Transpose rows per radial function to rows per neighbor; multiply by the weights of the neighbor, if any."""
    for lane in range(width):
        for n in range(n_radial):
            # columns past n_inputs stay zero from the allocation
            value = s[rows + n * width + lane]
            if n_weights == 0:
                s[columns + lane * n_columns + n] = value
            for k in range(n_weights):
                s[columns + lane * n_columns + k * n_radial + n] = s[weights + k * width + lane] * value


def _density(
    max_degree: int, n_radial: int, n_weights: int, width: int, n_terms: int, columns_width: int, with_slope: bool
) -> Any:
    """Return the kernel of `moment`, or with a slope that of `moment_slope`, for atoms `first` to `last`."""
    # layout of one scratch array: all intermediate values of a block, one after the other
    n_lm, n_pairs = (max_degree + 1) ** 2, (max_degree + 1) * (max_degree + 2) // 2
    n_inputs = n_radial * max(n_weights, 1)
    n_blocks = -(-n_inputs // columns_width)
    n_columns = n_blocks * columns_width
    n_whole = n_inputs // columns_width * columns_width
    points, changes = 0, 3 * width
    radial, radial_slopes = 6 * width, (6 + n_radial) * width
    powers = radial_slopes + n_radial * width
    legendre = powers + 2 * (max_degree + 1) * width
    harmonics = legendre + n_pairs * width
    harmonics_along, harmonic_slopes = harmonics + n_lm * width, harmonics + 2 * n_lm * width
    block_weights, weight_changes = harmonics + 3 * n_lm * width, harmonics + (3 * n_lm + n_weights) * width
    # up to here rows over neighbors (`width`); columns and tile are rows over columns
    columns = weight_changes + n_weights * width
    tile = columns + width * n_columns
    size = tile + n_lm * n_columns

    def kernel(
        vectors, mask, species, neighbors, weights, direction, weight_direction, density, n_elements, cutoff,
        recurrence_array, series_array, scale_array, places, first, last,
    ):  # fmt: skip
        kind = vectors.dtype.type
        scratch = np.zeros(size, vectors.dtype)
        s, recurrence = address(scratch), address(recurrence_array)
        series, scale, sums = address(series_array), address(scale_array), address(density)
        n_atoms = density.shape[1]
        # two entries more than elements, see `sort_neighbors`
        order, starts = np.empty(mask.shape[1], np.int64), np.empty(n_elements + 2, np.int64)
        zero = fill(kind(0), width)
        columns_zero = fill(kind(0), columns_width)
        for atom in range(first, last):
            sort_neighbors(vectors, mask, species, neighbors, atom, cutoff, order, starts)
            for element in range(n_elements):
                # a tile (n_lm, n_columns) per element: it stays in the first-level cache over all blocks
                for row in range(n_lm * n_blocks):
                    store(s, tile + row * columns_width, columns_zero)
                for begin in range(starts[element], starts[element + 1], width):
                    end = min(begin + width, starts[element + 1])
                    n_lanes = end - begin
                    # lanes without a neighbor get a point at the cutoff: finite values, which are not summed
                    collect(vectors, atom, order, begin, end, s, points, width, kind(cutoff))
                    x, y, z, distance, inverse = directions(s, points, width)
                    evaluate_radial(
                        s, distance, cutoff, series, n_terms, scale, n_radial, radial, radial_slopes, with_slope, width
                    )
                    evaluate_angular(s, x, y, z, recurrence, max_degree, powers, legendre, width)
                    collect_weights(weights, atom, order, begin, end, s, block_weights, n_weights, width)
                    along, dx, dy, dz = zero, zero, zero, zero  # bound without a slope too, for Numba's types
                    if with_slope:
                        # filler 0: empty lanes do not move
                        collect(direction, atom, order, begin, end, s, changes, width, kind(0))
                        along, dx, dy, dz = changes_of_directions(s, changes, x, y, z, inverse, width)
                        collect_weights(weight_direction, atom, order, begin, end, s, weight_changes, n_weights, width)
                    evaluate_harmonics(
                        s, recurrence, places, max_degree, powers, legendre, harmonics, with_slope,
                        along, dx, dy, dz, harmonics_along, harmonic_slopes, width,
                    )  # fmt: skip
                    # product rule: the change of the radial functions (with the harmonics times the change of r), of
                    # the weights, of the harmonics
                    for term in range(3 if with_slope else 1):
                        rows, column_weights, factors = radial, block_weights, harmonics
                        if with_slope and term == 0:
                            # the change of r is multiplied into the harmonics, see `evaluate_harmonics`
                            rows, factors = radial_slopes, harmonics_along
                        elif with_slope and term == 2:
                            factors = harmonic_slopes
                        elif with_slope:
                            column_weights = weight_changes
                        if term == 1 and n_weights == 0:  # no weights to change
                            continue
                        _spread_columns(s, rows, column_weights, columns, n_radial, n_weights, n_columns, width)
                        # only `n_lanes` neighbors: the empty lanes at the cutoff are left out
                        _accumulate(s, tile, factors, columns, n_lanes, n_lm, n_blocks, width, columns_width)
                for lm in range(n_lm):
                    # (n_lm, n_atoms, n_elements, n_inputs), flat
                    row = ((lm * n_atoms + atom) * n_elements + element) * n_inputs
                    # whole vectors first: the compiler copies single numbers, as memory might overlap
                    for n in range(0, n_whole, columns_width):
                        store(sums, row + n, load(s, tile + lm * n_columns + n, columns_width))
                    for n in range(n_whole, n_inputs):
                        sums[row + n] = s[tile + lm * n_columns + n]
        scratch[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel
