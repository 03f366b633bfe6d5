r"""Convolutions over positions and orientations, R^3 x S^2.

Features f_i(o) live at each atom i and each of a fixed set of orientations o. A block turns them into

.. math:: h_i(o)  &= \frac{1}{\sqrt{\bar n}} \sum_j e(r_{ij})\, k_1(o \cdot r_{ij}, |r_{ij}|) * f_j(o)
                      && \text{neighbors, orientation by orientation} \\
          g_i(o)  &= \frac{1}{n_o} \sum_{o'} k_2(o \cdot o') * h_i(o')   && \text{over the sphere} \\
          f_i(o) &\leftarrow f_i(o) + s * \mathrm{MLP}(\mathrm{norm}(g_i(o)))  && \text{over channels}

with * channel by channel: the ConvNeXt block with its convolution separated in three. The arguments of the kernels are
the invariants of two (position, orientation) pairs under rotations and translations; |r| stands for the distance from
the axis o, :math:`\sqrt{r^2 - (o \cdot r)^2}`, which says the same but has a cusp on the axis. The kernels are mixed
from a common basis, an MLP of all monomials of the scaled invariants up to a degree (3). The features of an atom are
means over o of the change of f_i(o): integrals over the sphere, invariant in the limit of many orientations.

Source: Bekkers, Vadgama, Hesselink, van der Linden, Romero, *Fast, expressive SE(n) equivariant networks through
weight-sharing in position-orientation space* (2024), arXiv:2310.02970. Differences: envelope e and distance make it
smooth; the norm has no bias and adds 1 to the variance, so that a neighbor comes in gently at the cutoff however
empty the rest; nothing but neighbors feeds the features, which are zero without them.
"""

from __future__ import annotations

import math
from itertools import combinations_with_replacement
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..readout import random_linear
from ..settings import DescriptorSettings, PonitaSettings
from .base import Descriptor
from .envelope import distances_and_envelope
from .orientations import even_directions, random_rotation

__all__ = ["PonitaDescriptor"]

_BASIS_GAIN, _PAIR_GAIN, _SPHERE_GAIN = 3.0, 2.0, 6.0
"""Of the first weights: with them features differ by order one between atoms and orientations before training."""


