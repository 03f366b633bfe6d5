r"""Amounts divided among the neighbors of atoms, and derivatives, on the CPU, compiled by Numba.

With the squared distance s to neighbor k, :math:`\phi_p = (1 - s / r_c^2)^p` and :math:`w_{ck} = \sum_p g_{czp}
\phi_p`, neighbor k gets a share of each amount of atom i,

.. math:: t_k = \sum_c \frac{a_c w_{ck}}{1 + W_c}, \qquad W_c = \sum_k w_{ck}.

Transfers of charge (`lrc_ase.models.charges.TransferredCharges`) move it from neighbor k to atom i; dipoles along edges
(`lrc_ase.models.charges.EdgeDipoles`) are the moment :math:`p = \sum_k t_k r_k`. With the gradients q by the gains of
atoms and g by their moments, that by :math:`t_k` is :math:`T_k = q_i - q_k + g_i \cdot r_k`. With
:math:`S_c = \sum_k T_k w_{ck}`

.. math:: \frac{\partial}{\partial a_c} = \frac{S_c}{1 + W_c}, \qquad
          \frac{\partial}{\partial w_{ck}} = \frac{a_c}{1 + W_c} \Big(T_k - \frac{S_c}{1 + W_c}\Big),

and the vector itself adds :math:`t_k g_i`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lrc_ase.compiled.compilation import PRECISIONS, compiled, inlined
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.models.descriptors.sphere.compiled_moments import Neighborhoods

__all__ = ["divide", "divide_backward"]


def divide(of: Neighborhoods, profile: np.ndarray, amounts: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what each atom, also a ghost, gains from its neighbors, (n_atoms,), and the moment of it, (n_local, 3).

    `profile` (n_amounts, n_elements, 4) holds the weights g of the radial functions, `amounts` (n_atoms, n_amounts)
    what each atom asks for. The moment of an atom counts only what it asks for, not what its neighbors ask of it.
    """
    vectors = of[0]
    moments = np.empty((len(vectors), 3), vectors.dtype)
    gains = _run(False, (*of, profile, amounts, cutoff, moments))
    # each range of atoms has its own array: what an atom takes from its neighbors lands anywhere
    return sum(gains[1:], start=gains[0]), moments


