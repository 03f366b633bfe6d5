r"""The many-body density on the sphere.

The neighbors of atom i make a density with radial and element channels, mixed into channels,

.. math:: A_{ic}(\hat n) = \sum_{lm} Y_{lm}(\hat n) \sum_{nz} W^{z_i l}_{nz,c}\, c_{i,nz,lm}, \qquad
          c_{i,nz,lm} = \sum_{j \in z} B_n(r_{ij})\, Y_{lm}(\hat r_{ij}),

with weights W for each element of the central atom, the same for all plus a part of its own that starts at zero.
Products of several such densities, taken point by point on a quadrature of the sphere, are averaged over it. When the
quadrature is exact for the degree of the product the average is rotation invariant to rounding: it is the sum over all
coupling paths (Gaunt coefficients) at the cost of two matrix products per atom. The radial functions are
:math:`B_n(r) = f(x) \sin(n\pi x)/x` with x = r / cutoff and the envelope :math:`f = 1 - 28x^6 + 48x^7 - 21x^8`, which
vanishes at the cutoff with its first and second derivative.

With two blocks a small network makes K numbers :math:`h_{jk}` of the features of each atom, and these weigh the
neighbors in a second density, :math:`c_{i,nk,lm} = \sum_j h_{jk} B_n(r_{ij}) Y_{lm}(\hat r_{ij})`, which is mixed,
multiplied and averaged like the first. The features of both blocks are handed on; their range is twice the cutoff.

Sources: Luo, Chen, Krishnapriyan, *Enabling efficient equivariant operations in the Fourier basis via Gaunt tensor
products* (2024), arXiv:2401.10216; Drautz, *Atomic cluster expansion* (2019), doi:10.1103/PhysRevB.99.014104.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lrc_ase.models.descriptors.base import Descriptor
from lrc_ase.models.descriptors.sphere.averages import averages
from lrc_ase.models.descriptors.sphere.harmonics import harmonic_order
from lrc_ase.models.descriptors.sphere.moments import moments
from lrc_ase.models.descriptors.sphere.reference import averages_reference, moments_reference
from lrc_ase.models.descriptors.sphere.shape import SphereShape, radial_scale
from lrc_ase.models.readout import ReadOut
from lrc_ase.models.settings import DescriptorSettings, SphereSettings

__all__ = ["SphereDescriptor", "mixed_by_element"]


class SphereDescriptor(Descriptor):
    """Averages over the sphere of products of neighbor densities; see the module's formula.

    Each factor of the product has its own highest degree (`settings.degrees`); their sum decides the quadrature.
    """

    settings_class: ClassVar[type[DescriptorSettings]] = SphereSettings
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
            n_weights=n_elements,
            cutoff=cutoff,
            radial_scale=radial_scale(settings.n_radial, average_neighbors),
        )
        n_factors = len(settings.degrees)
        degree_of = [degree for degree, _ in harmonic_order(self.shape.max_degree)]
        self.register_buffer("degree_of", torch.tensor(degree_of), persistent=False)
        self.mixing = _random_mixing(self.shape, generator)
        self.element_mixing = nn.Parameter(self.mixing.new_zeros(n_elements, *self.mixing.shape))
        self.n_features = settings.n_blocks * n_factors * settings.n_channels
        self.reach = settings.n_blocks
        if settings.n_blocks > 1:
            n_weights = settings.n_neighbor_features
            self.second_shape = replace(self.shape, n_weights=n_weights)
            self.neighbor_network = ReadOut(
                n_factors * settings.n_channels, n_elements, (4 * n_weights,), generator, n_outputs=n_weights
            )
            with torch.no_grad():  # weights of order one that tell elements apart
                bias = self.neighbor_network.element_bias.weight
                bias.copy_(torch.randn(bias.shape, generator=generator))
            self.second_mixing = _random_mixing(self.second_shape, generator)
            self.second_element_mixing = nn.Parameter(self.mixing.new_zeros(n_elements, *self.second_mixing.shape))

    def forward(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        sum_up = moments if self._has_compiled(vectors) else moments_reference
        sums = sum_up(vectors, mask, species, neighbors, self.shape)
        own_species = species[: len(vectors)]
        features = self._mixed_averages(sums, self.mixing + self.element_mixing, own_species)
        if self.settings.n_blocks == 1:
            return features
        own = self.neighbor_network(features, species, squeeze=False)
        weights = torch.index_select(own, 0, neighbors.flatten()).unflatten(0, neighbors.shape)
        sums = sum_up(vectors, mask, species, neighbors, self.second_shape, weights)
        second = self._mixed_averages(sums, self.second_mixing + self.second_element_mixing, species)
        return torch.cat([features, second], dim=1)

    def _mixed_averages(self, sums: Tensor, mixing: Tensor, species: Tensor) -> Tensor:
        """Features (n_atoms, n_features) of the sums (n_lm, n_atoms, n_inputs)."""
        # each harmonic is mixed with the weights of its degree; rows above a factor's degree are left out later
        channels, places = mixed_by_element(sums, torch.index_select(mixing, 1, self.degree_of), species)
        made = (averages if self._has_compiled(sums) else averages_reference)(channels, self.shape)
        return made if places is None else torch.index_select(made, 0, places)

    def _has_compiled(self, tensor: Tensor) -> bool:
        known = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
        return known and self.engine == "compiled"


def mixed_by_element(sums: Tensor, weights: Tensor, species: Tensor) -> tuple[Tensor, Tensor | None]:
    """Products of each atom's sums with the weights of its element.

    `sums` (n_lm, n_atoms, n_inputs) and `weights` (n_elements, n_lm, n_inputs, n_features) to (n_lm, n_atoms,
    n_features) with the atoms sorted by element, and the place of each atom among them (None: its own).
    """
    if len(weights) == 1 or len(species) == 0:
        return torch.bmm(sums, weights[0]), None
    order = torch.argsort(species)
    counts = torch.bincount(species, minlength=len(weights)).tolist()
    by_element = zip(torch.index_select(sums, 1, order).split(counts, dim=1), weights, strict=True)
    return torch.cat([torch.bmm(own, w) for own, w in by_element if own.shape[1]], dim=1), torch.argsort(order)


def _random_mixing(shape: SphereShape, generator: torch.Generator | None) -> nn.Parameter:
    size = shape.max_degree + 1, shape.n_inputs, len(shape.degrees) * shape.n_channels
    return nn.Parameter(torch.randn(size, generator=generator) / math.sqrt(shape.n_inputs * shape.n_harmonics))
