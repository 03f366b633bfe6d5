"""Sums over all pairs of atoms in open space, and their derivatives, on the CPU, compiled by Numba.

All kernels compute in float64. Pairs are in the order (0, 1), (0, 2), ..., (1, 2), ...
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from lrc_ase.compiled.compilation import compiled, inlined
from lrc_ase.models.inference.radial_table import interval_of

__all__ = ["pair_kernels"]


@lru_cache(maxsize=2)
def pair_kernels(precision: str) -> tuple[Any, Any]:
    """Return the kernels of the sums and of their derivatives; see `lrc_ase.models.inference.pair_field`."""
    return compiled(_sums(), "pairs", "sums", precision), compiled(_pull(), "pairs", "pull", precision)


@inlined
def _between(positions, first, second):
    """Return the vector from the second atom to the first."""
    x, y, z = positions[second, 0], positions[second, 1], positions[second, 2]
    return positions[first, 0] - x, positions[first, 1] - y, positions[first, 2] - z


@inlined
def _add(rows, row, x, y, z):
    """Add a vector to a row."""
    rows[row, 0] += x
    rows[row, 1] += y
    rows[row, 2] += z


def _sums() -> Any:
    """Return the kernel that writes sums (n_atoms, n_channels), and keeps what its derivatives need.

    `kept` (n_pairs, 2 * n_channels + 1) takes kernel values, their derivatives over the distance, and the derivative
    of the first channel's of these over the distance. `gradient` (n_atoms, 3) takes that of the first channel's sums;
    neither is computed for `gradient` of length 0. Returns False if a pair lies outside the table.
    """

    def kernel(positions, weights, table, kept, sums, gradient):
        n_atoms, n_channels = weights.shape
        n_terms, n_columns = table.shape[1], 2 * n_channels
        total = np.zeros((n_atoms, n_channels))
        slopes = np.zeros((n_atoms, 3))
        pair = 0
        for first in range(n_atoms):
            for second in range(first + 1, n_atoms):
                x, y, z = _between(positions, first, second)
                distance = math.sqrt(x * x + y * y + z * z)
                interval, t, rate = interval_of(distance)
                # NaN fails the second comparison
                if not (interval >= 0 and interval < len(table) and distance > 0):
                    return False
                for c in range(n_columns):
                    kept[pair, c] = table[interval, 0, c]
                for term in range(1, n_terms):
                    for c in range(n_columns):
                        kept[pair, c] = kept[pair, c] * t + table[interval, term, c]
                for c in range(n_channels):
                    total[first, c] += kept[pair, c] * weights[second, c]
                    total[second, c] += kept[pair, c] * weights[first, c]
                if len(gradient):
                    slope, derivative = table[interval, 0, n_channels], 0.0
                    for term in range(1, n_terms):
                        derivative = derivative * t + slope
                        slope = slope * t + table[interval, term, n_channels]
                    kept[pair, n_columns] = derivative * rate / distance
                    of_first, of_second = slope * weights[second, 0], -slope * weights[first, 0]
                    _add(slopes, first, of_first * x, of_first * y, of_first * z)
                    _add(slopes, second, of_second * x, of_second * y, of_second * z)
                pair += 1
        sums[:] = total
        gradient[:] = slopes[: len(gradient)]
        return True

    return kernel


def _pull() -> Any:
    """Return the kernel of the derivatives of an energy.

    The energy is that of charges, the first `n_energies` channels, and of what depends on the other sums, with the
    derivatives `by_field`, and on the gradient of the first sum, with the derivatives `by_gradient`, empty for none.
    """

    def kernel(positions, weights, kept, sums, n_energies, constant, by_field, by_gradient, by_weights, by_positions):
        n_atoms, n_channels = weights.shape
        # half of k q: each pair of charges stands in the sum of products below twice
        factors, total = np.empty((n_atoms, n_channels)), np.zeros((n_atoms, n_channels))
        for atom in range(n_atoms):
            for c in range(n_energies):
                factors[atom, c] = 0.5 * constant * weights[atom, c]
                total[atom, c] = constant * sums[atom, c]
            for c in range(n_energies, n_channels):
                factors[atom, c] = by_field[atom, c - n_energies]
        by_positions[:] = 0.0
        pair = 0
        for first in range(n_atoms):
            for second in range(first + 1, n_atoms):
                x, y, z = _between(positions, first, second)
                along = 0.0
                for c in range(n_channels):
                    products = factors[first, c] * weights[second, c] + factors[second, c] * weights[first, c]
                    along += products * kept[pair, n_channels + c]
                for c in range(n_energies, n_channels):
                    total[first, c] += kept[pair, c] * factors[second, c]
                    total[second, c] += kept[pair, c] * factors[first, c]
                px, py, pz = 0.0, 0.0, 0.0
                if len(by_gradient):
                    # c_i q_j - c_j q_i, with the derivatives c by the gradients: the dipoles of the pair
                    slope = kept[pair, n_channels]
                    dx = by_gradient[first, 0] * x + by_gradient[first, 1] * y + by_gradient[first, 2] * z
                    dy = by_gradient[second, 0] * x + by_gradient[second, 1] * y + by_gradient[second, 2] * z
                    total[second, 0] += slope * dx
                    total[first, 0] -= slope * dy
                    q, p = weights[first, 0], weights[second, 0]
                    px = slope * (by_gradient[first, 0] * p - by_gradient[second, 0] * q)
                    py = slope * (by_gradient[first, 1] * p - by_gradient[second, 1] * q)
                    pz = slope * (by_gradient[first, 2] * p - by_gradient[second, 2] * q)
                    along += (dx * p - dy * q) * kept[pair, 2 * n_channels]
                px, py, pz = px + along * x, py + along * y, pz + along * z
                _add(by_positions, first, px, py, pz)
                _add(by_positions, second, -px, -py, -pz)
                pair += 1
        by_weights[:] = total

    return kernel
