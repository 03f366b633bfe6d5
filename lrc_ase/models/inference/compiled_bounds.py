r"""Bounded features and messages, and the derivatives of the bounds, on the CPU, compiled by Numba.

Features f become :math:`f (1 + x^2)^{-1/4}` with :math:`x = f / s`, s the size beyond which they are compressed. The
derivative is :math:`(1 + \tfrac12 x^2) (1 + x^2)^{-5/4}`. Scalars and vectors h that neighbors hand on become
:math:`b h` with :math:`b = (1 + h^2 / B^2)^{-1/2}`. With the gradient g by :math:`b h`, that by h is
:math:`b g - b^3 (g \cdot h) h / B^2`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lrc_ase.compiled.compilation import PRECISIONS, compiled
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.models.descriptors.sphere.message_block import BOUND

__all__ = ["bound_messages", "compress", "pull_bounds", "pull_compression"]


def compress(values: np.ndarray, inverse_size: float, features: np.ndarray, at: int) -> None:
    """Write compressed values (n_atoms, n) into columns of `features` from `at` on; as they are for 1 / s = 0."""
    _run(_compress, (values, inverse_size, features, at), values)


def pull_compression(
    by_features: np.ndarray, at: int, values: np.ndarray, inverse_size: float, by_values: np.ndarray
) -> None:
    """Write the gradient by the values, given that by the columns of the features."""
    _run(_pull_compression, (by_features, at, values, inverse_size, by_values), values)


def bound_messages(scalars: np.ndarray, vectors: np.ndarray, n_messages: int, messages: np.ndarray) -> None:
    """Write bounded messages (n_atoms, 4, K), from scalars (n_atoms, K) and components (3, n_atoms, K) of vectors.

    All arrays may have more columns, which are not touched.
    """
    _run(_bound, (scalars, vectors, n_messages, messages), scalars)


def pull_bounds(
    by_messages: np.ndarray, scalars: np.ndarray, vectors: np.ndarray, n_messages: int,
    by_scalars: np.ndarray, by_vectors: np.ndarray,
) -> None:  # fmt: skip
    """Write the gradients by scalars and vectors, given that by the messages."""
    _run(_pull_bounds, (by_messages, scalars, vectors, n_messages, by_scalars, by_vectors), scalars)


def _run(build: Any, arguments: tuple[Any, ...], rows: np.ndarray) -> None:
    run_over_atoms(_kernel(build, rows.dtype), arguments, len(rows), torch.get_num_threads())


@lru_cache(maxsize=8)
def _kernel(build: Any, dtype: np.dtype) -> Any:
    return compiled(build(), "bounds", build.__name__.strip("_"), PRECISIONS[dtype])


def _compress() -> Any:
    def kernel(values, inverse_size, features, at, first, last):
        inverse = values.dtype.type(inverse_size)
        one = values.dtype.type(1)
        for atom in range(first, last):
            for column in range(values.shape[1]):
                x = values[atom, column] * inverse
                features[atom, at + column] = values[atom, column] / math.sqrt(math.sqrt(one + x * x))

    return kernel


def _pull_compression() -> Any:
    def kernel(by_features, at, values, inverse_size, by_values, first, last):
        kind = values.dtype.type
        inverse, one, half = kind(inverse_size), kind(1), kind(0.5)
        for atom in range(first, last):
            for column in range(values.shape[1]):
                x = values[atom, column] * inverse
                square = one + x * x
                slope = (one + half * x * x) / (square * math.sqrt(math.sqrt(square)))
                by_values[atom, column] = by_features[atom, at + column] * slope

    return kernel


def _bound() -> Any:
    def kernel(scalars, vectors, n_messages, messages, first, last):
        kind = scalars.dtype.type
        one, inverse = kind(1), kind(1 / BOUND**2)
        for atom in range(first, last):
            for k in range(n_messages):
                h = scalars[atom, k]
                messages[atom, 0, k] = h / math.sqrt(one + h * h * inverse)
                x, y, z = vectors[0, atom, k], vectors[1, atom, k], vectors[2, atom, k]
                bound = one / math.sqrt(one + (x * x + y * y + z * z) * inverse)
                messages[atom, 1, k], messages[atom, 2, k], messages[atom, 3, k] = bound * x, bound * y, bound * z

    return kernel


def _pull_bounds() -> Any:
    def kernel(by_messages, scalars, vectors, n_messages, by_scalars, by_vectors, first, last):
        kind = scalars.dtype.type
        one, inverse = kind(1), kind(1 / BOUND**2)
        for atom in range(first, last):
            for k in range(n_messages):
                h, g = scalars[atom, k], by_messages[atom, 0, k]
                bound = one / math.sqrt(one + h * h * inverse)
                # b - b^3 h^2 / B^2 = b^3
                by_scalars[atom, k] = bound * bound * bound * g
                x, y, z = vectors[0, atom, k], vectors[1, atom, k], vectors[2, atom, k]
                gx, gy, gz = by_messages[atom, 1, k], by_messages[atom, 2, k], by_messages[atom, 3, k]
                bound = one / math.sqrt(one + (x * x + y * y + z * z) * inverse)
                along = bound * bound * bound * (gx * x + gy * y + gz * z) * inverse
                by_vectors[0, atom, k] = bound * gx - along * x
                by_vectors[1, atom, k] = bound * gy - along * y
                by_vectors[2, atom, k] = bound * gz - along * z

    return kernel
