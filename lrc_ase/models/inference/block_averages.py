"""Averages over the sphere of a block of the descriptor, from its moments, with their derivatives by these."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.descriptors.sphere.compiled_mixed_averages import Mixing, mixed_average, mixed_average_backward
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["BlockAverages"]


class BlockAverages:
    """Features of a block, and the vectors that it hands on.

    `mixing` (n_elements, n_degrees, n_inputs, n_factors * n_channels) maps moments to channels.
    """

    def __init__(self, descriptor: SphereDescriptor, mixing: Tensor, shape: SphereShape) -> None:
        self._mixing, self._compression = Mixing(mixing.detach().numpy(), shape), descriptor.settings.compression
        self._n_features, self._n_vectors = mixing.shape[-1], shape.n_vectors * shape.n_channels
        self._species = np.empty(0)
        self._moments = self._averages = torch.empty(0)

    def __call__(self, moments: Tensor, species: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return features (n_atoms, n_features) and vectors (3, n_atoms, n_vectors) of moments (n_lm, n_atoms, ...)."""
        n_atoms = len(species)
        averages, vectors = moments.new_empty(n_atoms, self._n_features), moments.new_empty(3, n_atoms, self._n_vectors)
        arrays = averages.numpy(), vectors.numpy()
        mixed_average(moments.numpy(), species, self._mixing, arrays, torch.get_num_threads())
        self._moments, self._averages, self._species = moments, averages, species
        return averages if self._compression is None else _compressed(averages, self._compression), vectors

    def pull(self, by_features: Tensor, by_vectors: Tensor | None) -> Tensor:
        """Return the gradient by the moments, given those by features and vectors, None for zeros."""
        if self._compression is not None:
            by_features = _compressed_pull(by_features, self._averages, self._compression)
        if by_vectors is None:
            by_vectors = by_features.new_zeros(3, len(by_features), self._n_vectors)
        by_moments = torch.empty_like(self._moments)
        weights = by_features.numpy(), by_vectors.numpy()
        arrays = self._moments.numpy(), self._species, self._mixing, weights, by_moments.numpy()
        mixed_average_backward(*arrays, torch.get_num_threads())
        # the largest arrays of a step: the next one has no need of them
        self._moments = self._averages = torch.empty(0)
        return by_moments


def _compressed(features: Tensor, size: float) -> Tensor:
    """Return f (1 + x^2)^(-1/4) of features f, with x = f / size, as the descriptor does."""
    return features * torch.rsqrt(torch.sqrt(1 + (features / size).square()))


def _compressed_pull(gradient: Tensor, features: Tensor, size: float) -> Tensor:
    """Multiply `gradient` by the derivative of `_compressed`, (1 + x^2 / 2) (1 + x^2)^(-5/4)."""
    squares = (features / size).square()
    return gradient * torch.rsqrt(torch.sqrt(1 + squares)) * (1 + 0.5 * squares) / (1 + squares)
