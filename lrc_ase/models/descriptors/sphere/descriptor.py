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
With `neighbor_degree: 1` atoms hand on K scalars and K vectors instead (`message_block`, `messages`). The vectors are
averages of products times the direction, :math:`\frac{1}{4\pi} \int \hat n \prod_{f \le k} A_f\, d\Omega`, of as many
factors as the quadrature allows for.

A product of four densities grows as their fourth power where atoms come closer than in training, a product of those in
a second block as the sixteenth. `compression` c replaces a feature f by :math:`f / (1 + f^2/c^2)^{1/4}`, which is f for
small features and grows as the square root of large ones.

Sources: Luo, Chen, Krishnapriyan, *Enabling efficient equivariant operations in the Fourier basis via Gaunt tensor
products* (2024), arXiv:2401.10216; Drautz, *Atomic cluster expansion* (2019), doi:10.1103/PhysRevB.99.014104.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lrc_ase.models.descriptors.base import Descriptor
from lrc_ase.models.descriptors.sphere.averages import averages
from lrc_ase.models.descriptors.sphere.element_order import ElementOrder
from lrc_ase.models.descriptors.sphere.harmonics import harmonic_order
from lrc_ase.models.descriptors.sphere.message_block import MessageBlock
from lrc_ase.models.descriptors.sphere.messages import message_moments
from lrc_ase.models.descriptors.sphere.moments import moments
from lrc_ase.models.descriptors.sphere.reference import (
    averages_reference,
    message_moments_reference,
    moments_reference,
)
from lrc_ase.models.descriptors.sphere.shape import SphereShape, radial_scale
from lrc_ase.models.readout import ReadOut
from lrc_ase.models.settings import DescriptorSettings, SphereSettings

__all__ = ["SphereDescriptor"]


class SphereDescriptor(Descriptor):
    """Averages over the sphere of products of neighbor densities; see the module's formula.

    Each factor of the product has a separate highest degree (`settings.degrees`); their sum determines the quadrature.
    """

    settings_class: ClassVar[type[DescriptorSettings]] = SphereSettings
    hands_on: ClassVar[bool] = True
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
        n_features = len(settings.degrees) * settings.n_channels
        degree_of = [degree for degree, _ in harmonic_order(self.shape.max_degree)]
        self.register_buffer("degree_of", torch.tensor(degree_of), persistent=False)  # follows from the settings
        self.mixing = _random_mixing(self.shape, self.shape.n_inputs, generator)
        # zero: before training all central elements have the common part alone
        self.element_mixing = nn.Parameter(self.mixing.new_zeros(n_elements, *self.mixing.shape))
        self.n_features = settings.n_blocks * n_features
        self.reach = settings.n_blocks
        if settings.n_blocks == 1:
            return
        n_messages = settings.n_neighbor_features
        if settings.neighbor_degree:
            self.second_shape = self.shape  # before `n_vectors`: the second block hands nothing on
            self.shape = replace(self.shape, n_vectors=_n_vectors(settings.degrees))
            self.message_block = MessageBlock(
                n_messages,
                n_features=n_features,
                n_vectors=self.shape.n_vectors * settings.n_channels,
                n_radial=settings.n_radial,
                n_elements=n_elements,
                generator=generator,
            )
            n_inputs = 3 * n_messages  # scalars, vectors that raised and that lowered the degree
        else:
            self.second_shape = replace(self.shape, n_weights=n_messages)
            self.neighbor_network = ReadOut(n_features, n_elements, (4 * n_messages,), generator, n_outputs=n_messages)
            with torch.no_grad():  # weights of order one that tell elements apart
                bias = self.neighbor_network.element_bias.weight
                bias.copy_(torch.randn(bias.shape, generator=generator))
            n_inputs = self.second_shape.n_inputs
        self.second_mixing = _random_mixing(self.second_shape, n_inputs, generator)
        self.second_element_mixing = nn.Parameter(self.mixing.new_zeros(n_elements, *self.second_mixing.shape))

    def forward(
        self,
        vectors: Tensor,
        mask: Tensor,
        species: Tensor,
        neighbors: Tensor,
        *,
        to_ghosts: Callable[[Tensor], Tensor] | None = None,
        element_counts: Sequence[int] | None = None,
    ) -> Tensor:
        compiled = self._has_compiled(vectors)
        sum_up = moments if compiled else moments_reference
        sums = sum_up(vectors, mask, species, neighbors, self.shape)
        local_species = species[: len(vectors)]  # without ghosts
        order = ElementOrder.of(local_species, len(self.element_mixing), element_counts)
        features, directed = self._mixed_averages(sums, self.mixing + self.element_mixing, order, self.shape)
        if self.settings.n_blocks == 1:
            return features
        if self.settings.neighbor_degree:
            messages = self.message_block(features, directed, local_species, order)
            # neighbors of other processes are computed there: their owners send the messages
            messages = messages if to_ghosts is None else to_ghosts(messages)
            receive = message_moments if compiled else message_moments_reference
            around = mask, neighbors, messages, self.message_block.radial_mixing
            sums = receive(vectors, *around, self.second_shape)
        else:
            atom_weights = self.neighbor_network(features, local_species, squeeze=False)  # (n_atoms, n_weights)
            atom_weights = atom_weights if to_ghosts is None else to_ghosts(atom_weights)
            # (n_atoms, n_neighbors, n_weights)
            weights = torch.index_select(atom_weights, 0, neighbors.flatten()).unflatten(0, neighbors.shape)
            sums = sum_up(vectors, mask, species, neighbors, self.second_shape, weights)
        # (n_elements, n_degrees, n_inputs, n_factors * n_channels)
        mixing = self.second_mixing + self.second_element_mixing
        second, _ = self._mixed_averages(sums, mixing, order, self.second_shape)
        return torch.cat([features, second], dim=1)

    def _mixed_averages(
        self, sums: Tensor, mixing: Tensor, order: ElementOrder, shape: SphereShape
    ) -> tuple[Tensor, Tensor]:
        """Compute averages from the sums (n_lm, n_atoms, n_inputs).

        Return features (n_atoms, n_features), and vectors (3, n_atoms, n_vectors) in the order of elements.
        """
        # each harmonic is mixed with the weights of its degree; rows above a factor's degree are left out later
        channels = order.multiply(order.sort(sums, 1), torch.index_select(mixing, 1, self.degree_of))
        features, vectors = (averages if self._has_compiled(sums) else averages_reference)(channels, shape)
        return self._compressed(order.unsort(features, 0)), vectors

    def _compressed(self, features: Tensor) -> Tensor:
        if self.settings.compression is None:
            return features
        # square roots alone: the power 1/4 costs several times as much
        return features * torch.rsqrt(torch.sqrt(1 + (features / self.settings.compression).square()))

    def _has_compiled(self, tensor: Tensor) -> bool:
        known = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
        return known and self.engine == "compiled"


def _random_mixing(shape: SphereShape, n_inputs: int, generator: torch.Generator | None) -> nn.Parameter:
    # inputs have mean square one on average: the density on the sphere then has variance one before training
    size = shape.max_degree + 1, n_inputs, len(shape.degrees) * shape.n_channels
    return nn.Parameter(torch.randn(size, generator=generator) / math.sqrt(n_inputs * shape.n_harmonics))


def _n_vectors(degrees: tuple[int, ...]) -> int:
    """Return the number of products whose degree, plus one for the direction, the quadrature allows for."""
    return sum(1 + sum(degrees[: k + 1]) <= sum(degrees) for k in range(len(degrees)))
