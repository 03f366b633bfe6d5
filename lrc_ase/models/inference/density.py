"""Features of the sphere descriptor, with their derivatives by the vectors to neighbors."""

from __future__ import annotations

import numpy as np
import torch

from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.descriptors.sphere.compiled_moments import Neighborhoods, moment, moment_backward
from lrc_ase.models.inference.block_averages import BlockAverages
from lrc_ase.models.inference.plan import Plan
from lrc_ase.models.inference.second_block import MessageMoments, WeighedMoments

__all__ = ["SphereFeatures"]


class SphereFeatures:
    """Features of a descriptor with one block or two; the kernels of the moments are those of training."""

    def __init__(self, descriptor: SphereDescriptor) -> None:
        self._shape, mixing = descriptor.shape, descriptor.mixing + descriptor.element_mixing
        self._first = BlockAverages(descriptor, mixing, descriptor.shape)
        self._n_features = self._n_all = mixing.shape[-1]
        self._second: WeighedMoments | MessageMoments | None = None
        if descriptor.settings.n_blocks == 2:
            self._second = (MessageMoments if descriptor.settings.neighbor_degree else WeighedMoments)(descriptor)
            mixing = self._second.mixing(descriptor.second_mixing + descriptor.second_element_mixing)
            self._averages = BlockAverages(descriptor, mixing, descriptor.second_shape)
            self._n_all += mixing.shape[-1]
        self._around: tuple[np.ndarray, np.ndarray, np.ndarray]
        self._of: Neighborhoods

    def prepare(self, plan: Plan) -> None:
        """Set the neighbors of the atoms."""
        graph = plan.graph
        self._around = graph.neighbor_mask.numpy(), graph.species.numpy(), graph.neighbors.numpy()
        species = graph.of_local(graph.species).numpy()
        self._first.prepare(species)
        if self._second is not None:
            self._second.prepare(graph)
            self._averages.prepare(species)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Return the features, (n_atoms, n_features), of vectors (n_atoms, n_neighbors, 3)."""
        shape, n_atoms = self._shape, len(vectors)
        self._of = (vectors, *self._around)
        moments = np.empty((shape.n_harmonics, n_atoms, shape.n_inputs), vectors.dtype)
        moment(self._of, None, moments, shape, torch.get_num_threads())
        features = np.zeros((n_atoms, self._n_all), vectors.dtype)
        directed = self._first(moments, features, 0)
        if self._second is not None:
            self._averages(self._second(features, directed, self._of), features, self._n_features)
        return features

    def pull(self, by_features: np.ndarray) -> np.ndarray:
        """Return the gradient by the vectors, given that by the features; it may have more columns."""
        by_directed, by_vectors_too = None, None
        if self._second is not None:
            n = self._n_features
            by_moments = self._averages.pull(by_features, n, None)
            by_features_too, by_directed, by_vectors_too = self._second.pull(by_moments)
            by_features[:, :n] += by_features_too[:, :n]
        by_moments = self._first.pull(by_features, 0, by_directed)
        # zeros: the kernel skips padding and neighbors beyond the cutoff
        by_vectors = np.zeros(self._of[0].shape, self._of[0].dtype)
        moment_backward(self._of, None, by_moments, by_vectors, None, self._shape, torch.get_num_threads())
        if by_vectors_too is not None:
            by_vectors += by_vectors_too
        return by_vectors