def divide_backward(
    of: Neighborhoods,
    profile: np.ndarray,
    amounts: np.ndarray,
    cutoff: float,
    *,
    by_gains: np.ndarray | None = None,
    by_moments: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients by amounts and vectors, given those by the gains (n_atoms,) and the moments (n_local, 3)."""
    vectors = of[0]
    if by_gains is None:
        by_gains = np.zeros(len(of[2]), vectors.dtype)
    if by_moments is None:
        by_moments = np.zeros((len(vectors), 3), vectors.dtype)
    # zeros: the kernel skips padding and neighbors beyond the cutoff
    by_amounts, by_vectors = np.empty_like(amounts), np.zeros(vectors.shape, vectors.dtype)
    _run(True, (*of, profile, amounts, cutoff, by_gains, by_moments, by_amounts, by_vectors))
    return by_amounts, by_vectors


def _run(backward: bool, arguments: tuple[Any, ...]) -> list[Any]:
    vectors, amounts = arguments[0], arguments[5]
    kernel = _kernel(backward, amounts.shape[1], PRECISIONS[vectors.dtype])
    return run_over_atoms(kernel, arguments, len(vectors), torch.get_num_threads())


@lru_cache(maxsize=8)
def _kernel(backward: bool, n_channels: int, precision: str) -> Any:
    kernel = _backward(n_channels) if backward else _forward(n_channels)
    return compiled(kernel, "amounts", "backward" if backward else "forward", n_channels, precision)


@inlined
def _collect(vectors, mask, atom, inverse, columns, fadings):
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
def _weigh(species, neighbors, profile, atom, columns, fadings, count, n_channels, weights, sums):
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
def _slope_of_weight(profile, element, fading, by_share, means, factors, n_channels, inverse):
    """Return the derivative by a vector over the vector, through the weights of this neighbor.

    `by_share` is the gradient T by what the neighbor gets, `means` are S / (1 + W) and `factors` a / (1 + W).
    """
    p2 = fading * fading
    p3 = p2 * fading
    p4 = p2 * p2
    p7 = p4 * p3
    p15 = p7 * p4 * p4
    p31 = p15 * p15 * fading
    slope = 0.0
    for channel in range(n_channels):
        by_weight = factors[channel] * (by_share - means[channel])
        slope += by_weight * _weight(profile, channel, element, 4 * p3, 8 * p7, 16 * p15, 32 * p31)
    # d fading / d vector = -2 vector / cutoff^2
    return slope * (-2 * inverse)


def _forward(n_channels: int) -> Any:
    """Return the kernel of `divide` for atoms `first` to `last`."""

    def kernel(vectors, mask, species, neighbors, profile, amounts, cutoff, moments, first, last):
        kind = vectors.dtype.type
        inverse = kind(1 / cutoff**2)
        gains = np.zeros(len(species), vectors.dtype)
        columns, fadings = np.empty(mask.shape[1], np.int64), np.empty(mask.shape[1], vectors.dtype)
        weights, sums = np.empty((mask.shape[1], n_channels), vectors.dtype), np.empty(n_channels, vectors.dtype)
        for atom in range(first, last):
            count = _collect(vectors, mask, atom, inverse, columns, fadings)
            _weigh(species, neighbors, profile, atom, columns, fadings, count, n_channels, weights, sums)
            for channel in range(n_channels):
                sums[channel] = amounts[atom, channel] / sums[channel]
            gain, x, y, z = kind(0), kind(0), kind(0), kind(0)
            for k in range(count):
                column, share = columns[k], kind(0)
                for channel in range(n_channels):
                    share += sums[channel] * weights[k, channel]
                gain += share
                gains[neighbors[atom, column]] -= share
                x += share * vectors[atom, column, 0]
                y += share * vectors[atom, column, 1]
                z += share * vectors[atom, column, 2]
            gains[atom] += gain
            moments[atom, 0], moments[atom, 1], moments[atom, 2] = x, y, z
        return gains

    return kernel


def _backward(n_channels: int) -> Any:
    """Return the kernel of `divide_backward` for atoms `first` to `last`."""

    def kernel(
        vectors, mask, species, neighbors, profile, amounts, cutoff, by_gains, by_moments, by_amounts, by_vectors,
        first, last,
    ):  # fmt: skip
        kind = vectors.dtype.type
        inverse = kind(1 / cutoff**2)
        columns, fadings = np.empty(mask.shape[1], np.int64), np.empty(mask.shape[1], vectors.dtype)
        weights, sums = np.empty((mask.shape[1], n_channels), vectors.dtype), np.empty(n_channels, vectors.dtype)
        by_shares, means = np.empty(mask.shape[1], vectors.dtype), np.empty(n_channels, vectors.dtype)
        for atom in range(first, last):
            count = _collect(vectors, mask, atom, inverse, columns, fadings)
            _weigh(species, neighbors, profile, atom, columns, fadings, count, n_channels, weights, sums)
            gx, gy, gz = by_moments[atom, 0], by_moments[atom, 1], by_moments[atom, 2]
            means[:] = 0
            for k in range(count):
                column = columns[k]
                x, y, z = vectors[atom, column, 0], vectors[atom, column, 1], vectors[atom, column, 2]
                # the atom gains what the neighbor loses
                by_shares[k] = by_gains[atom] - by_gains[neighbors[atom, column]] + (gx * x + gy * y + gz * z)
                for channel in range(n_channels):
                    means[channel] += by_shares[k] * weights[k, channel]
            for channel in range(n_channels):
                means[channel] /= sums[channel]
                by_amounts[atom, channel] = means[channel]
                sums[channel] = amounts[atom, channel] / sums[channel]
            for k in range(count):
                column, share = columns[k], kind(0)
                for channel in range(n_channels):
                    share += sums[channel] * weights[k, channel]
                element = species[neighbors[atom, column]]
                slope = _slope_of_weight(profile, element, fadings[k], by_shares[k], means, sums, n_channels, inverse)
                by_vectors[atom, column, 0] = slope * vectors[atom, column, 0] + share * gx
                by_vectors[atom, column, 1] = slope * vectors[atom, column, 1] + share * gy
                by_vectors[atom, column, 2] = slope * vectors[atom, column, 2] + share * gz

    return kernel
