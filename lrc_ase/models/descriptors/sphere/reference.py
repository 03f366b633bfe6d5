"""Moments and averages in plain torch: any device, differentiable to any order.

The compiled engine of the CPU is tested against these, and leaves to them the derivatives that nothing needs often.
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
"""Values on the sphere, per factor, that are worked on at once."""


def moments_reference(
    vectors: Tensor,
    mask: Tensor,
    species: Tensor,
    neighbors: Tensor,
    shape: SphereShape,
    weights: Tensor | None = None,
) -> Tensor:
    """The sums over neighbors of radial functions times harmonics; see `moments`."""
    if weights is None:
        weights = nn.functional.one_hot(species[neighbors], shape.n_weights).to(vectors)
    n_atoms = vectors.shape[0]
    vectors, distances, envelope = distances_and_envelope(vectors, mask, shape.cutoff)
    radial = _radial(distances / shape.cutoff, envelope, shape)  # (n_atoms, n_neighbors, n_radial)
    radial = (weights[..., None] * radial[..., None, :]).flatten(-2)
    monomials = _monomials(vectors / distances[..., None], shape.max_degree)  # (n_atoms, n_neighbors, n_monomials)
    sums = torch.matmul(monomials.transpose(-1, -2), radial)  # (n_atoms, n_monomials, n_inputs)
    spherical = torch.from_numpy(_harmonics_of_monomials(shape.max_degree)).to(sums)
    return torch.matmul(spherical, sums.transpose(0, 1).flatten(1)).reshape(-1, n_atoms, sums.shape[-1])


def averages_reference(channels: Tensor, shape: SphereShape) -> Tensor:
    """The averages over the sphere of products of one, two, ... factors; see `averages`."""
    # in pieces whose values on the sphere fit a cache: this is where the time goes
    harmonics, weights = _grid(shape.degrees)
    per_atom = len(weights) * shape.n_channels
    pieces = torch.split(channels, max(1, _PIECE_ELEMENTS // per_atom), dim=1)
    grid = torch.from_numpy(harmonics).to(channels), torch.from_numpy(weights).to(channels)
    return torch.cat([_averages(piece, *grid, shape) for piece in pieces])


def independent(*tensors: Tensor) -> list[Tensor]:
    """The same tensors as variables of their own, for partial derivatives; their graphs go on behind."""
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
    """Monomials of the two highest degrees, which span all harmonics up to the highest on the unit sphere."""
    axes = directions.unbind(dim=-1)
    # each from one of a degree less: many small products are faster than few with gathered columns
    known = {(0, 0, 0): torch.ones_like(axes[0])}
    for degree in range(1, max_degree + 1):
        for exponents in _exponents(degree):
            axis = next(axis for axis in range(3) if exponents[axis] > 0)
            a, b, c = exponents
            lower = (a - (axis == 0), b - (axis == 1), c - (axis == 2))
            known[exponents] = axes[axis] if degree == 1 else known[lower] * axes[axis]
    return torch.stack([known[exponents] for exponents in _spanning_exponents(max_degree)], dim=-1)


def _exponents(degree: int) -> list[tuple[int, int, int]]:
    """(a, b, c) of all monomials x^a y^b z^c with a + b + c = degree; none for a negative one."""
    return [(a, b, degree - a - b) for a in range(degree + 1) for b in range(degree + 1 - a)]


def _spanning_exponents(max_degree: int) -> list[tuple[int, int, int]]:
    return _exponents(max_degree) + _exponents(max_degree - 1)


@lru_cache(maxsize=16)
def _harmonics_of_monomials(max_degree: int) -> np.ndarray:
    """Matrix (n_lm, n_monomials) that turns the monomials into harmonics, fitted on more than enough directions."""
    directions = np.random.default_rng(0).normal(size=(20 * (max_degree + 1) ** 2, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x, y, z = directions.T
    monomials = np.stack([x**a * y**b * z**c for a, b, c in _spanning_exponents(max_degree)], axis=-1)
    return np.linalg.lstsq(monomials, _ordered_harmonics(directions, max_degree), rcond=None)[0].T.copy()


@lru_cache(maxsize=16)
def _grid(degrees: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Harmonics (n_factors, n_points, n_lm), zero above each factor's degree, times sqrt(4 pi), and the weights."""
    rule = quadrature(sum(degrees))
    orbits = [rule.orbit(index) for index in range(len(rule.points))]
    weights = np.concatenate([np.full(len(orbit), rule.weights[index]) for index, orbit in enumerate(orbits)])
    harmonics = math.sqrt(4 * math.pi) * _ordered_harmonics(np.concatenate(orbits), max(degrees))
    degree_of = np.array([degree for degree, _ in harmonic_order(max(degrees))])
    return np.stack([np.where(degree_of <= degree, harmonics, 0.0) for degree in degrees]), weights


def _ordered_harmonics(directions: np.ndarray, max_degree: int) -> np.ndarray:
    columns = [degree * (degree + 1) + order for degree, order in harmonic_order(max_degree)]
    return real_spherical_harmonics(directions, max_degree)[:, columns]
