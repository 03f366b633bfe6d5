"""Moments of the second block of the sphere descriptor, in which neighbors hand on features, with derivatives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.compiled.simd import native_width
from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.descriptors.sphere.compiled_messages import message_moment, message_pull
from lrc_ase.models.descriptors.sphere.compiled_moments import Neighborhoods, moment, moment_backward
from lrc_ase.models.descriptors.sphere.message_block import BOUND
from lrc_ase.models.inference.networks import FirstLayers, LaterLayers
from lrc_ase.structures.graph import Graph

__all__ = ["MessageMoments", "WeighedMoments"]

Pulled = tuple[Tensor, Tensor | None, np.ndarray]
"""Gradients by features, by the vectors that the first block hands on, and by the vectors to neighbors."""


class WeighedMoments:
    """Moments of neighbors weighed by scalars that a network makes of their features."""

    def __init__(self, descriptor: SphereDescriptor) -> None:
        self._first, self._later = FirstLayers([descriptor.neighbor_network]), LaterLayers(descriptor.neighbor_network)
        self._shape = descriptor.second_shape
        self._neighbors = torch.empty(0)
        self._of: Neighborhoods
        self._weights = np.empty(0)

    def mixing(self, mixing: Tensor) -> Tensor:
        """Return the matrix of the block (n_elements, n_degrees, n_inputs, n_outputs) for these moments."""
        return mixing

    def prepare(self, graph: Graph) -> None:
        """Set elements and neighbors of the atoms."""
        self._first.prepare(graph)
        self._later.prepare(graph)
        self._neighbors = graph.neighbors

    def __call__(self, features: Tensor, directed: Tensor, of: Neighborhoods) -> Tensor:
        """Return the moments (n_lm, n_atoms, n_inputs) from the features (n_atoms, n_features) of the first block."""
        scalars = self._later(self._first(features)[0])
        weights = scalars.index_select(0, self._neighbors.flatten()).unflatten(0, self._neighbors.shape)
        self._of, self._weights = of, weights.numpy()
        moments = features.new_empty(self._shape.n_harmonics, len(features), self._shape.n_inputs)
        moment(of, self._weights, moments.numpy(), self._shape, torch.get_num_threads())
        return moments

    def pull(self, by_moments: Tensor) -> Pulled:
        """Return the gradients, given that by the moments."""
        by_vectors, by_weights = np.zeros_like(self._of[0]), np.zeros_like(self._weights)
        arrays = by_moments.numpy(), by_vectors, by_weights
        moment_backward(self._of, self._weights, *arrays, self._shape, torch.get_num_threads())
        self._weights = np.empty(0)
        by_scalars = by_moments.new_zeros(by_moments.shape[1], by_weights.shape[-1])
        by_scalars.index_add_(0, self._neighbors.flatten(), torch.from_numpy(by_weights).flatten(0, 1))
        return self._first.pull([self._later.pull(by_scalars)]), None, by_vectors


class MessageMoments:
    r"""Moments of neighbors that hand on K scalars and K vectors h, bounded to :math:`h b`.

    Here :math:`b = (1 + h^2/4)^{-1/2}`. With the gradient g by :math:`h b`, that by h is
    :math:`b g - \tfrac14 b^3 (g \cdot h) h`.
    """

    def __init__(self, descriptor: SphereDescriptor) -> None:
        block = descriptor.message_block
        self._first, self._later = FirstLayers([block.network]), LaterLayers(block.network)
        self._shape = descriptor.second_shape
        self._n_messages = block.radial_mixing.shape[-1]
        # kernels work on whole vectors
        self._missing = -self._n_messages % native_width(block.radial_mixing.element_size(), self._n_messages)
        radial_mixing = nn.functional.pad(block.radial_mixing.detach(), (0, self._missing))
        self._radial_mixing = radial_mixing.contiguous().numpy()
        self._vector_mixing = (block.vector_mixing + block.element_vector_mixing).detach()
        self._ranges: list[tuple[int, slice]] = []
        self._of: Neighborhoods
        self._raw = self._bounds = self._messages = torch.empty(0)

    def mixing(self, mixing: Tensor) -> Tensor:
        """Return the matrix of the block for these moments, with rows of zeros for the numbers that fill vectors."""
        parts = mixing.unflatten(2, (3, -1))  # scalars, raised, lowered
        return nn.functional.pad(parts, (0, 0, 0, self._missing)).flatten(2, 3)

    def prepare(self, graph: Graph) -> None:
        """Set the elements of the atoms, which are sorted by them."""
        self._first.prepare(graph)
        self._later.prepare(graph)
        counts = torch.bincount(graph.species, minlength=len(self._vector_mixing)).tolist()
        ends = np.cumsum(counts).tolist()
        self._ranges = [
            (element, slice(end - count, end))
            for element, (count, end) in enumerate(zip(counts, ends, strict=True))
            if count
        ]

    def __call__(self, features: Tensor, directed: Tensor, of: Neighborhoods) -> Tensor:
        """Return the moments from features and vectors, (3, n_atoms, n_vectors), of the first block."""
        n_atoms, k = len(features), self._n_messages
        raw = features.new_zeros(n_atoms, 4, k + self._missing)
        raw[:, 0, :k] = self._later(self._first(features)[0])
        for element, atoms in self._ranges:
            raw[atoms, 1:, :k] = torch.matmul(directed[:, atoms], self._vector_mixing[element]).transpose(0, 1)
        squares = torch.stack([raw[:, 0].square(), raw[:, 1:].square().sum(dim=1)], dim=1)
        of_kinds = torch.rsqrt(1 + squares / BOUND**2)
        self._bounds = of_kinds[:, [0, 1, 1, 1]]  # of scalars, and of three components of vectors
        self._of, self._raw, self._messages = of, raw, raw * self._bounds
        vectors, mask, _, neighbors = of
        moments = features.new_empty(self._shape.n_harmonics, n_atoms, 3 * (k + self._missing))
        carried = self._messages.numpy(), self._radial_mixing
        message_moment((vectors, mask, neighbors), carried, moments.numpy(), self._shape, torch.get_num_threads())
        return moments

    def pull(self, by_moments: Tensor) -> Pulled:
        """Return the gradients, given that by the moments."""
        vectors, mask, _, neighbors = self._of
        by_vectors, carried, k = np.zeros_like(vectors), (self._messages.numpy(), self._radial_mixing), self._n_messages
        arrays = (vectors, mask, neighbors), carried, by_moments.numpy(), by_vectors
        by_messages, _ = message_pull(*arrays, self._shape, torch.get_num_threads(), by_mixing=False)
        gradient = torch.from_numpy(by_messages)
        products = gradient * self._raw
        along = torch.cat([products[:, :1], products[:, 1:].sum(dim=1, keepdim=True).expand(-1, 3, -1)], dim=1)
        by_raw = self._bounds * gradient - along * self._raw * self._bounds**3 / BOUND**2
        by_features = self._first.pull([self._later.pull(by_raw[:, 0, :k])])
        by_directed = by_features.new_empty(3, len(by_features), self._vector_mixing.shape[1])
        for element, atoms in self._ranges:
            by_mixed = by_raw[atoms, 1:, :k].transpose(0, 1)  # (3, n_atoms, K)
            by_directed[:, atoms] = torch.matmul(by_mixed, self._vector_mixing[element].T)
        return by_features, by_directed, by_vectors
