r"""The many-body density on the sphere.

The neighbors of atom i make a density with radial and element channels, mixed into channels,

.. math:: A_{ic}(\hat n) = \sum_{lm} Y_{lm}(\hat n) \sum_{nz} W^{l}_{nz,c}\, c_{i,nz,lm}, \qquad
          c_{i,nz,lm} = \sum_{j \in z} B_n(r_{ij})\, Y_{lm}(\hat r_{ij}),

and products of several such densities, taken point by point on a quadrature of the sphere, are averaged over it. When
the quadrature is exact for the degree of the product the average is rotation invariant to rounding: it is the sum over
all coupling paths (Gaunt coefficients) at the cost of two matrix products per atom.

Sources: Luo, Chen, Krishnapriyan, *Enabling efficient equivariant operations in the Fourier basis via Gaunt tensor
products* (2024), arXiv:2401.10216; Drautz, *Atomic cluster expansion* (2019), doi:10.1103/PhysRevB.99.014104.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.integrate import lebedev_rule
from scipy.special import sph_harm_y
from torch import Tensor, nn

from ..settings import SphereSettings
from .base import Descriptor

__all__ = ["SphereDescriptor", "real_spherical_harmonics"]

_LEBEDEV_DEGREES = (3, 5, 7, 9, 11, 15, 17, 19, 21, 23, 25, 29, 31, 35)  # rules with positive weights

_PIECE_ELEMENTS = 50_000
"""Values on the sphere, per factor, that are worked on at once."""


class SphereDescriptor(Descriptor):
    """Averages over the sphere of products of neighbor densities; see the module's formula.

    Each factor of the product has its own highest degree (`settings.degrees`); their sum decides the quadrature.
    """

    degree_of: Tensor

    def __init__(
        self,
        settings: SphereSettings,
        *,
        n_elements: int,
        cutoff: float,
        average_neighbors: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.cutoff = settings, cutoff
        self.n_elements = n_elements
        max_degree, n_factors = max(settings.degrees), len(settings.degrees)
        n_inputs = settings.n_radial * n_elements
        self.n_features = n_factors * settings.n_channels
        degree_of = [degree for degree in range(max_degree + 1) for _ in range(2 * degree + 1)]
        self._exponents = _exponents(max_degree) + _exponents(max_degree - 1)

        rule = next(known for known in _LEBEDEV_DEGREES if known >= min(sum(settings.degrees), 35))
        points, weights = lebedev_rule(rule)
        harmonics = real_spherical_harmonics(points.T, max_degree)  # (n_points, n_lm)
        # constants in float64, cast where they are used: buffers would lose digits on their way through float32
        self._grid_harmonics = torch.from_numpy(harmonics * math.sqrt(4 * math.pi))
        self._grid_weights = torch.from_numpy(weights / (4 * math.pi))
        self._spherical = torch.from_numpy(_harmonics_of_monomials(max_degree).T.copy())
        self.register_buffer("degree_of", torch.tensor(degree_of), persistent=False)
        self._radial_scale = torch.from_numpy(_radial_scale(settings.n_radial, average_neighbors))
        mixing = torch.randn(max_degree + 1, n_inputs, n_factors * settings.n_channels, generator=generator)
        self.mixing = nn.Parameter(mixing / math.sqrt(n_inputs * len(degree_of)))
        self.center_scale = nn.Parameter(torch.ones(n_elements, n_factors * settings.n_channels))

    def forward(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        n_atoms = vectors.shape[0]
        placeholder = vectors.new_tensor([self.cutoff, 0.0, 0.0])
        vectors = torch.where(mask[..., None], vectors, placeholder)
        distances = torch.linalg.norm(vectors, dim=-1)
        radial = self._radial(distances, mask)  # (n_atoms, n_neighbors, n_radial)
        if self.n_elements > 1:
            one_hot = nn.functional.one_hot(species[neighbors], self.n_elements).to(radial)
            radial = (one_hot[..., None] * radial[..., None, :]).flatten(-2)
        monomials = self._monomials(vectors / distances[..., None])  # (n_atoms, n_neighbors, n_lm)
        moments = torch.matmul(monomials.transpose(-1, -2), radial)  # (n_atoms, n_lm, n_inputs)
        density = torch.matmul(self._spherical.to(moments), moments.transpose(0, 1).flatten(1))
        density = density.reshape(-1, n_atoms, moments.shape[-1])  # (n_lm, n_atoms, n_inputs)
        # in pieces whose values on the sphere fit a cache: this is where the time goes
        per_atom = len(self._grid_weights) * self.settings.n_channels
        pieces = torch.split(density, max(1, _PIECE_ELEMENTS // per_atom), dim=1)
        centers = torch.split(species, max(1, _PIECE_ELEMENTS // per_atom))
        return torch.cat([self._averages(*piece) for piece in zip(pieces, centers, strict=True)])

    def _averages(self, density: Tensor, species: Tensor) -> Tensor:
        """Averages over the sphere of the products of one, two, ... factors; `density` (n_lm, n_atoms, n_inputs)."""
        weights = self._grid_weights.to(density)
        grid_harmonics = self._grid_harmonics.to(density)
        averages = []
        product: Tensor | None = None
        for index, degree in enumerate(self.settings.degrees):
            columns = slice(index * self.settings.n_channels, (index + 1) * self.settings.n_channels)
            n_lm = (degree + 1) ** 2
            mixing = self.mixing[self.degree_of[:n_lm], :, columns]
            channels = torch.matmul(density[:n_lm], mixing) * self.center_scale[species, columns]
            factor = torch.matmul(grid_harmonics[:, :n_lm], channels.flatten(1))  # (n_points, n_atoms * n_channels)
            product = factor if product is None else product * factor
            averages.append(torch.matmul(weights, product).reshape(density.shape[1], -1))
        return torch.cat(averages, dim=-1)

    def _radial(self, distances: Tensor, mask: Tensor) -> Tensor:
        r"""Bessel functions under an envelope, :math:`B_n = f(x) \sin(n\pi x)/x` with x = r / cutoff."""
        x = (distances / self.cutoff).clamp(max=1.0)
        orders = torch.arange(1, self.settings.n_radial + 1, device=x.device, dtype=x.dtype)
        # 1 - 28 x^6 + 48 x^7 - 21 x^8: value, first and second derivative vanish at the cutoff
        x6 = x**6
        envelope = (1 + x6 * (-28 + x * (48 - 21 * x))) / x
        envelope = torch.where(mask & (x < 1), envelope, torch.zeros_like(envelope))
        return torch.sin(math.pi * x[..., None] * orders) * (envelope[..., None] * self._radial_scale.to(x))

    def _monomials(self, directions: Tensor) -> Tensor:
        """Monomials of the two highest degrees, which span all harmonics up to the highest on the unit sphere."""
        axes = directions.unbind(dim=-1)
        # each from one of a degree less: many small products are faster than few with gathered columns
        known = {(0, 0, 0): torch.ones_like(axes[0])}
        for degree in range(1, max(self.settings.degrees) + 1):
            for exponents in _exponents(degree):
                axis = next(axis for axis in range(3) if exponents[axis] > 0)
                a, b, c = exponents
                lower = (a - (axis == 0), b - (axis == 1), c - (axis == 2))
                known[exponents] = axes[axis] if degree == 1 else known[lower] * axes[axis]
        return torch.stack([known[exponents] for exponents in self._exponents], dim=-1)


def _radial_scale(n_radial: int, average_neighbors: float) -> np.ndarray:
    """Factors that make the density of randomly placed neighbors fluctuate by one in each radial function."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    x, weights = (nodes + 1) / 2, weights / 2
    envelope = (1 + x**6 * (-28 + x * (48 - 21 * x))) / x
    functions = envelope[:, None] * np.sin(np.pi * x[:, None] * np.arange(1, n_radial + 1))
    variance = average_neighbors * (3 * x**2 * weights) @ functions**2
    return np.sqrt(4 * np.pi / variance)


