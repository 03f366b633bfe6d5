"""Features of the sphere descriptor, with their derivatives by the vectors to neighbors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.descriptors.sphere.compiled_mixed_averages import Mixing, mixed_average, mixed_average_backward
from lrc_ase.models.descriptors.sphere.compiled_moments import Neighborhoods, moment, moment_backward
from lrc_ase.models.inference.plan import Plan

__all__ = ["SphereFeatures"]


class SphereFeatures:
    """Features of a descriptor with one block; the kernels of the moments are those of training."""

    def __init__(self, descriptor: SphereDescriptor) -> None:
        self._shape, self._compression = descriptor.shape, descriptor.settings.compression
        mixing = (descriptor.mixing + descriptor.element_mixing).detach()
        self._mixing = Mixing(mixing.numpy(), self._shape)
        self._n_features = mixing.shape[-1]
        self._around: tuple[np.ndarray, np.ndarray, np.ndarray]
        self._of: Neighborhoods
        self._moments = self._averages = torch.empty(0)

    def prepare(self, plan: Plan) -> None:
        """Set the neighbors of the atoms."""
        graph = plan.graph
        self._around = graph.neighbor_mask.numpy(), graph.species.numpy(), graph.neighbors.numpy()
        self._none = np.empty((3, graph.n_atoms, 0), self._mixing.arrays[0].dtype)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return the features, (n_atoms, n_features), of vectors (n_atoms, n_neighbors, 3)."""
        shape, n_threads, n_atoms = self._shape, torch.get_num_threads(), len(vectors)
        self._of = (vectors.numpy(), *self._around)
        self._moments = vectors.new_empty(shape.n_harmonics, n_atoms, shape.n_inputs)
        moment(self._of, None, self._moments.numpy(), shape, n_threads)
        self._averages = vectors.new_empty(n_atoms, self._n_features)
        averages = self._averages.numpy(), self._none
        mixed_average(self._moments.numpy(), self._around[1], self._mixing, averages, n_threads)
        return self._averages if self._compression is None else _compressed(self._averages, self._compression)

    def pull(self, by_features: Tensor) -> Tensor:
        """Return the gradient by the vectors, given that by the features."""
        shape, n_threads = self._shape, torch.get_num_threads()
        if self._compression is not None:
            by_features = _compressed_pull(by_features, self._averages, self._compression)
        by_moments = torch.empty_like(self._moments)
        weights = by_features.numpy(), self._none
        species = self._around[1]
        mixed_average_backward(self._moments.numpy(), species, self._mixing, weights, by_moments.numpy(), n_threads)
        # zeros: the kernel skips padding and neighbors beyond the cutoff
        by_vectors = np.zeros_like(self._of[0])
        moment_backward(self._of, None, by_moments.numpy(), by_vectors, None, shape, n_threads)
        return torch.from_numpy(by_vectors)


def _compressed(features: Tensor, size: float) -> Tensor:
    """Return f (1 + x^2)^(-1/4) of features f, with x = f / size, as the descriptor does."""
    return features * torch.rsqrt(torch.sqrt(1 + (features / size).square()))


def _compressed_pull(gradient: Tensor, features: Tensor, size: float) -> Tensor:
    """Multiply `gradient` by the derivative of `_compressed`, (1 + x^2 / 2) (1 + x^2)^(-5/4)."""
    squares = (features / size).square()
    return gradient * torch.rsqrt(torch.sqrt(1 + squares)) * (1 + 0.5 * squares) / (1 + squares)
