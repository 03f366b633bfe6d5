r"""The many-body density on the sphere.

The neighbors of atom i form a density with radial and element channels, mixed into channels,

.. math:: A_{ic}(\hat n) = \sum_{lm} Y_{lm}(\hat n) \sum_{nz} W^{z_i l}_{nz,c}\, c_{i,nz,lm}, \qquad
          c_{i,nz,lm} = \sum_{j \in z} B_n(r_{ij})\, Y_{lm}(\hat r_{ij}),

with weights W for each element of the central atom: a part common to all elements, plus a part per element that starts
at zero. Products of several such densities are evaluated at the points of a quadrature of the sphere and averaged. If
the quadrature is exact for the degree of the product, the average is rotation invariant to rounding: it is the sum over
all coupling paths (Gaunt coefficients) at the cost of two matrix products per atom. The radial functions are
:math:`B_n(r) = f(x) \sin(n\pi x)/x` with x = r / cutoff and the envelope :math:`f = 1 - 28x^6 + 48x^7 - 21x^8`, which
vanishes at the cutoff with its first and second derivative.

With two blocks, a small network maps the features of each atom to K numbers :math:`h_{jk}`. These numbers weigh the
neighbors in a second density, :math:`c_{i,nk,lm} = \sum_j h_{jk} B_n(r_{ij}) Y_{lm}(\hat r_{ij})`, which is mixed,
multiplied and averaged like the first. The output holds the features of both blocks; its range is twice the cutoff.

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

    Each factor of the product has a separate highest degree (`settings.degrees`); their sum determines the quadrature.
    """

    settings_class: ClassVar[type[DescriptorSettings]] = SphereSettings
    engine: Literal["compiled", "reference"] = "compiled"
    """Compiled kernels where available (on the CPU), or plain torch everywhere ("reference")."""
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
        local_species = species[: len(vectors)]  # without ghosts
        features = self._mixed_averages(sums, self.mixing + self.element_mixing, local_species)
        if self.settings.n_blocks == 1:
            return features
        atom_weights = self.neighbor_network(features, species, squeeze=False)  # (n_atoms, n_weights)
        # (n_atoms, n_neighbors, n_weights)
        weights = torch.index_select(atom_weights, 0, neighbors.flatten()).unflatten(0, neighbors.shape)
        sums = sum_up(vectors, mask, species, neighbors, self.second_shape, weights)
        second = self._mixed_averages(sums, self.second_mixing + self.second_element_mixing, species)
        return torch.cat([features, second], dim=1)

    def _mixed_averages(self, sums: Tensor, mixing: Tensor, species: Tensor) -> Tensor:
        """Compute features (n_atoms, n_features) from the sums (n_lm, n_atoms, n_inputs)."""
        # each harmonic is mixed with the weights of its degree; rows above a factor's degree are left out later
        channels, rows = mixed_by_element(sums, torch.index_select(mixing, 1, self.degree_of), species)
        features = (averages if self._has_compiled(sums) else averages_reference)(channels, self.shape)
        # back from the order of elements to the order of atoms
        return features if rows is None else torch.index_select(features, 0, rows)

    def _has_compiled(self, tensor: Tensor) -> bool:
        known = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
        return known and self.engine == "compiled"


def mixed_by_element(sums: Tensor, weights: Tensor, species: Tensor) -> tuple[Tensor, Tensor | None]:
    """Multiply the sums of each atom by the weights of its element.

    `sums` (n_lm, n_atoms, n_inputs) and `weights` (n_elements, n_lm, n_inputs, n_features) -> (n_lm, n_atoms,
    n_features) with the atoms sorted by element, and the row of each atom in that order (None: atoms are not sorted).
    """
    if len(weights) == 1 or len(species) == 0:
        return torch.bmm(sums, weights[0]), None
    order = torch.argsort(species)
    counts = torch.bincount(species, minlength=len(weights)).tolist()
    by_element = zip(torch.index_select(sums, 1, order).split(counts, dim=1), weights, strict=True)
    products = [torch.bmm(piece, weight) for piece, weight in by_element if piece.shape[1]]
    return torch.cat(products, dim=1), torch.argsort(order)


def _random_mixing(shape: SphereShape, generator: torch.Generator | None) -> nn.Parameter:
    size = shape.max_degree + 1, shape.n_inputs, len(shape.degrees) * shape.n_channels
    return nn.Parameter(torch.randn(size, generator=generator) / math.sqrt(shape.n_inputs * shape.n_harmonics))
