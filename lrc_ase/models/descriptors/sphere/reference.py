"""Moments and averages in plain torch: any device, differentiable to any order.

Tests compare the compiled engine with these functions. The compiled engine calls them for derivatives that are rarely
needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lrc_ase.layer.constants import constant
from lrc_ase.models.descriptors.envelope import distances_and_envelope
from lrc_ase.models.descriptors.sphere.harmonics import (
    gaunt_terms,
    harmonic_order,
    quadrature,
    real_spherical_harmonics,
)
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["averages_reference", "independent", "message_moments_reference", "moments_reference"]

_CPU_PIECE = 50_000
"""Values on the sphere, per factor, that are evaluated at once on the CPU: they fit a cache."""
_GPU_PIECES = 256
"""Bytes of a GPU's memory for each value that is evaluated at once: several dozen tensors are kept for gradients."""


def moments_reference(
    vectors: Tensor,
    mask: Tensor,
    species: Tensor,
    neighbors: Tensor,
    shape: SphereShape,
    weights: Tensor | None = None,
) -> Tensor:
    """Sum radial functions times harmonics over neighbors, (n_lm, n_atoms, n_inputs); arguments as in `moments`."""

    def sums(rows: slice) -> Tensor:
        of_rows = weights[rows] if weights is not None else _of_elements(species[neighbors[rows]], vectors, shape)
        directions, radial = _radial(vectors[rows], mask[rows], shape)
        return _sums((of_rows[..., None] * radial[..., None, :]).flatten(-2), directions, shape)  # columns (k, n)

    return torch.cat(_in_pieces(sums, vectors, neighbors.shape[1] * shape.n_inputs), dim=1)


def message_moments_reference(
    vectors: Tensor, mask: Tensor, neighbors: Tensor, messages: Tensor, mixing: Tensor, shape: SphereShape
) -> Tensor:
    """Sum messages of neighbors, (n_lm, n_atoms, 3 K); arguments as in `message_moments`."""

    def sums_of(rows: slice) -> Tensor:
        directions, radial = _radial(vectors[rows], mask[rows], shape)
        mixed = torch.einsum("abn,pnk->abpk", radial, mixing)  # (n_atoms, n_neighbors, 2, K)
        scalars, of_vectors = mixed.split(1, dim=2)
        of_columns = torch.cat([scalars, of_vectors, of_vectors, of_vectors], dim=2)  # vectors have three components
        # (n_atoms, n_neighbors, 4, K)
        carried = torch.index_select(messages, 0, neighbors[rows].flatten()).unflatten(0, neighbors[rows].shape)
        return _sums((carried * of_columns).flatten(-2), directions, shape)

    pieces = _in_pieces(sums_of, vectors, neighbors.shape[1] * messages[0].numel())
    sums = torch.cat(pieces, dim=1).unflatten(-1, (4, -1))
    # sums[:, :, 1:] are the vectors, (n_lm, n_atoms, 3, K)
    lowered, raised = torch.einsum("pabm,btmk->patk", constant(_coupling, shape.max_degree, like=sums), sums[:, :, 1:])
    return torch.cat([sums[:, :, 0], raised, lowered], dim=-1)


def averages_reference(channels: Tensor, shape: SphereShape) -> tuple[Tensor, Tensor]:
    """Average products of one, two, ... factors over the sphere; arguments and results as in `averages`."""
    grid = constant(_grid_harmonics, shape.degrees, like=channels), constant(_grid_rows, shape.degrees, like=channels)

    def averages_of(rows: slice) -> tuple[Tensor, Tensor]:
        return _averages(channels[:, rows], *grid, shape)

    averages = _in_pieces(averages_of, channels[0], grid[1].shape[1] * shape.n_channels, cpu_piece=_CPU_PIECE)
    return torch.cat([one for one, _ in averages]), torch.cat([vectors for _, vectors in averages], dim=1)


