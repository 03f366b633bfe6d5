"""Moments of the second block of the sphere descriptor, in which neighbors hand on features, with derivatives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.compiled.simd import native_width
from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.descriptors.sphere.compiled_messages import message_moment, message_pull
from lrc_ase.models.descriptors.sphere.compiled_moments import Neighborhoods, moment, moment_backward
from lrc_ase.models.inference.compiled_bounds import bound_messages, pull_bounds
from lrc_ase.models.inference.networks import Columns, FirstLayers, LaterLayers, Layers
from lrc_ase.structures.graph import Graph

__all__ = ["MessageMoments", "WeighedMoments"]

Pulled = tuple[np.ndarray, np.ndarray | None, np.ndarray]
"""Gradients by features, by the vectors that the first block hands on, and by the vectors to neighbors."""

_NOTHING = np.empty(0)


class WeighedMoments:
    """Moments of neighbors weighed by scalars that a network makes of their features."""

    def __init__(self, descriptor: SphereDescriptor) -> None:
        self._first, self._later = FirstLayers([descriptor.neighbor_network]), LaterLayers(descriptor.neighbor_network)
        self._shape = descriptor.second_shape
        self._n_scalars = descriptor.neighbor_network.last.out_features
        self._graph: Graph
        self._neighbors = np.empty((0, 0), np.int64)
        self._of: Neighborhoods
        self._hidden = self._weights = _NOTHING

    def mixing(self, mixing: Tensor) -> Tensor:
        """Return the matrix of the block (n_elements, n_degrees, n_inputs, n_outputs) for these moments."""
        return mixing

    def prepare(self, graph: Graph) -> None:
        """Set elements and neighbors of the atoms."""
        self._first.prepare(graph)
        self._later.prepare(graph)
        self._graph, self._neighbors = graph, graph.neighbors.numpy()

    def __call__(self, features: np.ndarray, directed: np.ndarray, of: Neighborhoods) -> np.ndarray:
        """Return the moments (n_lm, n_atoms, n_inputs) from the features (n_atoms, n_features) of the first block."""
        self._hidden = self._first(features)
        scalars = self._later(Columns(self._hidden))[:, : self._n_scalars]
        self._of, self._weights = of, self._graph.copy_to_ghosts(torch.from_numpy(scalars)).numpy()[self._neighbors]
        moments = np.empty((self._shape.n_harmonics, len(features), self._shape.n_inputs), features.dtype)
        moment(of, self._weights, moments, self._shape, torch.get_num_threads())
        return moments

    def pull(self, by_moments: np.ndarray) -> Pulled:
        """Return the gradients, given that by the moments."""
        by_vectors, by_weights = (
            np.zeros(self._of[0].shape, self._of[0].dtype),
            np.zeros(self._weights.shape, self._weights.dtype),
        )
        arrays = by_moments, by_vectors, by_weights
        moment_backward(self._of, self._weights, *arrays, self._shape, torch.get_num_threads())
        by_scalars = torch.zeros(self._graph.n_atoms, self._n_scalars, dtype=torch.from_numpy(by_weights).dtype)
        by_scalars.index_add_(
            0, torch.from_numpy(self._neighbors).flatten(), torch.from_numpy(by_weights).flatten(0, 1)
        )
        by_hidden, self._hidden, self._weights = np.zeros_like(self._hidden), _NOTHING, _NOTHING
        self._later.pull(self._graph.sum_to_owners(by_scalars).numpy(), by_hidden)
        return self._first.pull(by_hidden), None, by_vectors


class MessageMoments:
    """Moments of neighbors that hand on K scalars and K vectors, both bounded (`compiled_bounds`)."""

    def __init__(self, descriptor: SphereDescriptor) -> None:
        block = descriptor.message_block
        self._first, self._later = FirstLayers([block.network]), LaterLayers(block.network)
        self._shape = descriptor.second_shape
        self._n_messages = block.radial_mixing.shape[-1]
        # kernels work on whole vectors
        self._missing = -self._n_messages % native_width(block.radial_mixing.element_size(), self._n_messages)
        radial_mixing = nn.functional.pad(block.radial_mixing.detach(), (0, self._missing))
        self._radial_mixing = radial_mixing.contiguous().numpy()
        self._n_vectors = len(block.vector_mixing)
        vector_mixing = (block.vector_mixing + block.element_vector_mixing).transpose(1, 2)
        self._vector_mixing = Layers(
            [vector_mixing], [vector_mixing.new_zeros(vector_mixing.shape[:2])], is_active=False
        )
        self._graph: Graph
        self._of: Neighborhoods
        self._hidden = self._messages = _NOTHING
        self._raw: tuple[np.ndarray, np.ndarray] = _NOTHING, _NOTHING

    def mixing(self, mixing: Tensor) -> Tensor:
        """Return the matrix of the block for these moments, with rows of zeros for the numbers that fill vectors."""
        parts = mixing.unflatten(2, (3, -1))  # scalars, raised, lowered
        return nn.functional.pad(parts, (0, 0, 0, self._missing)).flatten(2, 3)

    def prepare(self, graph: Graph) -> None:
        """Set the elements of the atoms, which are sorted by them."""
        self._graph = graph
        self._first.prepare(graph)
        self._later.prepare(graph)
        self._vector_mixing.prepare(np.tile(graph.of_local(graph.species).numpy(), 3))  # a row for each component

    def __call__(self, features: np.ndarray, directed: np.ndarray, of: Neighborhoods) -> np.ndarray:
        """Return the moments from features and vectors, (3, n_atoms, n_vectors), of the first block."""
        n_atoms, n_columns = len(directed[0]), self._n_messages + self._missing
        self._hidden = self._first(features)
        scalars, components = self._later(Columns(self._hidden)), self._vector_mixing.rows(-1)
        self._vector_mixing(Columns(directed.reshape(3 * n_atoms, directed.shape[2])), Columns(components))
        vectors = components.reshape(3, n_atoms, components.shape[1])
        messages = np.zeros((n_atoms, 4, n_columns), features.dtype)  # zeros: some columns fill vectors
        bound_messages(scalars, vectors, self._n_messages, messages)
        messages = self._graph.copy_to_ghosts(torch.from_numpy(messages)).numpy()
        self._of, self._raw, self._messages = of, (scalars, vectors), messages
        neighborhoods = of[0], of[1], of[3]
        moments = np.empty((self._shape.n_harmonics, n_atoms, 3 * n_columns), features.dtype)
        carried = messages, self._radial_mixing
        message_moment(neighborhoods, carried, moments, self._shape, torch.get_num_threads())
        return moments

    def pull(self, by_moments: np.ndarray) -> Pulled:
        """Return the gradients, given that by the moments."""
        vectors, mask, _, neighbors = self._of
        by_vectors, carried = np.zeros(vectors.shape, vectors.dtype), (self._messages, self._radial_mixing)
        arrays = (vectors, mask, neighbors), carried, by_moments, by_vectors
        by_messages, _ = message_pull(*arrays, self._shape, torch.get_num_threads(), by_mixing=False)
        by_messages = self._graph.sum_to_owners(torch.from_numpy(by_messages)).numpy()
        scalars, components = self._raw
        by_scalars, by_components = np.zeros_like(scalars), np.zeros_like(components)
        pull_bounds(by_messages, scalars, components, self._n_messages, by_scalars, by_components)
        by_hidden, self._hidden = np.zeros_like(self._hidden), _NOTHING
        self._messages, self._raw = _NOTHING, (_NOTHING, _NOTHING)
        self._later.pull(by_scalars, by_hidden)
        rows = Columns(by_components.reshape(3 * len(vectors), by_components.shape[2]))
        by_directed = self._vector_mixing.pull(rows, self._vector_mixing.rows(0))[:, : self._n_vectors]
        by_directed = np.ascontiguousarray(by_directed).reshape(3, len(vectors), self._n_vectors)
        return self._first.pull(by_hidden), by_directed, by_vectors
