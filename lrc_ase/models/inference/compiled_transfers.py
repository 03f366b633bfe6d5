r"""Transfers of charge between neighbors and their derivatives on the CPU, compiled by Numba.

With the squared distance s to neighbor k, :math:`\phi_p = (1 - s / r_c^2)^p` and :math:`w_{ck} = \sum_p g_{czp}
\phi_p`, atom i takes

.. math:: t_k = \sum_c \frac{a_c w_{ck}}{1 + W_c}, \qquad W_c = \sum_k w_{ck},

as in `lrc_ase.models.charges`. With the gradient :math:`T_k` by the transfers and :math:`S_c = \sum_k T_k w_{ck}`

.. math:: \frac{\partial}{\partial a_c} = \frac{S_c}{1 + W_c}, \qquad
          \frac{\partial}{\partial w_{ck}} = \frac{a_c}{1 + W_c} \Big(T_k - \frac{S_c}{1 + W_c}\Big).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lrc_ase.compiled.compilation import compiled, inlined
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.models.descriptors.sphere.compiled_moments import Neighborhoods

__all__ = ["collect", "slope_of_weight", "transfer", "transfer_backward", "weigh"]


def transfer(
    of: Neighborhoods, profile: np.ndarray, amounts: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the charge that each atom gains, (n_atoms,), and minus its transfers times vectors, (n_atoms, 3).

    `profile` (n_transfers, n_elements, 4) holds the weights g of the radial functions, `amounts` (n_atoms, n_transfers)
    the charge that each atom asks for.
    """
    vectors = of[0]
    dipoles = np.empty((len(vectors), 3), vectors.dtype)
    arguments = *of, profile, amounts, cutoff, dipoles
    gains = run_over_atoms(
        _kernel(False, amounts.shape[1], vectors.dtype.name), arguments, len(vectors), torch.get_num_threads()
    )
    # each range of atoms has its own array: what an atom takes from its neighbors lands anywhere
    return sum(gains[1:], start=gains[0]), dipoles


