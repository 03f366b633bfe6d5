"""What an atom hands on to its neighbors in the second block: K scalars and K vectors from its own surroundings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lrc_ase.models.descriptors.sphere.element_order import ElementOrder
from lrc_ase.models.readout import ReadOut

__all__ = ["BOUND", "MessageBlock"]

BOUND = 2.0
"""Bound of scalars and of the lengths of vectors."""


class MessageBlock(nn.Module):
    r"""Messages of atoms, and the radial functions by which neighbors receive them.

    A network maps the features of an atom to K scalars. Vectors are linear combinations of the vector averages, with
    weights that all elements share plus weights of each element, which start at zero. Scalars and lengths of vectors
    are bounded by :math:`h / \sqrt{1 + h^2 / 4}`: the second density of a geometry far from training then grows no
    faster than the first.
    """

    def __init__(
        self,
        n_messages: int,
        *,
        n_features: int,
        n_vectors: int,
        n_radial: int,
        n_elements: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.network = ReadOut(n_features, n_elements, (4 * n_messages,), generator, n_outputs=n_messages)
        with torch.no_grad():  # numbers of order one that tell elements apart
            bias = self.network.element_bias.weight
            bias.copy_(torch.randn(bias.shape, generator=generator))
        # averages of products with the direction have components of about 0.2
        scale = 5 / math.sqrt(n_vectors)
        self.vector_mixing = nn.Parameter(scale * torch.randn(n_vectors, n_messages, generator=generator))
        self.element_vector_mixing = nn.Parameter(self.vector_mixing.new_zeros(n_elements, n_vectors, n_messages))
        size = 2, n_radial, n_messages
        self.radial_mixing = nn.Parameter(torch.randn(size, generator=generator) / math.sqrt(n_radial))

    def forward(self, features: Tensor, vectors: Tensor, species: Tensor, order: ElementOrder) -> Tensor:
        """Compute messages (n_atoms, 4, K) from features (n_atoms, n_features) and sorted (3, n_atoms, n_vectors)."""
        scalars = self.network(features, species, squeeze=False)
        mixing = self.vector_mixing + self.element_vector_mixing
        mixed = order.unsort(order.multiply(vectors, mixing[:, None]), 1).transpose(0, 1)  # (n_atoms, 3, K)
        messages = torch.cat([scalars[:, None], mixed], dim=1)
        squares = torch.stack([scalars.square(), mixed.square().sum(dim=1)], dim=1)
        bounds = torch.rsqrt(1 + squares / BOUND**2)  # (n_atoms, 2, K), of scalars and vectors
        of_scalars, of_vectors = bounds.split(1, dim=1)
        return messages * torch.cat([of_scalars, of_vectors, of_vectors, of_vectors], dim=1)
