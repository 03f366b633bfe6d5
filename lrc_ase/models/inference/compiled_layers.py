r"""Dense layers with SiLU between them, and their adjoint, on the CPU, compiled by Numba.

.. math:: x_{n+1} = W_n\, \sigma(x_n) + c_{n,z}, \qquad \sigma(x) = x s, \quad s = \frac{1}{1 + e^{-x}}, \qquad
          \sigma'(x) = s + \sigma(x) (1 - s).

All layers of `_LANES` rows are computed one after the other, so that their numbers stay in the first-level cache and
each load of a matrix serves several rows. Matrices have rows of whole vectors, filled up by zeros.
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


def _forward(width: int) -> Any:
    """Return the kernel that computes layers for rows `first` to `last`.

    `sizes` (n_layers + 1, 2) holds the numbers of columns, and the same filled up to whole vectors; `kinds` the kind of
    each row. Rows of inputs and outputs begin `step` numbers after the row before, at the column `at`.
    """

    def kernel(
        inputs_array, input_at, input_step, kinds, matrices_array, per_kind, constants_array, sizes, is_active,
        table_array, hidden_array, outputs_array, output_at, output_step, adds, first, last,
    ):  # fmt: skip
        n_layers, n_rows, n_kinds = len(sizes) - 1, len(kinds), len(constants_array)
        widest = 0
        for layer in range(n_layers):
            widest = max(widest, sizes[layer, 1])
        scratch_array = np.empty(_LANES * widest, inputs_array.dtype)
        n_terms = len(table_array) - _SERIES
        scratch, inputs, matrices = address(scratch_array), address(inputs_array), address(matrices_array)
        constants, table = address(constants_array), address(table_array)
        hidden, outputs = address(hidden_array), address(outputs_array)
        n_constants = constants_array.shape[1]
        row = first
        while row < last:
            count = count_alike(kinds, row, last, _LANES) if per_kind else min(_LANES, last - row)
            # fewer than four rows: the last one stands in for the missing ones
            r1, r2, r3 = row + min(1, count - 1), row + min(2, count - 1), row + min(3, count - 1)
            source, s0, s1 = inputs, input_at + row * input_step, input_at + r1 * input_step
            s2, s3 = input_at + r2 * input_step, input_at + r3 * input_step
            matrix_at, constants_at, hidden_at = 0, 0, 0
            for layer in range(n_layers):
                n_in, n_filled, n_out = sizes[layer, 0], sizes[layer, 1], sizes[layer + 1, 1]
                if layer > 0 or is_active:
                    _activate(source, s0, scratch, 0, n_filled, table, n_terms, width)
                    _activate(source, s1, scratch, n_filled, n_filled, table, n_terms, width)
                    _activate(source, s2, scratch, 2 * n_filled, n_filled, table, n_terms, width)
                    _activate(source, s3, scratch, 3 * n_filled, n_filled, table, n_terms, width)
                    source, s0, s1, s2, s3 = scratch, 0, n_filled, 2 * n_filled, 3 * n_filled
                is_last = layer == n_layers - 1
                if is_last:
                    target, t0, t1 = outputs, output_at + row * output_step, output_at + r1 * output_step
                    t2, t3 = output_at + r2 * output_step, output_at + r3 * output_step
                else:
                    target, t0, t1 = hidden, hidden_at + row * n_out, hidden_at + r1 * n_out
                    t2, t3 = hidden_at + r2 * n_out, hidden_at + r3 * n_out
                start = matrix_at + (kinds[row] * n_in * n_out if per_kind else 0)
                for column in range(0, n_out, width):
                    v0 = load(constants, kinds[row] * n_constants + constants_at + column, width)
                    v1 = load(constants, kinds[r1] * n_constants + constants_at + column, width)
                    v2 = load(constants, kinds[r2] * n_constants + constants_at + column, width)
                    v3 = load(constants, kinds[r3] * n_constants + constants_at + column, width)
                    if is_last and adds:
                        v0, v1 = v0 + load(target, t0 + column, width), v1 + load(target, t1 + column, width)
                        v2, v3 = v2 + load(target, t2 + column, width), v3 + load(target, t3 + column, width)
                    for k in range(n_in):
                        weight = load(matrices, start + k * n_out + column, width)
                        v0 = v0 + repeat(source, s0 + k, width) * weight
                        v1 = v1 + repeat(source, s1 + k, width) * weight
                        v2 = v2 + repeat(source, s2 + k, width) * weight
                        v3 = v3 + repeat(source, s3 + k, width) * weight
                    store(target, t0 + column, v0)
                    store(target, t1 + column, v1)
                    store(target, t2 + column, v2)
                    store(target, t3 + column, v3)
                source, s0, s1, s2, s3 = target, t0, t1, t2, t3
                matrix_at += (n_kinds if per_kind else 1) * n_in * n_out
                constants_at += n_out
                hidden_at += n_rows * n_out
            row += count
        scratch_array[0] = 0  # keeps the array alive: `address` holds no reference

    return kernel


def _pull(width: int) -> Any:
    """Return the kernel of the adjoint for rows `first` to `last`; arguments as in `_forward`.

    `matrices` are transposed and stand in the opposite order, last layer first.
    """

    def kernel(
        inputs_array, input_at, input_step, kinds, matrices_array, per_kind, n_kinds, sizes, is_active, table_array,
        hidden_array, by_outputs_array, output_at, output_step, by_inputs_array, first, last,
    ):  # fmt: skip
        n_layers, n_rows = len(sizes) - 1, len(kinds)
        widest, n_hidden = 0, 0
        for layer in range(n_layers):
            widest = max(widest, sizes[layer, 1])
            n_hidden += n_rows * sizes[layer, 1]
        n_hidden -= n_rows * sizes[0, 1]
        scratch_array = np.empty(2 * _LANES * widest, inputs_array.dtype)
        n_terms = len(table_array) - _SERIES
        scratch, inputs, matrices = address(scratch_array), address(inputs_array), address(matrices_array)
        table, hidden, by_inputs = address(table_array), address(hidden_array), address(by_inputs_array)
        row = first
        while row < last:
            count = count_alike(kinds, row, last, _LANES) if per_kind else min(_LANES, last - row)
            r1, r2, r3 = row + min(1, count - 1), row + min(2, count - 1), row + min(3, count - 1)
            source, s0, s1 = address(by_outputs_array), output_at + row * output_step, output_at + r1 * output_step
            s2, s3 = output_at + r2 * output_step, output_at + r3 * output_step
            matrix_at, hidden_at = 0, n_hidden
            for layer in range(n_layers - 1, -1, -1):
                n_in, n_out = sizes[layer + 1, 0], sizes[layer, 1]
                if layer > 0:
                    hidden_at -= n_rows * n_out
                    values, x0, x1 = hidden, hidden_at + row * n_out, hidden_at + r1 * n_out
                    x2, x3 = hidden_at + r2 * n_out, hidden_at + r3 * n_out
                    # two halves of the scratch array in turn
                    target, t0 = scratch, (layer % 2) * _LANES * widest
                    t1, t2, t3 = t0 + widest, t0 + 2 * widest, t0 + 3 * widest
                else:
                    values, x0, x1 = inputs, input_at + row * input_step, input_at + r1 * input_step
                    x2, x3 = input_at + r2 * input_step, input_at + r3 * input_step
                    # the gradient has the columns of the inputs, filled up where nothing follows
                    target, step = by_inputs, by_inputs_array.shape[1]
                    t0, t1 = input_at + row * step, input_at + r1 * step
                    t2, t3 = input_at + r2 * step, input_at + r3 * step
                start = matrix_at + (kinds[row] * n_in * n_out if per_kind else 0)
                for column in range(0, n_out, width):
                    zero = fill(inputs_array.dtype.type(0), width)
                    v0, v1, v2, v3 = zero, zero, zero, zero
                    for k in range(n_in):
                        weight = load(matrices, start + k * n_out + column, width)
                        v0 = v0 + repeat(source, s0 + k, width) * weight
                        v1 = v1 + repeat(source, s1 + k, width) * weight
                        v2 = v2 + repeat(source, s2 + k, width) * weight
                        v3 = v3 + repeat(source, s3 + k, width) * weight
                    if layer > 0 or is_active:
                        v0 = _times_slope(v0, load(values, x0 + column, width), table, n_terms, width)
                        v1 = _times_slope(v1, load(values, x1 + column, width), table, n_terms, width)
                        v2 = _times_slope(v2, load(values, x2 + column, width), table, n_terms, width)
                        v3 = _times_slope(v3, load(values, x3 + column, width), table, n_terms, width)
                    store(target, t0 + column, v0)
                    store(target, t1 + column, v1)
                    store(target, t2 + column, v2)
                    store(target, t3 + column, v3)
                source, s0, s1, s2, s3 = target, t0, t1, t2, t3
                matrix_at += (n_kinds if per_kind else 1) * n_in * n_out
            row += count
        scratch_array[0] = 0

    return kernel
