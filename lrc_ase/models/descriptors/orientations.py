"""Directions distributed evenly over the sphere, and random rotations."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

__all__ = ["even_directions", "random_rotation"]

_SHARPNESS = 0.15
"""Exponent of the repulsion per point, chosen so that the first moments of the set nearly vanish."""


def even_directions(n: int) -> np.ndarray:
    r"""Return `n` unit vectors (n, 3) that minimize :math:`\sum_{ij} \exp(0.15\, n\, o_i \cdot o_j)`.

    The minimization starts from a Fibonacci spiral. The mean of a function over the vectors approximates its mean over
    the sphere, for polynomials up to a degree that grows with `n`: 12 vectors form an icosahedron, exact to degree 5.

    >>> directions = even_directions(20)
    >>> bool(abs(directions.T @ directions / 20 - np.eye(3) / 3).max() < 1e-3)
    True
    """
    index = np.arange(n) + 0.5
    height, angle = 1 - 2 * index / n, np.pi * (1 + np.sqrt(5)) * index
    radius = np.sqrt(1 - height**2)
    start = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)

    def repulsion(flat: np.ndarray) -> tuple[float, np.ndarray]:
        points = flat.reshape(n, 3)
        lengths = np.linalg.norm(points, axis=1, keepdims=True)
        unit = points / lengths
        # minus one in the exponent against overflow: a constant factor
        terms = np.exp(_SHARPNESS * n * (unit @ unit.T - 1))
        gradient = 2 * _SHARPNESS * n * terms @ unit
        # only the component along the sphere moves the point; the length of `points` is free
        gradient -= (gradient * unit).sum(axis=1, keepdims=True) * unit
        return float(terms.sum()), (gradient / lengths).ravel()

    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}
    minimum = minimize(repulsion, start.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(n, 3)
    return minimum / np.linalg.norm(minimum, axis=1, keepdims=True)


def random_rotation(generator: torch.Generator | None = None) -> Tensor:
    """Return a random rotation matrix (3, 3), float64, uniform over all rotations."""
    # a uniform unit quaternion gives a uniform rotation
    w, x, y, z = torch.nn.functional.normalize(torch.randn(4, dtype=torch.float64, generator=generator), dim=0).tolist()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.tensor(rows, dtype=torch.float64)
