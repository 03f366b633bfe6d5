r"""Dipoles of atoms along their edges and their derivatives on the CPU, compiled by Numba.

The amounts of an atom are divided among its neighbors as transfers are (`compiled_transfers`), and point along the
edges (`lrc_ase.models.charges.EdgeDipoles`):

.. math:: p = \sum_k t_k r_k, \qquad t_k = \sum_c \frac{a_c w_{ck}}{1 + W_c}.

With the gradient :math:`g` by the dipole, that by :math:`t_k` is :math:`T_k = g \cdot r_k`. The derivatives by amounts
and weights follow from it as for transfers, and the vector itself adds :math:`t_k\, g`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lrc_ase.compiled.compilation import compiled
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.models.descriptors.sphere.compiled_moments import Neighborhoods
from lrc_ase.models.inference.compiled_transfers import collect, slope_of_weight, weigh

__all__ = ["dipole", "dipole_backward"]


def dipole(of: Neighborhoods, profile: np.ndarray, amounts: np.ndarray, cutoff: float) -> np.ndarray:
    """Return the dipole of each atom, (n_atoms, 3).

    `profile` (n_amounts, n_elements, 4) holds the weights of the radial functions, `amounts` (n_atoms, n_amounts).
    """
    vectors = of[0]
    dipoles = np.empty((len(vectors), 3), vectors.dtype)
    _run(False, (*of, profile, amounts, cutoff, dipoles))
    return dipoles


def dipole_backward(
    of: Neighborhoods, profile: np.ndarray, amounts: np.ndarray, cutoff: float, by_dipoles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients by amounts and vectors, given that by the dipoles (n_atoms, 3)."""
    # zeros: the kernel skips padding and neighbors beyond the cutoff
    by_amounts, by_vectors = np.empty_like(amounts), np.zeros_like(of[0])
    _run(True, (*of, profile, amounts, cutoff, by_dipoles, by_amounts, by_vectors))
    return by_amounts, by_vectors


def _run(backward: bool, arguments: tuple[Any, ...]) -> None:
    vectors, amounts = arguments[0], arguments[5]
    kernel = _kernel(backward, amounts.shape[1], vectors.dtype.name)
    run_over_atoms(kernel, arguments, len(vectors), torch.get_num_threads())


@lru_cache(maxsize=8)
def _kernel(backward: bool, n_channels: int, precision: str) -> Any:
    kernel = _backward(n_channels) if backward else _forward(n_channels)
    return compiled(kernel, "dipoles", "backward" if backward else "forward", n_channels, precision)


def _forward(n_channels: int) -> Any:
    """Return the kernel of `dipole` for atoms `first` to `last`."""

    def kernel(vectors, mask, species, neighbors, profile, amounts, cutoff, dipoles, first, last):
        kind = vectors.dtype.type
        inverse = kind(1 / cutoff**2)
        columns, fadings = np.empty(mask.shape[1], np.int64), np.empty(mask.shape[1], vectors.dtype)
        weights, sums = np.empty((mask.shape[1], n_channels), vectors.dtype), np.empty(n_channels, vectors.dtype)
        for atom in range(first, last):
            count = collect(vectors, mask, atom, inverse, columns, fadings)
            weigh(species, neighbors, profile, atom, columns, fadings, count, n_channels, weights, sums)
            for channel in range(n_channels):
                sums[channel] = amounts[atom, channel] / sums[channel]
            x, y, z = kind(0), kind(0), kind(0)
            for k in range(count):
                column, share = columns[k], kind(0)
                for channel in range(n_channels):
                    share += sums[channel] * weights[k, channel]
                x += share * vectors[atom, column, 0]
                y += share * vectors[atom, column, 1]
                z += share * vectors[atom, column, 2]
            dipoles[atom, 0], dipoles[atom, 1], dipoles[atom, 2] = x, y, z

    return kernel


def _backward(n_channels: int) -> Any:
    """Return the kernel of `dipole_backward` for atoms `first` to `last`."""

    def kernel(
        vectors, mask, species, neighbors, profile, amounts, cutoff, by_dipoles, by_amounts, by_vectors, first, last
    ):
        kind = vectors.dtype.type
        inverse = kind(1 / cutoff**2)
        columns, fadings = np.empty(mask.shape[1], np.int64), np.empty(mask.shape[1], vectors.dtype)
        weights, sums = np.empty((mask.shape[1], n_channels), vectors.dtype), np.empty(n_channels, vectors.dtype)
        along, means = np.empty(mask.shape[1], vectors.dtype), np.empty(n_channels, vectors.dtype)
        for atom in range(first, last):
            count = collect(vectors, mask, atom, inverse, columns, fadings)
            weigh(species, neighbors, profile, atom, columns, fadings, count, n_channels, weights, sums)
            gx, gy, gz = by_dipoles[atom, 0], by_dipoles[atom, 1], by_dipoles[atom, 2]
            means[:] = 0
            for k in range(count):
                column = columns[k]
                x, y, z = vectors[atom, column, 0], vectors[atom, column, 1], vectors[atom, column, 2]
                along[k] = gx * x + gy * y + gz * z
                for channel in range(n_channels):
                    means[channel] += along[k] * weights[k, channel]
            for channel in range(n_channels):
                means[channel] /= sums[channel]
                by_amounts[atom, channel] = means[channel]
                sums[channel] = amounts[atom, channel] / sums[channel]
            for k in range(count):
                column, share = columns[k], kind(0)
                for channel in range(n_channels):
                    share += sums[channel] * weights[k, channel]
                element = species[neighbors[atom, column]]
                slope = slope_of_weight(profile, element, fadings[k], along[k], means, sums, n_channels, inverse)
                by_vectors[atom, column, 0] = slope * vectors[atom, column, 0] + share * gx
                by_vectors[atom, column, 1] = slope * vectors[atom, column, 1] + share * gy
                by_vectors[atom, column, 2] = slope * vectors[atom, column, 2] + share * gz

    return kernel
