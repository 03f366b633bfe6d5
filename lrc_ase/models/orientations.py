r"""Orientations at long range: tensors of the atoms, convolved like latent weights, and invariants of their fields.

.. math:: T_i = a_i \sum_k g_{z_k}(r_{ik})\, \big(\hat r_{ik} \otimes \hat r_{ik} - \tfrac13\big), \qquad
          U_i = \sum_j \phi(x_i - x_j)\, T_j,

with amounts a from the descriptor and radial functions g of the edges. The scalar kernel acts on each component alike,
so U turns with the structure. It tells an atom how groups far away are oriented, which no field of scalar weights does.
An atom reads U by its products with tensors of its own edges, with :math:`v \otimes w` of vectors
:math:`v = a \sum_k g\, \hat r_{ik}` (the bend of a chain, say), and with itself: all invariant under rotation.

Symmetric traceless tensors are five numbers in an orthonormal basis, so that the sum of their products is the
contraction of the tensors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lrc_ase.models.radial import POWERS, radial_functions
from lrc_ase.structures.graph import Graph

__all__ = ["N_COMPONENTS", "Orientations", "Oriented"]

N_COMPONENTS = 5
"""Components of a symmetric traceless tensor."""
_N_READING = 2
"""Vectors, and as many tensors, of its own edges by which an atom reads the fields."""


class Oriented(NamedTuple):
    """Tensors of the local atoms."""

    spread: Tensor
    """Tensors to be convolved, (n_local, n_tensors, 5)."""
    reading: Tensor
    """Tensors by which an atom reads the fields, (n_local, n_reading, 5)."""

    def invariants(self, fields: Tensor) -> Tensor:
        """Contract the fields (n_local, n_tensors, 5) with tensors and among themselves, (n_local, n_invariants)."""
        read = torch.bmm(self.reading, fields.mT)  # (n_local, n_reading, n_tensors)
        return torch.cat([read.flatten(1), torch.bmm(fields, fields.mT).flatten(1)], dim=1)


class Orientations(nn.Module):
    """Tensors of each atom from the vectors to its neighbors; see the module's formulas."""

    def __init__(self, n_elements: int, *, cutoff: float, n_tensors: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.cutoff, self.n_elements, self.n_tensors = cutoff, n_elements, n_tensors
        n_moments = len(POWERS) * n_elements
        scale = 1 / math.sqrt(n_moments)
        self.vectors = nn.Parameter(scale * torch.randn(n_moments, _N_READING, generator=generator))
        self.tensors = nn.Parameter(scale * torch.randn(n_moments, n_tensors + _N_READING, generator=generator))
        """Functions g as sums of radial functions of each element, (n_powers * n_elements, n)."""
        self.n_amounts = n_tensors + 2 * _N_READING
        """Amounts per atom: of the vectors, of the tensors to be spread, and of the tensors to read with."""
        n_reading = _N_READING + _N_READING * (_N_READING + 1) // 2
        self.n_invariants = n_reading * n_tensors + n_tensors**2

    def forward(self, vectors: Tensor, graph: Graph, amounts: Tensor) -> Oriented:
        """Compute tensors from amounts (n_local, n_amounts) and vectors to neighbors (n_local, n_neighbors, 3)."""
        functions, squares = radial_functions(vectors, graph, self.cutoff)
        kinds = graph.species[graph.neighbors]
        of_element = kinds[:, None] == torch.arange(self.n_elements, device=kinds.device)[:, None]
        # (n_local, n_powers * n_elements, n_neighbors)
        functions = (functions.transpose(0, 1)[:, :, None] * of_element[:, None]).flatten(1, 2)
        # padding points at the atom itself: a length of 1 keeps the derivative finite
        unit = vectors * torch.where(graph.neighbor_mask, squares, 1.0).rsqrt()[..., None]
        moments = torch.bmm(functions, torch.cat([unit, _product(unit, unit)], dim=-1))  # (n_local, n_moments, 3 + 5)
        of_vectors, of_tensors = amounts.split([_N_READING, self.n_tensors + _N_READING], dim=1)
        # (n_local, 3, n_moments) @ (n_moments, n)
        own_vectors = torch.matmul(moments[..., :3].mT, self.vectors).mT * of_vectors[..., None]
        tensors = torch.matmul(moments[..., 3:].mT, self.tensors).mT * of_tensors[..., None]
        spread, reading = tensors.split([self.n_tensors, _N_READING], dim=1)
        first, second = torch.triu_indices(_N_READING, _N_READING, device=kinds.device)
        return Oriented(spread, torch.cat([reading, _product(own_vectors[:, first], own_vectors[:, second])], dim=1))


def _product(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the symmetric part of :math:`v \otimes w` without its trace, (..., 3) -> (..., 5), orthonormal basis."""
    x, y, z = first.unbind(dim=-1)
    a, b, c = second.unbind(dim=-1)
    root = math.sqrt(2)
    components = [(x * b + y * a) / root, (y * c + z * b) / root, (z * a + x * c) / root, (x * a - y * b) / root]
    return torch.stack([*components, (2 * z * c - x * a - y * b) / math.sqrt(6)], dim=-1)
