"""Features of the sphere descriptor, with their derivatives by the vectors to neighbors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.descriptors.sphere.compiled_moments import Neighborhoods, moment, moment_backward
from lrc_ase.models.inference.block_averages import BlockAverages
from lrc_ase.models.inference.plan import Plan
from lrc_ase.models.inference.second_block import MessageMoments, WeighedMoments

__all__ = ["SphereFeatures"]


class SphereFeatures:
    """Features of a descriptor with one block or two; the kernels of the moments are those of training."""

    def __init__(self, descriptor: SphereDescriptor) -> None:
        self._shape = descriptor.shape
        self._first = BlockAverages(descriptor, descriptor.mixing + descriptor.element_mixing, descriptor.shape)
        self._second: WeighedMoments | MessageMoments | None = None
        if descriptor.settings.n_blocks == 2:
            self._second = (MessageMoments if descriptor.settings.neighbor_degree else WeighedMoments)(descriptor)
            mixing = self._second.mixing(descriptor.second_mixing + descriptor.second_element_mixing)
            self._averages = BlockAverages(descriptor, mixing, descriptor.second_shape)
        self._around: tuple[np.ndarray, np.ndarray, np.ndarray]
        self._of: Neighborhoods

    def prepare(self, plan: Plan) -> None:
        """Set the neighbors of the atoms."""
        graph = plan.graph
        self._around = graph.neighbor_mask.numpy(), graph.species.numpy(), graph.neighbors.numpy()
        if self._second is not None:
            self._second.prepare(graph)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return the features, (n_atoms, n_features), of vectors (n_atoms, n_neighbors, 3)."""
        shape = self._shape
        self._of = (vectors.numpy(), *self._around)
        moments = vectors.new_empty(shape.n_harmonics, len(vectors), shape.n_inputs)
        moment(self._of, None, moments.numpy(), shape, torch.get_num_threads())
        features, directed = self._first(moments, self._around[1])
        if self._second is None:
            return features
        second, _ = self._averages(self._second(features, directed, self._of), self._around[1])
        return torch.cat([features, second], dim=1)

    def pull(self, by_features: Tensor) -> Tensor:
        """Return the gradient by the vectors, given that by the features."""
        by_directed, by_vectors_too = None, None
        if self._second is not None:
            by_features, by_second = by_features.chunk(2, dim=1)
            by_moments = self._averages.pull(by_second.contiguous(), None)
            by_features_too, by_directed, by_vectors_too = self._second.pull(by_moments)
            by_features = by_features + by_features_too
        by_moments = self._first.pull(by_features, by_directed)
        # zeros: the kernel skips padding and neighbors beyond the cutoff
        by_vectors = np.zeros_like(self._of[0])
        moment_backward(self._of, None, by_moments.numpy(), by_vectors, None, self._shape, torch.get_num_threads())
        if by_vectors_too is not None:
            by_vectors += by_vectors_too
        return torch.from_numpy(by_vectors)