def _exponents(degree: int) -> list[tuple[int, int, int]]:
    """(a, b, c) of all monomials x^a y^b z^c with a + b + c = degree; none for a negative one."""
    return [(a, b, degree - a - b) for a in range(degree + 1) for b in range(degree + 1 - a)]


def real_spherical_harmonics(directions: np.ndarray, max_degree: int) -> np.ndarray:
    """Orthonormal real spherical harmonics at unit vectors (n, 3), (n, (max_degree + 1)^2), degrees ascending."""
    x, y, z = directions.T
    polar, azimuth = np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x)
    columns = []
    for degree in range(max_degree + 1):
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), polar, azimuth)
            if order < 0:
                columns.append(math.sqrt(2) * value.imag)
            elif order == 0:
                columns.append(value.real)
            else:
                columns.append(math.sqrt(2) * value.real)
    return np.stack(columns, axis=-1)


def _harmonics_of_monomials(max_degree: int) -> np.ndarray:
    """Matrix (n_monomials, n_lm) that turns the monomials into harmonics, fitted on more than enough directions."""
    directions = np.random.default_rng(0).normal(size=(20 * (max_degree + 1) ** 2, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    exponents = _exponents(max_degree) + _exponents(max_degree - 1)
    x, y, z = directions.T
    monomials = np.stack([x**a * y**b * z**c for a, b, c in exponents], axis=-1)
    return np.linalg.lstsq(monomials, real_spherical_harmonics(directions, max_degree), rcond=None)[0]
