"""Sizes and constants of a sphere descriptor, shared by its two engines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["SphereShape", "radial_scale", "smoothness"]


@dataclass(frozen=True)
class SphereShape:
    """Sizes and constants of a density: plain numbers, hashable, so that tables can be cached per shape."""

    degrees: tuple[int, ...]
    """Highest degree of each factor."""
    n_channels: int
    n_weights: int
    """Number of weights of a neighbor: one per element, or learned ones."""
    cutoff: float
    """Angstrom."""
    radial_scale: tuple[float, ...]
    """Factor of each radial function."""
    n_vectors: int = 0
    """Number of products, of one, two, ... factors, that are also averaged times the direction. It is less than the
    number of factors: the quadrature, exact for the product of all factors, is exact for these averages too."""

    @cached_property
    def max_degree(self) -> int:
        return max(self.degrees)

    @cached_property
    def n_harmonics(self) -> int:
        return (self.max_degree + 1) ** 2

    @cached_property
    def n_inputs(self) -> int:
        """Return the number of columns: radial functions times weights."""
        return len(self.radial_scale) * self.n_weights


def radial_scale(n_radial: int, average_neighbors: float) -> tuple[float, ...]:
    """Return the factor of each radial function.

    With these factors the density of randomly placed neighbors fluctuates by `smoothness` in each radial function.
    """
    # Gauss-Legendre nodes of [0, 1]; 3 x^2 dx is the distribution of distances in a ball
    nodes, weights = np.polynomial.legendre.leggauss(64)
    x, weights = (nodes + 1) / 2, weights / 2
    envelope = (1 + x**6 * (-28 + x * (48 - 21 * x))) / x
    functions = envelope[:, None] * np.sin(np.pi * x[:, None] * np.arange(1, n_radial + 1))
    # independent neighbors: the variance of the sum is their number times the mean square of one
    variance = average_neighbors * (3 * x**2 * weights) @ functions**2
    # 4 pi: the mean of Y_lm^2 is 1 / 4 pi
    return tuple((smoothness(n_radial) * np.sqrt(4 * np.pi / variance)).tolist())


def smoothness(n_radial: int) -> np.ndarray:
    """Return 1/n for each radial function, of mean square one, so that slowly varying functions are learned first."""
    falling = 1 / np.arange(1, n_radial + 1)
    return np.asarray(falling / np.sqrt(np.mean(falling**2)))
