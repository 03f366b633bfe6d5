"""Averages over the sphere straight from the moments, compiled by Numba: for evaluation without autograd.

Moments are mixed into channels and multiplied atom by atom, so that the channels, 16 times the features in size, stay
in the first-level cache. Atoms of one element in succession share the reads of the mixing matrix, `_LANES` at a time.
Training needs the channels, and mixes by matrix products (`descriptor`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from lrc_ase.compiled.compilation import PRECISIONS, compiled, inlined
from lrc_ase.compiled.simd import address, fill, load, native_width, repeat, store
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.models.descriptors.sphere.atom_averages import average_rows, pull_rows
from lrc_ase.models.descriptors.sphere.compiled_averages import Averages, quadrature_tables
from lrc_ase.models.descriptors.sphere.harmonics import harmonic_order, parity_class
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["Mixing", "mixed_average", "mixed_average_backward"]

_LANES = 4
"""Atoms whose products share the loads of a matrix; written out in `_mix` and `_unmix`."""


class Mixing:
    """Mixing matrices of a density in the layout of the kernels."""

    def __init__(self, mixing: np.ndarray, shape: SphereShape) -> None:
        """Take weights (n_elements, n_degrees, n_inputs, n_factors * n_channels)."""
        self.shape = shape
        n_inputs = mixing.shape[2]
        self.width = native_width(mixing.itemsize, shape.n_channels)
        self.input_width = native_width(mixing.itemsize, n_inputs)
        missing = -n_inputs % self.input_width
        # (n_elements, n_degrees, n_outputs, n_inputs filled up to whole vectors)
        transposed = np.pad(mixing.swapaxes(2, 3), ((0, 0), (0, 0), (0, 0), (0, missing)))
        degree_of = np.array([degree for degree, _ in harmonic_order(shape.max_degree)])
        self.arrays = mixing.flatten(), transposed.flatten(), degree_of, np.array(shape.degrees)
        """Matrix, transposed matrix (both flat), degree of each harmonic, highest degree of each factor."""
        precision = PRECISIONS[mixing.dtype]
        sizes = shape.max_degree, len(shape.degrees), shape.n_vectors, self.width, self.input_width, precision
        self.forward, self.backward = _kernel(_forward, *sizes), _kernel(_backward, *sizes)
        self.tables = quadrature_tables(shape.degrees, precision)


def mixed_average(moments: np.ndarray, species: np.ndarray, mixing: Mixing, averages: Averages, n_threads: int) -> None:
    """Write the averages of densities mixed from moments (n_lm, n_atoms, n_inputs); `species` (n_atoms,)."""
    arrays = moments.reshape(-1), species, averages[0].reshape(-1), averages[1].reshape(-1)
    _run(mixing.forward, mixing, moments.shape, arrays, n_threads)


def mixed_average_backward(
    moments: np.ndarray, species: np.ndarray, mixing: Mixing, weights: Averages, gradient: np.ndarray, n_threads: int
) -> None:
    """Write the gradient by the moments of the sum of `weights` times the averages."""
    arrays = moments.reshape(-1), species, weights[0].reshape(-1), weights[1].reshape(-1), gradient.reshape(-1)
    _run(mixing.backward, mixing, moments.shape, arrays, n_threads)


def _run(kernel: Any, mixing: Mixing, sizes_of_moments: Any, arrays: tuple[np.ndarray, ...], n_threads: int) -> None:
    _, n_atoms, n_inputs = sizes_of_moments
    arguments = *arrays, *mixing.arrays, n_atoms, n_inputs, mixing.shape.n_channels, *mixing.tables
    run_over_atoms(kernel, arguments, n_atoms, n_threads)


@lru_cache(maxsize=32)
def _kernel(
    build: Any, max_degree: int, n_factors: int, n_vectors: int, width: int, input_width: int, precision: str
) -> Any:
    classes = [parity_class(*pair) for pair in harmonic_order(max_degree)]
    sizes = [classes.count(one) for one in (0, 1, 3, 7)]  # of classes odd along 0, 1, 2, 3 axes
    kernel = build(max_degree + 1, n_factors, n_vectors, width, input_width, *sizes)
    name = f"mixed{build.__name__}"
    return compiled(kernel, "sphere", name, max_degree, n_factors, n_vectors, width, input_width, precision)


@inlined
def _count_alike(species, atom, last, limit):
    """Return the number of atoms from `atom` on that have its element, up to `limit`."""
    count = 1
    while count < limit and atom + count < last and species[atom + count] == species[atom]:
        count += 1
    return count


@inlined
def _mix(
    s, moments, matrix, atom, count, element, channel, degree_of, degrees, n_atoms, n_inputs, n_channels,
    n_degrees, n_lm, n_factors, zero, width,
):  # fmt: skip
    """Write rows of channels, (atoms, n_factors, n_lm), of up to four atoms of one element."""
    n_outputs, step = n_factors * n_channels, n_factors * n_lm * width
    # fewer than four atoms: the last one stands in for the missing ones
    a1, a2, a3 = min(1, count - 1), min(2, count - 1), min(3, count - 1)
    for lm in range(n_lm):
        start = (element * n_degrees + degree_of[lm]) * n_inputs * n_outputs + channel
        first = (lm * n_atoms + atom) * n_inputs
        second, third, fourth = first + a1 * n_inputs, first + a2 * n_inputs, first + a3 * n_inputs
        for f in range(n_factors):
            v0, v1, v2, v3 = zero, zero, zero, zero
            if degree_of[lm] <= degrees[f]:  # otherwise the quadrature multiplies the row by zero
                for n in range(n_inputs):
                    weight = load(matrix, start + n * n_outputs + f * n_channels, width)
                    v0 = v0 + repeat(moments, first + n, width) * weight
                    v1 = v1 + repeat(moments, second + n, width) * weight
                    v2 = v2 + repeat(moments, third + n, width) * weight
                    v3 = v3 + repeat(moments, fourth + n, width) * weight
            row = (f * n_lm + lm) * width
            store(s, row, v0)
            store(s, row + step, v1)
            store(s, row + 2 * step, v2)
            store(s, row + 3 * step, v3)


@inlined
def _unmix(
    s, back, sums, transposed, element, channel, begin, degree_of, degrees, n_padded, n_channels,
    n_degrees, n_lm, n_factors, width, input_width,
):  # fmt: skip
    """Add gradients by channels times the transposed matrix to `sums` (atoms, n_lm, n_padded): the adjoint of `_mix`.

    Channels before `begin` belong to the vector before.
    """
    step, sum_step = n_factors * n_lm * width, n_lm * n_padded
    for lm in range(n_lm):
        start = (element * n_degrees + degree_of[lm]) * n_factors * n_channels + channel
        for first in range(0, n_padded, input_width):
            entry = sums + lm * n_padded + first
            v0, v1 = load(s, entry, input_width), load(s, entry + sum_step, input_width)
            v2, v3 = load(s, entry + 2 * sum_step, input_width), load(s, entry + 3 * sum_step, input_width)
            for f in range(n_factors):
                if degree_of[lm] <= degrees[f]:
                    row, column = back + (f * n_lm + lm) * width, start + f * n_channels
                    for lane in range(begin, width):
                        weight = load(transposed, (column + lane) * n_padded + first, input_width)
                        v0 = v0 + repeat(s, row + lane, input_width) * weight
                        v1 = v1 + repeat(s, row + step + lane, input_width) * weight
                        v2 = v2 + repeat(s, row + 2 * step + lane, input_width) * weight
                        v3 = v3 + repeat(s, row + 3 * step + lane, input_width) * weight
            store(s, entry, v0)
            store(s, entry + sum_step, v1)
            store(s, entry + 2 * sum_step, v2)
            store(s, entry + 3 * sum_step, v3)


def _forward(
    n_degrees: int, n_factors: int, n_vectors: int, width: int, input_width: int, m0: int, m1: int, m2: int, m3: int
) -> Any:
    """Return the kernel of `mixed_average`; m0 to m3 are the sizes of classes odd along 0 to 3 axes."""
    n_lm = n_degrees**2
    n_rows = n_factors * n_lm
    points = _LANES * n_rows * width
    results = points + 8 * n_factors * width
    directed = results + n_factors * width

    def kernel(
        moments_array, species, averages_array, vectors_array, matrix_array, transposed_array, degree_of, degrees,
        n_atoms, n_inputs, n_channels, y_array, weighted, weights, directions_array, counts, starts, first, last,
    ):  # fmt: skip
        zero = fill(moments_array.dtype.type(0), width)
        scratch = np.empty(directed + 3 * n_vectors * width, moments_array.dtype)
        s, moments, matrix = address(scratch), address(moments_array), address(matrix_array)
        averages, vectors = address(averages_array), address(vectors_array)
        y, directions = address(y_array), address(directions_array)
        atom = first
        while atom < last:
            count = _count_alike(species, atom, last, _LANES)
            for block in range((n_channels + width - 1) // width):
                channel = min(block * width, n_channels - width)  # the last vector may overlap the one before
                _mix(
                    s, moments, matrix, atom, count, species[atom], channel, degree_of, degrees, n_atoms, n_inputs,
                    n_channels, n_degrees, n_lm, n_factors, zero, width,
                )  # fmt: skip
                for lane in range(count):
                    average_rows(
                        s, lane * n_rows * width, points, results, directed, y, weights, directions, counts, starts,
                        n_lm, n_factors, n_vectors, m0, m1, m2, m3, zero, width,
                    )  # fmt: skip
                    for f in range(n_factors):
                        entry = ((atom + lane) * n_factors + f) * n_channels + channel
                        store(averages, entry, load(s, results + f * width, width))
                    for f in range(n_vectors):
                        for axis in range(3):
                            # (3, n_atoms, n_vectors, n_channels)
                            entry = ((axis * n_atoms + atom + lane) * n_vectors + f) * n_channels + channel
                            store(vectors, entry, load(s, directed + (3 * f + axis) * width, width))
            atom += count
        scratch[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel


def _backward(
    n_degrees: int, n_factors: int, n_vectors: int, width: int, input_width: int, m0: int, m1: int, m2: int, m3: int
) -> Any:
    """Return the kernel of `mixed_average_backward`; arguments as in `_forward`."""
    n_lm = n_degrees**2
    n_rows = n_factors * n_lm
    back = _LANES * n_rows * width
    points = 2 * back
    slopes = points + 8 * n_factors * width
    sums = slopes + 8 * n_factors * width

    def kernel(
        moments_array, species, cotangent_array, vector_cotangent_array, gradient_array, matrix_array, transposed_array,
        degree_of, degrees, n_atoms, n_inputs, n_channels,
        y_array, weighted_array, weights, directions_array, counts, starts, first, last,
    ):  # fmt: skip
        zero, input_zero = fill(moments_array.dtype.type(0), width), fill(moments_array.dtype.type(0), input_width)
        n_padded = (n_inputs + input_width - 1) // input_width * input_width
        # zeros: rows of gradients of missing atoms are multiplied, though not used
        scratch = np.zeros(sums + _LANES * n_lm * n_padded, moments_array.dtype)
        s, moments, matrix = address(scratch), address(moments_array), address(matrix_array)
        transposed, weighted = address(transposed_array), address(weighted_array)
        cotangents, vector_cotangents = address(cotangent_array), address(vector_cotangent_array)
        y, directions, gradient = address(y_array), address(directions_array), address(gradient_array)
        n_whole = n_inputs // input_width * input_width
        step = n_atoms * n_vectors * n_channels  # from one component of the vectors to the next
        atom = first
        while atom < last:
            count = _count_alike(species, atom, last, _LANES)
            element = species[atom]
            for entry in range(0, _LANES * n_lm * n_padded, input_width):
                store(s, sums + entry, input_zero)
            for block in range((n_channels + width - 1) // width):
                channel = min(block * width, n_channels - width)
                _mix(
                    s, moments, matrix, atom, count, element, channel, degree_of, degrees, n_atoms, n_inputs,
                    n_channels, n_degrees, n_lm, n_factors, zero, width,
                )  # fmt: skip
                for lane in range(count):
                    row = lane * n_rows * width
                    column = (atom + lane) * n_factors * n_channels + channel
                    vector_column = (atom + lane) * n_vectors * n_channels + channel
                    pull_rows(
                        s, row, points, slopes, back + row, cotangents, column, n_channels, vector_cotangents,
                        vector_column, step, y, weighted, directions, counts, starts,
                        n_lm, n_factors, n_vectors, m0, m1, m2, m3, zero, width,
                    )  # fmt: skip
                _unmix(
                    s, back, sums, transposed, element, channel, block * width - channel, degree_of, degrees, n_padded,
                    n_channels, n_degrees, n_lm, n_factors, width, input_width,
                )  # fmt: skip
            for lane in range(count):
                for lm in range(n_lm):
                    entry = (lm * n_atoms + atom + lane) * n_inputs  # (n_lm, n_atoms, n_inputs), flat
                    row = sums + (lane * n_lm + lm) * n_padded
                    # whole vectors first: the compiler copies single numbers, as memory might overlap
                    for n in range(0, n_whole, input_width):
                        store(gradient, entry + n, load(s, row + n, input_width))
                    for n in range(n_whole, n_inputs):
                        gradient[entry + n] = s[row + n]
            atom += count
        scratch[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel
