r"""Field of latent weights in a small open structure, by all pairs, with its derivatives.

With charges q of energy :math:`E = k \sum_{i<j} q_i q_j \phi(r_{ij})`, other weights f, their field v and
:math:`g = \partial E_{tot} / \partial v`:

.. math:: \frac{\partial}{\partial q_i} = k \sum_{j \ne i} \phi(r_{ij}) q_j, \quad
          \frac{\partial}{\partial f_i} = \sum_{j \ne i} \phi(r_{ij}) g_j, \quad
          \frac{\partial}{\partial x_i} = \sum_{j \ne i} \big(k q_i q_j \phi' + (g_i f_j + g_j f_i) \phi'\big)
          \frac{x_i - x_j}{r_{ij}}

with the kernel of the weight's channel (`lrc_ase.layer.direct` by autograd).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lrc_ase.models.inference.field import FieldValues
from lrc_ase.models.long_range import COULOMB_CONSTANT, LongRangePart
from lrc_ase.structures.graph import Graph

__all__ = ["PairField"]


class PairField:
    """Field in open space of so few atoms that the layer sums over pairs too; see `serves`."""

    def __init__(self, part: LongRangePart, graph: Graph, dtype: torch.dtype) -> None:
        self._multiplier, self._dtype = part.convolution.multiplier, dtype
        self._first, self._second = torch.triu_indices(len(graph.positions), len(graph.positions), 1)
        self._n_energies = int(part.settings.electrostatics)
        self._weights = self._separations = self._kernel = self._slopes = self._potential = torch.empty(0)

    @staticmethod
    def serves(part: LongRangePart, graph: Graph) -> bool:
        """Return True for a structure of which the layer sums pairs, and a model without dipoles of its atoms."""
        return part.response is None and not graph.pbc.any() and part.convolution.sums_pairs(len(graph.positions))

    def __call__(self, weights: Tensor, positions: Tensor) -> FieldValues:
        """Convolve weights (n_atoms, n_weights), charges first, at positions (n_atoms, 3)."""
        n = self._n_energies
        self._separations = positions[self._first] - positions[self._second]
        distances = self._separations.norm(dim=1)
        self._kernel = self._multiplier.radial(distances).to(self._dtype)
        self._slopes = self._multiplier.radial_slope(distances, weights.shape[1])
        self._weights, self._potential = weights, self._sums(weights)
        potential, field = self._potential[:, :n], self._potential[:, n:]
        energy = 0.5 * COULOMB_CONSTANT * (weights[:, :n] * potential).sum(dtype=torch.float64)
        return FieldValues(energy, potential, field)

    def _sums(self, weights: Tensor) -> Tensor:
        """Sum the kernel times `weights` (n_atoms, n_weights) over all other atoms, the same shape."""
        sums = torch.zeros_like(weights).index_add_(0, self._first, self._kernel * weights[self._second])
        return sums.index_add_(0, self._second, self._kernel * weights[self._first])

    def pull(self, by_field: Tensor, by_gradient: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the gradients by weights (n_atoms, n_weights) and positions (n_atoms, 3)."""
        assert by_gradient is None
        n, weights = self._n_energies, self._weights
        # half of k q: each pair of charges stands in the sum below twice
        factors = torch.cat([0.5 * COULOMB_CONSTANT * weights[:, :n], by_field], dim=1)
        by_weights = self._sums(factors)
        by_weights[:, :n] = COULOMB_CONSTANT * self._potential[:, :n]
        first, second = self._first, self._second
        products = factors[first] * weights[second] + factors[second] * weights[first]
        along = (products * self._slopes).sum(dim=1, dtype=torch.float64)[:, None] * self._separations
        by_positions = torch.zeros(len(weights), 3, dtype=torch.float64)
        return by_weights, by_positions.index_add_(0, first, along).index_add_(0, second, along, alpha=-1)

    def virial(self) -> Tensor:
        """Raise an error: a stress needs three periodic directions."""
        raise ValueError("the stress needs three periodic directions")