class PonitaDescriptor(Descriptor):
    """Position-orientation convolutions; see the module's formula."""

    settings_class: ClassVar[type[DescriptorSettings]] = PonitaSettings
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
        # in the file: another version of the optimizer may find another set
        directions = torch.from_numpy(even_directions(settings.n_orientations)).to(torch.get_default_dtype())
        self.register_buffer("orientations", directions)
        # the seed of the next turn of the grid, counted up: with it in the checkpoint a resumed run draws the same
        self.register_buffer("next_turn", torch.randint(2**31, (), generator=generator))
        self.species = nn.Embedding(n_elements, settings.n_channels)
        with torch.no_grad():
            self.species.weight.copy_(torch.randn(self.species.weight.shape, generator=generator))
        self.pair_basis = _Basis(2, settings, generator)
        self.sphere_basis = _Basis(1, settings, generator)
        self.blocks = nn.ModuleList(_Block(settings, average_neighbors, generator) for _ in range(settings.n_layers))

    def forward(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        return self._on_the_sphere(vectors, mask, species, neighbors)[0].mean(dim=1)

    def vector_features(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        """Vectors that turn with the surroundings, :math:`3 <o f_i(o)>`, as nearly as the features stay.

        Arguments as in `forward` -> (n_atoms, n_features, 3).
        """
        features, orientations = self._on_the_sphere(vectors, mask, species, neighbors)
        return 3 * torch.einsum("aoc,od->acd", features, orientations) / len(orientations)

    def _on_the_sphere(
        self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features at each orientation (n_atoms, n_orientations, n_channels), and the orientations."""
        orientations = self._orientations(vectors)
        vectors, distances, envelope = distances_and_envelope(vectors, mask, self.cutoff)
        along = torch.matmul(vectors / self.cutoff, orientations.T)  # (n_atoms, n_neighbors, n_orientations)
        scaled = (2 * distances / self.cutoff - 1)[..., None].expand_as(along)
        pair_basis = self.pair_basis([along, scaled]) * envelope[..., None, None]
        sphere_basis = _centered(self.sphere_basis([orientations @ orientations.T]))
        embedded = self.species(species)[:, None]  # the same at each orientation
        change = torch.zeros_like(embedded)
        for block in self.blocks:
            change = change + block(embedded + change, neighbors, pair_basis, sphere_basis)
        return change, orientations

    def _orientations(self, like: Tensor) -> Tensor:
        """Unit vectors; in training turned at random where the settings say so."""
        orientations = nn.functional.normalize(self.orientations.to(like), dim=1)
        if self.training and self.settings.rotate_grid:
            generator = torch.Generator().manual_seed(int(self.next_turn))
            self.next_turn += 1
            orientations = orientations @ random_rotation(generator).to(like)
        return orientations


class _Basis(nn.Module):
    """MLP of the monomials of invariants."""

    def __init__(self, n_invariants: int, settings: PonitaSettings, generator: torch.Generator | None) -> None:
        super().__init__()
        degrees = range(1, settings.degree + 1)
        self.monomials = [
            factors for degree in degrees for factors in combinations_with_replacement(range(n_invariants), degree)
        ]
        self.first = random_linear(len(self.monomials), settings.n_basis, generator)
        self.second = random_linear(settings.n_basis, settings.n_basis, generator)
        with torch.no_grad():
            for layer in (self.first, self.second):  # bends of the basis all over the range of the invariants
                layer.weight.mul_(_BASIS_GAIN)
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))

    def forward(self, invariants: list[Tensor]) -> Tensor:
        """Invariants of one shape (...) -> (..., n_basis)."""
        known: dict[tuple[int, ...], Tensor] = {}
        for factors in self.monomials:
            last = invariants[factors[-1]]
            known[factors] = known[factors[:-1]] * last if len(factors) > 1 else last
        hidden = nn.functional.silu(self.first(torch.stack([known[factors] for factors in self.monomials], dim=-1)))
        return nn.functional.silu(self.second(hidden))


class _Block(nn.Module):
    """Separated convolution, then mixing of the channels; zero where nothing comes in."""

    def __init__(self, settings: PonitaSettings, average_neighbors: float, generator: torch.Generator | None) -> None:
        super().__init__()
        n_channels, n_hidden = settings.n_channels, settings.widening * settings.n_channels
        self.average_neighbors = average_neighbors
        self.pair_kernel = _linear(settings.n_basis, n_channels, generator)
        self.sphere_kernel = _linear(settings.n_basis + 1, n_channels, generator)
        self.norm = nn.LayerNorm(n_channels, eps=1.0, bias=False)
        self.expand = random_linear(n_channels, n_hidden, generator)
        self.contract = _linear(n_hidden, n_channels, generator)
        self.scale = nn.Parameter(torch.ones(n_channels))
        with torch.no_grad():
            self.pair_kernel.weight.mul_(_PAIR_GAIN)
            self.sphere_kernel.weight[:, :-1] *= _SPHERE_GAIN
            self.expand.bias.copy_(0.5 * torch.randn(n_hidden, generator=generator))

    def forward(self, features: Tensor, neighbors: Tensor, pair_basis: Tensor, sphere_basis: Tensor) -> Tensor:
        """Change of `features` (n_atoms, n_orientations or 1, n_channels)."""
        kernel = self.pair_kernel(pair_basis) / math.sqrt(self.average_neighbors)
        gathered = (kernel * features[neighbors]).sum(dim=1)  # (n_atoms, n_orientations, n_channels)
        spread = torch.einsum("poc,aoc->apc", self.sphere_kernel(sphere_basis), gathered) / gathered.shape[1]
        hidden = nn.functional.gelu(self.expand(self.norm(spread))) - nn.functional.gelu(self.expand.bias)
        return self.scale * self.contract(hidden)


def _centered(sphere_basis: Tensor) -> Tensor:
    """Functions of two orientations less their mean over one, and the constant function as one more.

    The mean over the sphere would drown what tells orientations apart: it gets a weight of its own.
    """
    centered = sphere_basis - sphere_basis.mean(dim=1, keepdim=True)
    return torch.cat([centered, torch.ones_like(centered[..., :1])], dim=-1)


def _linear(n_inputs: int, n_outputs: int, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.Linear(n_inputs, n_outputs, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / math.sqrt(n_inputs))
    return layer