def transfer_backward(
    of: Neighborhoods, profile: np.ndarray, amounts: np.ndarray, cutoff: float, by_charges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients by amounts and vectors, given that by the charges (n_atoms,)."""
    vectors = of[0]
    # zeros: the kernel skips padding and neighbors beyond the cutoff
    by_amounts, by_vectors = np.empty_like(amounts), np.zeros_like(vectors)
    arguments = *of, profile, amounts, cutoff, by_charges, by_amounts, by_vectors
    run_over_atoms(
        _kernel(True, amounts.shape[1], vectors.dtype.name), arguments, len(vectors), torch.get_num_threads()
    )
    return by_amounts, by_vectors


@lru_cache(maxsize=8)
def _kernel(backward: bool, n_channels: int, precision: str) -> Any:
    kernel = _backward(n_channels) if backward else _forward(n_channels)
    return compiled(kernel, "transfers", "backward" if backward else "forward", n_channels, precision)


@inlined
def collect(vectors, mask, atom, inverse, columns, fadings):
    """Write the columns of the neighbors within the cutoff and 1 - r^2 / cutoff^2 of each; return their number."""
    count = 0
    for column in range(mask.shape[1]):
        x, y, z = vectors[atom, column, 0], vectors[atom, column, 1], vectors[atom, column, 2]
        fading = 1 - (x * x + y * y + z * z) * inverse
        # `not <=`: NaN counts as a neighbor, so that it shows in the result
        if mask[atom, column] and not fading <= 0:
            columns[count], fadings[count] = column, fading
            count += 1
    return count


@inlined
def _weight(profile, channel, element, p4, p8, p16, p32):
    """Return the weight of a neighbor for one channel."""
    return (
        profile[channel, element, 0] * p4
        + profile[channel, element, 1] * p8
        + profile[channel, element, 2] * p16
        + profile[channel, element, 3] * p32
    )


@inlined
def weigh(species, neighbors, profile, atom, columns, fadings, count, n_channels, weights, sums):
    """Write the weights of the neighbors of an atom for each channel, and their sums plus one."""
    for channel in range(n_channels):
        sums[channel] = 1
    for k in range(count):
        p2 = fadings[k] * fadings[k]
        p4 = p2 * p2
        p8 = p4 * p4
        p16 = p8 * p8
        element = species[neighbors[atom, columns[k]]]
        for channel in range(n_channels):
            weight = _weight(profile, channel, element, p4, p8, p16, p16 * p16)
            weights[k, channel] = weight
            sums[channel] += weight


@inlined
def slope_of_weight(profile, element, fading, along, means, factors, n_channels, inverse):
    """Return the derivative by a vector over the vector, through the weights of this neighbor.

    `along` is the gradient T by what the neighbor gets, `means` are S / (1 + W) and `factors` a / (1 + W).
    """
    p2 = fading * fading
    p3 = p2 * fading
    p4 = p2 * p2
    p7 = p4 * p3
    p15 = p7 * p4 * p4
    p31 = p15 * p15 * fading
    slope = 0.0
    for channel in range(n_channels):
        by_weight = factors[channel] * (along - means[channel])
        slope += by_weight * _weight(profile, channel, element, 4 * p3, 8 * p7, 16 * p15, 32 * p31)
    # d fading / d vector = -2 vector / cutoff^2
    return slope * (-2 * inverse)


def _forward(n_channels: int) -> Any:
    """Return the kernel of `transfer` for atoms `first` to `last`."""

    def kernel(vectors, mask, species, neighbors, profile, amounts, cutoff, dipoles, first, last):
        kind = vectors.dtype.type
        inverse = kind(1 / cutoff**2)
        gains = np.zeros(len(species), vectors.dtype)
        columns, fadings = np.empty(mask.shape[1], np.int64), np.empty(mask.shape[1], vectors.dtype)
        weights, sums = np.empty((mask.shape[1], n_channels), vectors.dtype), np.empty(n_channels, vectors.dtype)
        for atom in range(first, last):
            count = collect(vectors, mask, atom, inverse, columns, fadings)
            weigh(species, neighbors, profile, atom, columns, fadings, count, n_channels, weights, sums)
            for channel in range(n_channels):
                sums[channel] = amounts[atom, channel] / sums[channel]
            gain, x, y, z = kind(0), kind(0), kind(0), kind(0)
            for k in range(count):
                column, taken = columns[k], kind(0)
                for channel in range(n_channels):
                    taken += sums[channel] * weights[k, channel]
                gain += taken
                gains[neighbors[atom, column]] -= taken
                x -= taken * vectors[atom, column, 0]
                y -= taken * vectors[atom, column, 1]
                z -= taken * vectors[atom, column, 2]
            gains[atom] += gain
            dipoles[atom, 0], dipoles[atom, 1], dipoles[atom, 2] = x, y, z
        return gains

    return kernel


def _backward(n_channels: int) -> Any:
    """Return the kernel of `transfer_backward` for atoms `first` to `last`."""

    def kernel(
        vectors, mask, species, neighbors, profile, amounts, cutoff, by_charges, by_amounts, by_vectors, first, last
    ):
        kind = vectors.dtype.type
        inverse = kind(1 / cutoff**2)
        columns, fadings = np.empty(mask.shape[1], np.int64), np.empty(mask.shape[1], vectors.dtype)
        weights, sums = np.empty((mask.shape[1], n_channels), vectors.dtype), np.empty(n_channels, vectors.dtype)
        shares = np.empty(n_channels, vectors.dtype)
        for atom in range(first, last):
            count = collect(vectors, mask, atom, inverse, columns, fadings)
            weigh(species, neighbors, profile, atom, columns, fadings, count, n_channels, weights, sums)
            shares[:] = 0
            for k in range(count):
                # the atom gains what the neighbor loses
                along = by_charges[atom] - by_charges[neighbors[atom, columns[k]]]
                for channel in range(n_channels):
                    shares[channel] += along * weights[k, channel]
            for channel in range(n_channels):
                shares[channel] /= sums[channel]
                by_amounts[atom, channel] = shares[channel]
                sums[channel] = amounts[atom, channel] / sums[channel]
            for k in range(count):
                column = columns[k]
                neighbor = neighbors[atom, column]
                element, along = species[neighbor], by_charges[atom] - by_charges[neighbor]
                slope = slope_of_weight(profile, element, fadings[k], along, shares, sums, n_channels, inverse)
                for axis in range(3):
                    by_vectors[atom, column, axis] = slope * vectors[atom, column, axis]

    return kernel
