r"""Field of latent weights in a small open structure, by all pairs, with its derivatives.

With charges q of energy :math:`E = k \sum_{i<j} q_i q_j \phi(r_{ij})`, other weights f, their field v and
:math:`g = \partial E_{tot} / \partial v`:

.. math:: \frac{\partial}{\partial q_i} = k \sum_{j \ne i} \phi(r_{ij}) q_j, \quad
          \frac{\partial}{\partial f_i} = \sum_{j \ne i} \phi(r_{ij}) g_j, \quad
          \frac{\partial}{\partial x_i} = \sum_{j \ne i} \big(k q_i q_j \phi' + (g_i f_j + g_j f_i) \phi'\big)
          \frac{x_i - x_j}{r_{ij}}

with the kernel of the weight's channel (`lrc_ase.layer.direct` by autograd). Dipoles need the gradient
:math:`s_i = \sum_{j \ne i} q_j \phi' (x_i - x_j) / r_{ij}` of the charges' potential too, and its derivatives.
"""

from __future__ import annotations

import numpy as np
import torch

from lrc_ase.models.inference.compiled_pairs import pair_kernels
from lrc_ase.models.inference.field import FieldValues, electrostatic_energy
from lrc_ase.models.inference.radial_table import radial_table
from lrc_ase.models.long_range import COULOMB_CONSTANT, LongRangePart
from lrc_ase.structures.graph import Graph

__all__ = ["PairField"]

_REACH = 2.0
"""Distances that tables hold, in units of the structure's diameter."""


class PairField:
    """Field in open space of so few atoms that the layer sums over pairs too; see `serves`."""

    def __init__(self, part: LongRangePart, graph: Graph, dtype: torch.dtype) -> None:
        self._multiplier = part.convolution.multiplier
        n_atoms, n_channels = len(graph.positions), self._multiplier.n_channels
        self._n_energies, self._has_dipoles = int(part.settings.electrostatics), part.response is not None
        self._table = self._tabulated(graph.positions.numpy())
        self._sums, self._pull = pair_kernels(str(dtype)[6:])
        self._kept = np.empty((n_atoms * (n_atoms - 1) // 2, 2 * n_channels + 1))
        self._weights = self._positions = self._potential = np.empty(0)

    @staticmethod
    def serves(part: LongRangePart, graph: Graph) -> bool:
        """Return True for a structure of which the layer sums pairs."""
        return not graph.pbc.any() and part.convolution.sums_pairs(len(graph.positions))

    def __call__(self, weights: np.ndarray, positions: np.ndarray) -> FieldValues:
        """Convolve weights (n_atoms, n_weights), charges first, at positions (n_atoms, 3)."""
        n, sums = self._n_energies, np.empty_like(weights)
        gradient = np.empty((len(weights) if self._has_dipoles else 0, 3), weights.dtype)
        arguments = weights, self._table, self._kept, sums, gradient
        if not self._sums(positions, *arguments):
            self._table = self._tabulated(positions)  # with a wide skin atoms go far without a search
            if not self._sums(positions, weights, self._table, *arguments[2:]):
                # atoms at one position, or positions that are not finite
                sums[...], gradient[...], self._kept[...] = np.nan, np.nan, np.nan
        self._weights, self._positions, self._potential = weights, positions, sums
        potential, field = sums[:, :n], sums[:, n:]
        energy = electrostatic_energy(weights[:, :n], potential)
        return FieldValues(energy, potential, field, gradient if self._has_dipoles else None)

    def _tabulated(self, positions: np.ndarray) -> np.ndarray:
        """Return the table of the kernel for a structure and its next steps."""
        diameter = float(np.linalg.norm(np.ptp(positions, axis=0)))
        return radial_table(self._multiplier, 1.0 + _REACH * diameter if np.isfinite(diameter) else 1.0)

    def pull(self, by_field: np.ndarray, by_gradient: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients by weights (n_atoms, n_weights) and positions (n_atoms, 3)."""
        weights, positions = self._weights, self._positions
        if by_gradient is None:
            by_gradient = np.empty((0, 3), weights.dtype)
        by_weights, by_positions = np.empty_like(weights), np.empty_like(positions)
        self._pull(
            positions, weights, self._kept, self._potential, self._n_energies, COULOMB_CONSTANT,
            np.ascontiguousarray(by_field), by_gradient, by_weights, by_positions,
        )  # fmt: skip
        return by_weights, by_positions

    def virial(self) -> np.ndarray:
        """Raise an error: a stress needs three periodic directions."""
        raise ValueError("the stress needs three periodic directions")
