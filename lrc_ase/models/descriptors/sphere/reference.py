"""Moments and averages in plain torch: any device, differentiable to any order.

Tests compare the compiled engine with these functions. The compiled engine calls them for derivatives that are rarely
needed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.models.descriptors.envelope import distances_and_envelope
from lrc_ase.models.descriptors.sphere.harmonics import harmonic_order, quadrature, real_spherical_harmonics
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["averages_reference", "independent", "moments_reference"]

_PIECE_ELEMENTS = 50_000
"""Largest number of values on the sphere, per factor, that are evaluated at once."""


def moments_reference(
    vectors: Tensor,
    mask: Tensor,
    species: Tensor,
    neighbors: Tensor,
    shape: SphereShape,
    weights: Tensor | None = None,
) -> Tensor:
    """Sum radial functions times harmonics over neighbors, (n_lm, n_atoms, n_inputs); arguments as in `moments`."""
    if weights is None:
        weights = nn.functional.one_hot(species[neighbors], shape.n_weights).to(vectors)
    n_atoms = vectors.shape[0]
    vectors, distances, envelope = distances_and_envelope(vectors, mask, shape.cutoff)
    radial = _radial(distances / shape.cutoff, envelope, shape)  # (n_atoms, n_neighbors, n_radial)
    # (n_atoms, n_neighbors, n_weights * n_radial)
    radial = (weights[..., None] * radial[..., None, :]).flatten(-2)
    monomials = _monomials(vectors / distances[..., None], shape.max_degree)  # (n_atoms, n_neighbors, n_monomials)
    sums = torch.matmul(monomials.transpose(-1, -2), radial)  # (n_atoms, n_monomials, n_inputs)
    # harmonics are linear in monomials: converting the sums costs less than converting each neighbor
    spherical = torch.from_numpy(_harmonics_of_monomials(shape.max_degree)).to(sums)
    return torch.matmul(spherical, sums.transpose(0, 1).flatten(1)).reshape(-1, n_atoms, sums.shape[-1])


def averages_reference(channels: Tensor, shape: SphereShape) -> Tensor:
    """Average products of one, two, ... factors over the sphere; arguments as in `averages`."""
    # in pieces whose values on the sphere fit a cache: this step takes most of the time
    harmonics, weights = _grid(shape.degrees)
    per_atom = len(weights) * shape.n_channels
    pieces = torch.split(channels, max(1, _PIECE_ELEMENTS // per_atom), dim=1)
    grid = torch.from_numpy(harmonics).to(channels), torch.from_numpy(weights).to(channels)
    return torch.cat([_averages(piece, *grid, shape) for piece in pieces])


def independent(*tensors: Tensor) -> list[Tensor]:
    """Return each tensor as a separate variable for partial derivatives, still connected to its autograd graph.

    Derivatives by the returned views ignore dependences between the tensors. Further derivatives pass through the views
    to the original tensors.
    """
    return [tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_() for tensor in tensors]


def _averages(channels: Tensor, harmonics: Tensor, weights: Tensor, shape: SphereShape) -> Tensor:
    averages = []
    product: Tensor | None = None
    for index in range(len(shape.degrees)):
        columns = slice(index * shape.n_channels, (index + 1) * shape.n_channels)
        factor = torch.matmul(harmonics[index], channels[..., columns].flatten(1))  # (n_points, n_atoms * n_channels)
        product = factor if product is None else product * factor
        averages.append(torch.matmul(weights, product).reshape(channels.shape[1], -1))
    return torch.cat(averages, dim=-1)


def _radial(x: Tensor, envelope: Tensor, shape: SphereShape) -> Tensor:
    orders = torch.arange(1, len(shape.radial_scale) + 1, device=x.device, dtype=x.dtype)
    return torch.sin(math.pi * x[..., None] * orders) * ((envelope / x)[..., None] * x.new_tensor(shape.radial_scale))


def _monomials(directions: Tensor, max_degree: int) -> Tensor:
    """Compute the monomials of the two highest degrees, which span all harmonics on the unit sphere."""
    axes = directions.unbind(dim=-1)
    # each monomial is one of the degree before times a component: many small products are faster than gathered columns
    known = {(0, 0, 0): torch.ones_like(axes[0])}
    for degree in range(1, max_degree + 1):
        for exponents in _exponents(degree):
            axis = next(axis for axis in range(3) if exponents[axis] > 0)
            a, b, c = exponents
            lower = (a - (axis == 0), b - (axis == 1), c - (axis == 2))
            known[exponents] = axes[axis] if degree == 1 else known[lower] * axes[axis]
    return torch.stack([known[exponents] for exponents in _spanning_exponents(max_degree)], dim=-1)


def _exponents(degree: int) -> list[tuple[int, int, int]]:
    """Return (a, b, c) of all monomials x^a y^b z^c with a + b + c = degree; no monomial for a negative degree."""
    return [(a, b, degree - a - b) for a in range(degree + 1) for b in range(degree + 1 - a)]


def _spanning_exponents(max_degree: int) -> list[tuple[int, int, int]]:
    return _exponents(max_degree) + _exponents(max_degree - 1)


@lru_cache(maxsize=16)
def _harmonics_of_monomials(max_degree: int) -> np.ndarray:
    """Return the matrix (n_lm, n_monomials) from monomials to harmonics, fitted to random directions.

    The fit is exact to rounding, as there are many more directions than monomials.
    """
    directions = np.random.default_rng(0).normal(size=(20 * (max_degree + 1) ** 2, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x, y, z = directions.T
    monomials = np.stack([x**a * y**b * z**c for a, b, c in _spanning_exponents(max_degree)], axis=-1)
    return np.linalg.lstsq(monomials, _ordered_harmonics(directions, max_degree), rcond=None)[0].T.copy()


@lru_cache(maxsize=16)
def _grid(degrees: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return harmonics times sqrt(4 pi), (n_factors, n_points, n_lm), zero above each factor's degree, and weights."""
    rule = quadrature(sum(degrees))
    orbits = [rule.orbit(index) for index in range(len(rule.points))]
    weights = np.concatenate([np.full(len(orbit), rule.weights[index]) for index, orbit in enumerate(orbits)])
    harmonics = math.sqrt(4 * math.pi) * _ordered_harmonics(np.concatenate(orbits), max(degrees))
    degree_of = np.array([degree for degree, _ in harmonic_order(max(degrees))])
    return np.stack([np.where(degree_of <= degree, harmonics, 0.0) for degree in degrees]), weights


def _ordered_harmonics(directions: np.ndarray, max_degree: int) -> np.ndarray:
    columns = [degree * (degree + 1) + order for degree, order in harmonic_order(max_degree)]
    return real_spherical_harmonics(directions, max_degree)[:, columns]