def independent(*tensors: Tensor) -> list[Tensor]:
    """Return each tensor as a separate variable for partial derivatives, still connected to its autograd graph.

    Derivatives by the returned views ignore dependences between the tensors. Further derivatives pass through the views
    to the original tensors.
    """
    return [tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_() for tensor in tensors]


def _in_pieces(
    function: Callable[[slice], Any], atoms: Tensor, values_per_atom: int, cpu_piece: int | None = None
) -> list[Any]:
    """Evaluate a function of ranges of atoms, the rows of `atoms`, in pieces that the memory holds.

    Several pieces on a GPU are evaluated once more in the backward pass instead of kept: what a million atoms keep
    would not fit its memory.
    """
    n_atoms, memory = len(atoms), _gpu_memory(atoms.device)
    largest = cpu_piece if memory is None else memory // _GPU_PIECES
    size = n_atoms if largest is None else max(1, largest // max(1, values_per_atom))
    pieces = [slice(first, first + size) for first in range(0, n_atoms, max(1, size))] or [slice(0, 0)]
    if memory is None or len(pieces) == 1:
        return [function(piece) for piece in pieces]
    # nothing in it is random: keeping the state of random numbers would cost a wait for the device
    return [checkpoint(function, piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]


@lru_cache(maxsize=16)
def _gpu_memory(device: torch.device) -> int | None:
    """Return the memory of a GPU in bytes, 8 GiB where torch does not know it; None for the CPU."""
    if device.type == "cpu":
        return None
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 2**33


def _of_elements(species: Tensor, like: Tensor, shape: SphereShape) -> Tensor:
    """Return one weight for each element, (n_atoms, n_neighbors, n_elements): one for that of the neighbor."""
    return (species[..., None] == torch.arange(shape.n_weights, device=species.device)).to(like)


def _averages(channels: Tensor, harmonics: Tensor, rows: Tensor, shape: SphereShape) -> tuple[Tensor, Tensor]:
    n_atoms = channels.shape[1]
    averages, vectors = [], []
    product: Tensor | None = None
    for index in range(len(shape.degrees)):
        columns = slice(index * shape.n_channels, (index + 1) * shape.n_channels)
        factor = torch.matmul(harmonics[index], channels[..., columns].flatten(1))  # (n_points, n_atoms * n_channels)
        product = factor if product is None else product * factor
        averages.append(torch.matmul(rows[0], product).reshape(n_atoms, -1))
        if index < shape.n_vectors:
            vectors.append(torch.matmul(rows[1:], product).reshape(3, n_atoms, -1))
    if not vectors:  # an empty part of a result, so that autograd knows it
        vectors = [averages[0].expand(3, -1, -1)[..., :0]]
    return torch.cat(averages, dim=-1), torch.cat(vectors, dim=-1)


def _radial(vectors: Tensor, mask: Tensor, shape: SphereShape) -> tuple[Tensor, Tensor]:
    """Compute unit vectors and radial functions (n_atoms, n_neighbors, n_radial), zero beyond the cutoff."""
    vectors, distances, envelope = distances_and_envelope(vectors, mask, shape.cutoff)
    x = distances / shape.cutoff
    orders = torch.arange(1, len(shape.radial_scale) + 1, device=x.device, dtype=x.dtype)
    waves = torch.sin(math.pi * x[..., None] * orders)
    return vectors / distances[..., None], waves * (
        (envelope / x)[..., None] * constant(tuple, shape.radial_scale, like=x)
    )


def _sums(columns: Tensor, directions: Tensor, shape: SphereShape) -> Tensor:
    """Sum columns (n_atoms, n_neighbors, n_columns) times harmonics over neighbors, (n_lm, n_atoms, n_columns)."""
    monomials = _monomials(directions, shape.max_degree)  # (n_atoms, n_monomials, n_neighbors)
    sums = torch.matmul(monomials, columns)  # (n_atoms, n_monomials, n_columns)
    # harmonics are linear in monomials: converting the sums costs less than converting each neighbor
    spherical = constant(_harmonics_of_monomials, shape.max_degree, like=sums)
    return torch.matmul(spherical, sums.transpose(0, 1).flatten(1)).reshape(-1, len(sums), columns.shape[-1])


def _monomials(directions: Tensor, max_degree: int) -> Tensor:
    """Compute the monomials of the two highest degrees, which span all harmonics on the unit sphere.

    `directions` (n_atoms, n_neighbors, 3); return (n_atoms, n_monomials, n_neighbors).
    """
    axes = directions.unbind(dim=-1)
    # each monomial is one of the degree before times a component: many small products are faster than gathered columns
    known = {(0, 0, 0): torch.ones_like(axes[0])}
    for degree in range(1, max_degree + 1):
        for exponents in _exponents(degree):
            axis = next(axis for axis in range(3) if exponents[axis] > 0)
            a, b, c = exponents
            lower = (a - (axis == 0), b - (axis == 1), c - (axis == 2))
            known[exponents] = axes[axis] if degree == 1 else known[lower] * axes[axis]
    return torch.stack([known[exponents] for exponents in _spanning_exponents(max_degree)], dim=1)


def _exponents(degree: int) -> list[tuple[int, int, int]]:
    """Return (a, b, c) of all monomials x^a y^b z^c with a + b + c = degree; no monomial for a negative degree."""
    return [(a, b, degree - a - b) for a in range(degree + 1) for b in range(degree + 1 - a)]


def _spanning_exponents(max_degree: int) -> list[tuple[int, int, int]]:
    return _exponents(max_degree) + _exponents(max_degree - 1)


def _coupling(max_degree: int) -> np.ndarray:
    """Return the Gaunt coefficients of a harmonic times a vector, (2, n_lm, n_lm, 3); first axis: L > l or not."""
    terms, values = gaunt_terms(max_degree)
    n_lm = (max_degree + 1) ** 2
    coupling = np.zeros((2, n_lm, n_lm, 3))
    coupling[tuple(terms.T)] = values
    return coupling


def _harmonics_of_monomials(max_degree: int) -> np.ndarray:
    """Return the matrix (n_lm, n_monomials) from monomials to harmonics, fitted to random directions.

    The fit is exact to rounding, as there are many more directions than monomials.
    """
    directions = np.random.default_rng(0).normal(size=(20 * (max_degree + 1) ** 2, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x, y, z = directions.T
    monomials = np.stack([x**a * y**b * z**c for a, b, c in _spanning_exponents(max_degree)], axis=-1)
    return np.linalg.lstsq(monomials, _ordered_harmonics(directions, max_degree), rcond=None)[0].T.copy()


def _grid_harmonics(degrees: tuple[int, ...]) -> np.ndarray:
    return _grid(degrees)[0]


def _grid_rows(degrees: tuple[int, ...]) -> np.ndarray:
    """Return weights of the quadrature, and weights times the components of the direction, (4, n_points)."""
    _, weights, points = _grid(degrees)
    return np.concatenate([weights[None], weights * points.T])


@lru_cache(maxsize=16)
def _grid(degrees: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return harmonics, weights and points of the quadrature.

    The harmonics, (n_factors, n_points, n_lm), are multiplied by sqrt(4 pi), and zero above the degree of each factor.
    """
    rule = quadrature(sum(degrees))
    orbits = [rule.orbit(index) for index in range(len(rule.points))]
    weights = np.concatenate([np.full(len(orbit), rule.weights[index]) for index, orbit in enumerate(orbits)])
    points = np.concatenate(orbits)
    harmonics = math.sqrt(4 * math.pi) * _ordered_harmonics(points, max(degrees))
    degree_of = np.array([degree for degree, _ in harmonic_order(max(degrees))])
    return np.stack([np.where(degree_of <= degree, harmonics, 0.0) for degree in degrees]), weights, points


def _ordered_harmonics(directions: np.ndarray, max_degree: int) -> np.ndarray:
    columns = [degree * (degree + 1) + order for degree, order in harmonic_order(max_degree)]
    return real_spherical_harmonics(directions, max_degree)[:, columns]
