"""Averages over the sphere of a block of the descriptor, from its moments, with their derivatives by these."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.descriptors.sphere.compiled_mixed_averages import Mixing, mixed_average, mixed_average_backward
from lrc_ase.models.descriptors.sphere.shape import SphereShape
from lrc_ase.models.inference.compiled_bounds import compress, pull_compression

__all__ = ["BlockAverages"]


class BlockAverages:
    """Features of a block, and the vectors that it hands on.

    `mixing` (n_elements, n_degrees, n_inputs, n_factors * n_channels) maps moments to channels.
    """

    def __init__(self, descriptor: SphereDescriptor, mixing: Tensor, shape: SphereShape) -> None:
        self._mixing = Mixing(mixing.detach().numpy(), shape)
        compression = descriptor.settings.compression
        self._inverse_size = 0.0 if compression is None else 1 / compression
        self._n_features, self._n_vectors = mixing.shape[-1], shape.n_vectors * shape.n_channels
        self._species = np.empty(0, np.int64)
        self._moments = self._averages = np.empty(0)

    def prepare(self, species: np.ndarray) -> None:
        """Set the elements of the atoms."""
        self._species = species

    def __call__(self, moments: np.ndarray, features: np.ndarray, at: int) -> np.ndarray:
        """Write the features into columns of `features` (n_atoms, n_features of all blocks) from `at` on.

        Return the vectors (3, n_atoms, n_vectors) of moments (n_lm, n_atoms, n_inputs).
        """
        n_atoms, dtype = len(self._species), moments.dtype
        averages, vectors = np.empty((n_atoms, self._n_features), dtype), np.empty((3, n_atoms, self._n_vectors), dtype)
        mixed_average(moments, self._species, self._mixing, (averages, vectors), torch.get_num_threads())
        compress(averages, self._inverse_size, features, at)
        self._moments, self._averages = moments, averages
        return vectors

    def pull(self, by_features: np.ndarray, at: int, by_vectors: np.ndarray | None) -> np.ndarray:
        """Return the gradient by the moments, given those by columns of the features and by vectors, None for zeros."""
        moments, averages, by_averages = self._moments, self._averages, np.empty_like(self._averages)
        pull_compression(by_features, at, averages, self._inverse_size, by_averages)
        if by_vectors is None:
            by_vectors = np.zeros((3, len(averages), self._n_vectors), averages.dtype)
        # the largest arrays of a step: the next one has no need of them
        self._moments = self._averages = np.empty(0)
        # in place of the moments: the kernel reads those of an atom before it writes their gradient
        arrays = moments, self._species, self._mixing, (by_averages, by_vectors), moments
        mixed_average_backward(*arrays, torch.get_num_threads())
        return moments
