r"""Convolutions over positions and orientations, R^3 x S^2.

Features f_i(o) live at each atom i and each of a fixed set of orientations o. A block turns them into

.. math:: h_i(o)  &= \frac{1}{\sqrt{\bar n}}\, w_{z_i} * \sum_j e(r_{ij})\, k_1(o \cdot r_{ij}, |r_{ij}|) * f_j(o)
                      && \text{neighbors, orientation by orientation} \\
          g_i(o)  &= \frac{1}{n_o} \sum_{o'} k_2(o \cdot o') * h_i(o')   && \text{over the sphere} \\
          f_i(o) &\leftarrow f_i(o) + s * \mathrm{MLP}(\mathrm{norm}(g_i(o)))  && \text{over channels}

where * multiplies channel by channel. The initial f and the factor w are trained vectors, one of each per element. This
is a ConvNeXt block with its convolution separated in three. The arguments of the kernels are the invariants of two
(position, orientation) pairs under rotations and translations. The length |r| replaces the distance from the axis o,
:math:`\sqrt{r^2 - (o \cdot r)^2}`: both carry the same information, but the distance has a cusp on the axis. The
kernels are mixed from a common basis, an MLP of all monomials of the scaled invariants up to a degree (3). The features
of an atom are means over o of the change of f_i(o): integrals over the sphere, invariant in the limit of many
orientations.

Source: Bekkers, Vadgama, Hesselink, van der Linden, Romero, *Fast, expressive SE(n) equivariant networks through
weight-sharing in position-orientation space* (2024), arXiv:2310.02970. Differences: the envelope e and the distance
make the features smooth. The norm has no bias and adds 1 to the variance, so that a neighbor enters smoothly at the
cutoff even if it is the only one. Biases enter through the gates of the activation, x sigmoid(x + b), so that the
features of an atom without neighbors are zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import ClassVar

import torch
from torch import Tensor, nn

from lrc_ase.models.descriptors.base import Descriptor
from lrc_ase.models.descriptors.envelope import distances_and_envelope
from lrc_ase.models.descriptors.orientations import even_directions, random_rotation
from lrc_ase.models.readout import random_linear
from lrc_ase.models.settings import DescriptorSettings, PonitaSettings

__all__ = ["PonitaDescriptor"]

_BASIS_GAIN, _PAIR_GAIN, _SPHERE_GAIN = 3.0, 2.0, 6.0
"""Gains of the initial weights, with which untrained features vary by order one between atoms and orientations."""


class PonitaDescriptor(Descriptor):
    """Position-orientation convolutions; see the module's formula."""

    settings_class: ClassVar[type[DescriptorSettings]] = PonitaSettings
    rotation_invariant: ClassVar[bool] = False
    orientations: Tensor
    next_turn: Tensor

    def __init__(
        self,
        settings: PonitaSettings,
        *,
        n_elements: int,
        cutoff: float,
        average_neighbors: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.cutoff = settings, cutoff
        self.n_features = settings.n_channels
        self.reach = settings.n_layers
        # saved in the potential file: another version of the optimizer may return another set
        directions = torch.from_numpy(even_directions(settings.n_orientations)).to(torch.get_default_dtype())
        self.register_buffer("orientations", directions)
        # seed of the next random rotation of the grid; saved in the checkpoint, so that a resumed run draws the same
        self.register_buffer("next_turn", torch.randint(2**31, (), generator=generator))
        self.species = nn.Parameter(torch.randn(n_elements, settings.n_channels, generator=generator))
        self.pair_basis = _Basis(2, settings, generator)
        self.sphere_basis = _Basis(1, settings, generator)
        self.blocks = nn.ModuleList(
            _Block(settings, n_elements, average_neighbors, generator) for _ in range(settings.n_layers)
        )

    def forward(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        return self._on_the_sphere(vectors, mask, species, neighbors)[0].mean(dim=0)

    def vector_features(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        """Compute vectors :math:`3 <o f_i(o)>`, (n_atoms, n_features, 3), which rotate with the surroundings.

        Their error under rotation is that of the features. Arguments as in `forward`.
        """
        features, orientations = self._on_the_sphere(vectors, mask, species, neighbors)
        return 3 * torch.einsum("oac,od->acd", features, orientations) / len(orientations)

    def _on_the_sphere(
        self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the features at each orientation, (n_orientations, n_atoms, n_channels), and the orientations."""
        orientations = self._orientations(vectors)
        vectors, distances, envelope = distances_and_envelope(vectors, mask, self.cutoff)
        along = torch.einsum("od,akd->oak", orientations, vectors / self.cutoff)
        # invariants of about -1 to 1, the range in which the basis bends; both (n_orientations, n_atoms, n_neighbors)
        scaled = (2 * distances / self.cutoff - 1).expand_as(along)
        pair_basis = self.pair_basis([along, scaled]) * envelope[..., None]
        sphere_basis = _centered(self.sphere_basis([orientations @ orientations.T]))
        # the initial features of neighbors depend on their elements alone, in all blocks: the basis is summed over the
        # neighbors of each element before it is mixed into channels
        is_element = nn.functional.one_hot(species[neighbors], len(self.species)).to(vectors)
        densities = torch.matmul(
            is_element.transpose(1, 2), pair_basis
        )  # (n_orientations, n_atoms, n_elements, n_basis)
        bases = _Bases(pair_basis, densities, sphere_basis)
        change: Tensor | None = None
        for block in self.blocks:
            update = block(self.species, change, species, neighbors, bases)
            change = update if change is None else change + update
        assert change is not None
        return change, orientations

    def _orientations(self, like: Tensor) -> Tensor:
        """Return the orientations as unit vectors, randomly rotated in training if `settings.rotate_grid` is set."""
        orientations = nn.functional.normalize(self.orientations.to(like), dim=1)
        if self.training and self.settings.rotate_grid:
            generator = torch.Generator().manual_seed(int(self.next_turn))
            self.next_turn += 1
            orientations = orientations @ random_rotation(generator).to(like)
        return orientations


@dataclass(frozen=True)
class _Bases:
    """Basis functions from which every block mixes its kernels."""

    pair: Tensor
    """(n_orientations, n_atoms, n_neighbors, n_basis), with the envelope."""
    densities: Tensor
    """`pair` summed over the neighbors of each element, (n_orientations, n_atoms, n_elements, n_basis)."""
    sphere: Tensor
    """Functions of two orientations, (n_orientations, n_orientations, n_basis + 1)."""


class _Basis(nn.Module):
    """Multilayer perceptron of all monomials of the invariants up to a degree."""

    def __init__(self, n_invariants: int, settings: PonitaSettings, generator: torch.Generator | None) -> None:
        super().__init__()
        degrees = range(1, settings.degree + 1)
        self.monomials = [
            factors for degree in degrees for factors in combinations_with_replacement(range(n_invariants), degree)
        ]
        self.first = random_linear(len(self.monomials), settings.n_basis, generator)
        self.second = random_linear(settings.n_basis, settings.n_basis, generator)
        with torch.no_grad():
            for layer in (self.first, self.second):  # spreads the bends of the basis over the range of the invariants
                layer.weight.mul_(_BASIS_GAIN)
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))

    def forward(self, invariants: list[Tensor]) -> Tensor:
        """Compute the basis functions (..., n_basis) of invariants of one shape (...)."""
        known: dict[tuple[int, ...], Tensor] = {}
        for factors in self.monomials:
            # each monomial is one of a lower degree, computed before, times one invariant
            last = invariants[factors[-1]]
            known[factors] = known[factors[:-1]] * last if len(factors) > 1 else last
        hidden = nn.functional.silu(self.first(torch.stack([known[factors] for factors in self.monomials], dim=-1)))
        return nn.functional.silu(self.second(hidden))


class _Block(nn.Module):
    """Separable convolution followed by mixing of the channels; maps zero to zero."""

    def __init__(
        self, settings: PonitaSettings, n_elements: int, average_neighbors: float, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        n_channels, n_hidden = settings.n_channels, settings.widening * settings.n_channels
        self.average_neighbors = average_neighbors
        self.pair_kernel = _linear(settings.n_basis, n_channels, generator)
        self.center_scale = nn.Parameter(1 + 0.5 * torch.randn(n_elements, n_channels, generator=generator))
        self.sphere_kernel = _linear(settings.n_basis + 1, n_channels, generator)
        self.norm = nn.LayerNorm(n_channels, eps=1.0, bias=False)
        self.expand = _linear(n_channels, n_hidden, generator)
        self.gate = nn.Parameter(torch.randn(n_hidden, generator=generator))
        self.contract = _linear(n_hidden, n_channels, generator)
        self.scale = nn.Parameter(torch.ones(n_channels))
        with torch.no_grad():
            self.pair_kernel.weight.mul_(_PAIR_GAIN)
            self.sphere_kernel.weight[:, :-1] *= _SPHERE_GAIN

    def forward(
        self, embedding: Tensor, change: Tensor | None, species: Tensor, neighbors: Tensor, bases: _Bases
    ) -> Tensor:
        """Compute the change of the features (n_orientations, n_atoms, n_channels) by this block.

        `change` is the sum of the changes by the blocks before, None for the first block.
        """
        gathered = (self.pair_kernel(bases.densities) * embedding).sum(dim=2)
        if change is not None:
            # sum over neighbors for each basis function and channel first: the kernels of single edges, mixed from the
            # basis, are then never stored
            sums = torch.matmul(bases.pair.transpose(-1, -2), change[:, neighbors])  # (..., n_basis, n_channels)
            gathered = gathered + (sums * self.pair_kernel.weight.T).sum(dim=-2)
        gathered = gathered * (self.center_scale[species[: len(neighbors)]] / math.sqrt(self.average_neighbors))
        # the mean over orientations o, a quadrature of the sphere
        spread = torch.einsum("poc,oac->pac", self.sphere_kernel(bases.sphere), gathered) / len(gathered)
        expanded = self.expand(self.norm(spread))
        return self.scale * self.contract(expanded * torch.sigmoid(expanded + self.gate))  # zero for zero input


def _centered(sphere_basis: Tensor) -> Tensor:
    """Subtract from functions of two orientations their mean over one; append the constant function.

    The mean over the sphere is much larger than the differences between orientations, so it gets a separate weight.
    """
    centered = sphere_basis - sphere_basis.mean(dim=1, keepdim=True)
    return torch.cat([centered, torch.ones_like(centered[..., :1])], dim=-1)


def _linear(n_inputs: int, n_outputs: int, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.Linear(n_inputs, n_outputs, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / math.sqrt(n_inputs))
    return layer
