r"""The many-body density on the sphere.

The neighbors of atom i make a density with radial and element channels, mixed into channels,

.. math:: A_{ic}(\hat n) = \sum_{lm} Y_{lm}(\hat n) \sum_{nz} W^{l}_{nz,c}\, c_{i,nz,lm}, \qquad
          c_{i,nz,lm} = \sum_{j \in z} B_n(r_{ij})\, Y_{lm}(\hat r_{ij}),

and products of several such densities, taken point by point on a quadrature of the sphere, are averaged over it. When
the quadrature is exact for the degree of the product the average is rotation invariant to rounding: it is the sum over
all coupling paths (Gaunt coefficients) at the cost of two matrix products per atom. The radial functions are
:math:`B_n(r) = f(x) \sin(n\pi x)/x` with x = r / cutoff and the envelope :math:`f = 1 - 28x^6 + 48x^7 - 21x^8`, which
vanishes at the cutoff with its first and second derivative.

Sources: Luo, Chen, Krishnapriyan, *Enabling efficient equivariant operations in the Fourier basis via Gaunt tensor
products* (2024), arXiv:2401.10216; Drautz, *Atomic cluster expansion* (2019), doi:10.1103/PhysRevB.99.014104.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ...settings import SphereSettings
from ..base import Descriptor
from .averages import averages
from .harmonics import harmonic_order
from .moments import moments
from .reference import averages_reference, moments_reference
from .shape import SphereShape, radial_scale

__all__ = ["SphereDescriptor"]


class SphereDescriptor(Descriptor):
    """Averages over the sphere of products of neighbor densities; see the module's formula.

    Each factor of the product has its own highest degree (`settings.degrees`); their sum decides the quadrature.
    """

    engine: Literal["compiled", "reference"] = "compiled"
    """Compiled kernels where they exist (on the CPU), or plain torch everywhere."""
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
        self.settings = settings
        self.shape = SphereShape(
            degrees=settings.degrees,
            n_channels=settings.n_channels,
            n_elements=n_elements,
            cutoff=cutoff,
            radial_scale=radial_scale(settings.n_radial, average_neighbors),
        )
        n_inputs, max_degree = self.shape.n_inputs, self.shape.max_degree
        self.n_features = len(settings.degrees) * settings.n_channels
        degree_of = [degree for degree, _ in harmonic_order(max_degree)]
        self.register_buffer("degree_of", torch.tensor(degree_of), persistent=False)
        mixing = torch.randn(max_degree + 1, n_inputs, self.n_features, generator=generator)
        self.mixing = nn.Parameter(mixing / math.sqrt(n_inputs * len(degree_of)))
        self.center_scale = nn.Parameter(torch.ones(n_elements, self.n_features))

    def forward(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        compiled = self.engine == "compiled" and vectors.device.type == "cpu"
        sums = (moments if compiled else moments_reference)(vectors, mask, species, neighbors, self.shape)
        # each harmonic is mixed with the weights of its degree; rows above a factor's degree are left out later
        channels = torch.bmm(sums, torch.index_select(self.mixing, 0, self.degree_of))  # (n_lm, n_atoms, n_features)
        made = (averages if compiled else averages_reference)(channels, self.shape)
        # the scale of a factor multiplies every product that it is in
        scale = self.center_scale.unflatten(1, (len(self.settings.degrees), -1)).cumprod(dim=1).flatten(1)
        return made * torch.index_select(scale, 0, species)
