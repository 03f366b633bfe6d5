r"""Dense layers with SiLU between them, and their adjoint, on the CPU, compiled by Numba.

.. math:: x_{n+1} = W_n\, \sigma(x_n) + c_{n,z}, \qquad \sigma(x) = x s, \quad s = \frac{1}{1 + e^{-x}}, \qquad
          \sigma'(x) = s + \sigma(x) (1 - s).

All layers of `_LANES` rows are computed one after the other, so that their numbers stay in the first-level cache and
each load of a matrix serves several rows. Matrices (n_inputs, n_outputs) are stored as panels (n_inputs, width) of a
vector's columns, the last one filled up by zeros, and are read in the order of the memory.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from lrc_ase.compiled.compilation import compiled, inlined
from lrc_ase.compiled.simd import address, clamp, fill, load, repeat, store, times_power_of_two

__all__ = ["count_alike", "layer_kernels", "sigmoid_table", "width_of"]

_LANES = 4
"""Rows whose products share the loads of a matrix; written out in the kernels."""
_LOW, _HIGH, _LOG2E, _MAGIC, _LN2_HIGH, _LN2_LOW, _SERIES = range(7)
"""Places in `sigmoid_table`; the series of the exponential takes the rest."""


def width_of(precision: str) -> int:
    """Return the numbers in a vector of 64 bytes."""
    return 64 // np.dtype(precision).itemsize


@lru_cache(maxsize=2)
def sigmoid_table(precision: str) -> np.ndarray:
    r"""Return the constants of :math:`e^x = 2^n e^r` with n the whole number next to :math:`x / \ln 2`.

    Adding a large "magic" number rounds to whole numbers and leaves n in the lowest bits. The two parts of
    :math:`\ln 2` keep the digits of r. The Taylor series of :math:`e^r`, highest power first, is exact to rounding for
    :math:`|r| \le \ln(2) / 2`.
    """
    single = precision == "float32"
    high = 355 / 512 if single else float.fromhex("0x1.62e42fefa0000p-1")  # few digits: n times it is exact
    low = math.log(2) - high if single else float.fromhex("0x1.cf79abc9e3b3ap-40")
    limit, magic, n_terms = (87.0, 1.5 * 2**23, 8) if single else (708.0, 1.5 * 2**52, 14)
    series = [1 / math.factorial(k) for k in reversed(range(n_terms))]
    return np.array([-limit, limit, 1 / math.log(2), magic, -high, -low, *series], precision)


@lru_cache(maxsize=2)
def layer_kernels(precision: str) -> tuple[Any, Any]:
    """Return the kernels of the layers and of their adjoint; `lrc_ase.models.inference.networks.Layers` calls them."""
    width = width_of(precision)
    return tuple(
        compiled(build(width), "layers", name, precision) for build, name in ((_forward, "forward"), (_pull, "pull"))
    )


@inlined
def count_alike(kinds, row, last, limit):
    """Return the number of rows from `row` on that are of its kind, up to `limit`."""
    count = 1
    while count < limit and row + count < last and kinds[row + count] == kinds[row]:
        count += 1
    return count


@inlined
def _sigmoid(value, table, n_terms, width):
    """Return 1 / (1 + exp(-x)) for a vector of numbers x."""
    x = clamp(0.0 - value, table[_LOW], table[_HIGH])
    shifted = x * table[_LOG2E] + table[_MAGIC]
    n = shifted - table[_MAGIC]
    r = x + n * table[_LN2_HIGH]
    r = r + n * table[_LN2_LOW]
    series = fill(table[_SERIES], width)
    for k in range(1, n_terms):
        series = series * r + table[_SERIES + k]
    return 1.0 / (times_power_of_two(series, shifted) + 1.0)


@inlined
def _activate(source, row, target, at, n_columns, table, n_terms, width):
    """Write SiLU of a row."""
    for column in range(0, n_columns, width):
        value = load(source, row + column, width)
        store(target, at + column, value * _sigmoid(value, table, n_terms, width))


@inlined
def _times_slope(gradient, value, table, n_terms, width):
    """Multiply a gradient by the derivative of SiLU."""
    s = _sigmoid(value, table, n_terms, width)
    return gradient * (s + value * s * (1.0 - s))


@inlined
def _places(start, step, row, last):
    """Return the places of four rows; row `last` stands in for those behind it."""
    second, third, fourth = min(row + 1, last), min(row + 2, last), min(row + 3, last)
    return start + row * step, start + second * step, start + third * step, start + fourth * step


@inlined
def _load(source, places, column, width):
    """Read a vector from each of four rows."""
    a, b, c, d = places
    return (
        load(source, a + column, width),
        load(source, b + column, width),
        load(source, c + column, width),
        load(source, d + column, width),
    )


@inlined
def _store(target, places, column, values):
    """Write a vector to each of four rows."""
    store(target, places[0] + column, values[0])
    store(target, places[1] + column, values[1])
    store(target, places[2] + column, values[2])
    store(target, places[3] + column, values[3])


@inlined
def _add_products(values, source, places, n_in, panels, start, width):
    """Add to vectors of four rows their products with the panel (n_in, width) from `start` on."""
    v0, v1, v2, v3 = values
    s0, s1, s2, s3 = places
    for k in range(n_in):
        weight = load(panels, start + k * width, width)
        v0 = v0 + repeat(source, s0 + k, width) * weight
        v1 = v1 + repeat(source, s1 + k, width) * weight
        v2 = v2 + repeat(source, s2 + k, width) * weight
        v3 = v3 + repeat(source, s3 + k, width) * weight
    return v0, v1, v2, v3


def _forward(width: int) -> Any:
    """Return the kernel that computes layers for rows `first` to `last`.

    `sizes` (n_layers + 1, 2) holds the numbers of columns, and the same filled up to whole vectors; `kinds` the kind of
    each row. Rows of inputs and outputs begin `step` numbers after the row before, at the column `at`.
    """

    def kernel(
        inputs_array, input_at, input_step, kinds, panels_array, per_kind, constants_array, sizes, is_active,
        table_array, hidden_array, outputs_array, output_at, output_step, adds, first, last,
    ):  # fmt: skip
        n_layers, n_rows, n_kinds = len(sizes) - 1, len(kinds), len(constants_array)
        widest = sizes[:-1, 1].max()
        scratch_array = np.empty(_LANES * widest, inputs_array.dtype)
        n_terms = len(table_array) - _SERIES
        scratch, inputs, panels = address(scratch_array), address(inputs_array), address(panels_array)
        constants, table = address(constants_array), address(table_array)
        hidden, outputs = address(hidden_array), address(outputs_array)
        n_constants = constants_array.shape[1]
        row = first
        while row < last:
            count = count_alike(kinds, row, last, _LANES) if per_kind else min(_LANES, last - row)
            end = row + count - 1
            source, places = inputs, _places(input_at, input_step, row, end)
            of_constants = (
                kinds[row] * n_constants,
                kinds[min(row + 1, end)] * n_constants,
                kinds[min(row + 2, end)] * n_constants,
                kinds[min(row + 3, end)] * n_constants,
            )
            panels_at, constants_at, hidden_at = 0, 0, 0
            for layer in range(n_layers):
                n_in, n_filled, n_out = sizes[layer, 0], sizes[layer, 1], sizes[layer + 1, 1]
                if layer > 0 or is_active:
                    for each in range(_LANES):
                        _activate(source, places[each], scratch, each * n_filled, n_filled, table, n_terms, width)
                    source, places = scratch, _places(0, n_filled, 0, _LANES)
                is_last = layer == n_layers - 1
                if is_last:
                    target, to = outputs, _places(output_at, output_step, row, end)
                else:
                    target, to = hidden, _places(hidden_at, n_out, row, end)
                start = panels_at + (kinds[row] * n_in * n_out if per_kind else 0)
                for column in range(0, n_out, width):
                    values = _load(constants, of_constants, constants_at + column, width)
                    if is_last and adds:
                        v0, v1, v2, v3 = _load(target, to, column, width)
                        values = values[0] + v0, values[1] + v1, values[2] + v2, values[3] + v3
                    values = _add_products(values, source, places, n_in, panels, start + column * n_in, width)
                    _store(target, to, column, values)
                source, places = target, to
                panels_at += (n_kinds if per_kind else 1) * n_in * n_out
                constants_at += n_out
                hidden_at += n_rows * n_out
            row += count
        scratch_array[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel


def _pull(width: int) -> Any:
    """Return the kernel of the adjoint for rows `first` to `last`; arguments as in `_forward`.

    `panels` are those of the transposed matrices and stand in the opposite order, last layer first.
    """

    def kernel(
        inputs_array, input_at, input_step, kinds, panels_array, per_kind, n_kinds, sizes, is_active, table_array,
        hidden_array, by_outputs_array, output_at, output_step, by_inputs_array, first, last,
    ):  # fmt: skip
        n_layers, n_rows = len(sizes) - 1, len(kinds)
        widest = sizes[:-1, 1].max()
        scratch_array = np.empty(2 * _LANES * widest, inputs_array.dtype)
        n_terms = len(table_array) - _SERIES
        scratch, inputs, panels = address(scratch_array), address(inputs_array), address(panels_array)
        table, hidden, by_inputs = address(table_array), address(hidden_array), address(by_inputs_array)
        zero = fill(inputs_array.dtype.type(0), width)
        row = first
        while row < last:
            count = count_alike(kinds, row, last, _LANES) if per_kind else min(_LANES, last - row)
            end = row + count - 1
            source, places = address(by_outputs_array), _places(output_at, output_step, row, end)
            panels_at, hidden_at = 0, len(hidden_array)
            for layer in range(n_layers - 1, -1, -1):
                n_in, n_out = sizes[layer + 1, 0], sizes[layer, 1]
                if layer > 0:
                    hidden_at -= n_rows * n_out
                    values, of_values = hidden, _places(hidden_at, n_out, row, end)
                    # two halves of the scratch array in turn
                    target, to = scratch, _places((layer % 2) * _LANES * widest, widest, 0, _LANES)
                else:
                    values, of_values = inputs, _places(input_at, input_step, row, end)
                    # the gradient has the columns of the inputs, filled up where nothing follows
                    target, to = by_inputs, _places(input_at, by_inputs_array.shape[1], row, end)
                start = panels_at + (kinds[row] * n_in * n_out if per_kind else 0)
                for column in range(0, n_out, width):
                    zeros = zero, zero, zero, zero
                    pulls = _add_products(zeros, source, places, n_in, panels, start + column * n_in, width)
                    if layer > 0 or is_active:
                        x0, x1, x2, x3 = _load(values, of_values, column, width)
                        pulls = (
                            _times_slope(pulls[0], x0, table, n_terms, width),
                            _times_slope(pulls[1], x1, table, n_terms, width),
                            _times_slope(pulls[2], x2, table, n_terms, width),
                            _times_slope(pulls[3], x3, table, n_terms, width),
                        )
                    _store(target, to, column, pulls)
                source, places = target, to
                panels_at += (n_kinds if per_kind else 1) * n_in * n_out
            row += count
        scratch_array[0] = 0

    return kernel
