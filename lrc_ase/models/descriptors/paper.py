r"""The paper's short-range descriptor, eqs. 9-14, in one, two and three dimensions.

.. math:: D_i = \Big[ \sum_j f_1(s_{ij})\, \hat r_{ij},\ \sum_j f_2(\hat r_{ij})\, \hat r_{ij} \Big], \qquad
          \hat r_{ij} = \frac{1 / |x_i - x_j| - \mu}{\sigma}

over neighbors within the cutoff, with two tanh networks f_1, f_2 of 2-4-8-16-32 units. In one dimension :math:`s_{ij}`
is the standardised distance, in two and three the direction :math:`(x_i - x_j)/|x_i - x_j|`.

These features are *not* invariant under rotation in two and three dimensions: they hold the direction in the frame of
the laboratory, and a model on top of them has to learn the effect of a rotation. As printed they also jump by
:math:`f\,(1/R - \mu)/\sigma` where a neighbor crosses the cutoff. `PaperSettings.envelope`, on by default, removes the
jump. For several elements, which the paper does not treat, a trained factor per feature and element of the neighbor
multiplies its contribution. With one element there is no such factor.

Source: Peng, Lin, Ying, Zepeda-Nunez, *Efficient long-range convolutions for point clouds*,
doi:10.48550/arXiv.2010.05295, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.models.descriptors.base import Descriptor
from lrc_ase.models.descriptors.envelope import distances_and_envelope
from lrc_ase.models.settings import DescriptorSettings, PaperSettings
from lrc_ase.structures.graph import Graph

__all__ = ["PaperDescriptor", "ResidualFittingNetwork", "standardized"]

_NEAREST = 0.1
"""Assumed shortest distance of neighbors without training data, in units of the cutoff."""


class PaperDescriptor(Descriptor):
    """Sums over neighbors of networks of distance and direction; see the module's formula."""

    settings_class: ClassVar[type[DescriptorSettings]] = PaperSettings
    rotation_invariant: ClassVar[bool] = False

    def __init__(
        self,
        settings: PaperSettings,
        *,
        n_elements: int,
        cutoff: float,
        average_neighbors: float,
        generator: torch.Generator | None = None,
        n_dimensions: int = 3,
    ) -> None:
        super().__init__()
        if n_dimensions not in (1, 2, 3):
            raise ValueError(f"`n_dimensions` must be 1, 2 or 3, got {n_dimensions}")
        settings = standardized(settings, _evenly_spread(cutoff, n_dimensions))
        self.settings, self.cutoff, self.n_dimensions = settings, cutoff, n_dimensions
        self.n_features = 2 * settings.widths[-1]
        self.of_position = _tanh_network(n_dimensions, settings.widths, generator)
        self.of_distance = _tanh_network(1, settings.widths, generator)
        self.neighbor_element = None
        if n_elements > 1:
            self.neighbor_element = nn.Parameter(torch.randn(n_elements, self.n_features, generator=generator))

    def forward(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        """Compute features as in the base class, from `vectors` (n_atoms, n_neighbors, n_dimensions)."""
        if vectors.shape[-1] != self.n_dimensions:
            raise ValueError(
                f"`vectors` must have shape (n_atoms, n_neighbors, {self.n_dimensions}), got {list(vectors.shape)}"
            )
        settings = self.settings
        vectors, distances, envelope = distances_and_envelope(vectors, mask, self.cutoff)
        inverse = _standardize(1 / distances, settings.inverse_mean, settings.inverse_deviation)[..., None]
        if self.n_dimensions == 1:
            position = _standardize(distances, settings.distance_mean, settings.distance_deviation)[..., None]
        else:
            position = -vectors / distances[..., None]  # x_i - x_j, the paper's sign
        # (n_atoms, n_neighbors, n_features)
        each = torch.cat([self.of_position(position), self.of_distance(inverse)], dim=-1) * inverse
        if self.neighbor_element is not None:
            each = each * self.neighbor_element[species[neighbors]]
        weight = envelope if settings.envelope else (mask & (distances < self.cutoff)).to(each)
        return (each * weight[..., None]).sum(dim=1)

    @classmethod
    def settings_from_data(cls, settings: PaperSettings, graphs: Sequence[Graph], *, cutoff: float) -> PaperSettings:
        """Return `settings` with mean and deviation of r and 1/r over all neighbors within the cutoff."""
        distances = torch.cat([_distances(graph) for graph in graphs])
        distances = distances[distances < cutoff]
        return standardized(settings, distances) if len(distances) > 1 else settings


class ResidualFittingNetwork(nn.Module):
    """The paper's read-out F: tanh layers, each added to its input where the widths agree."""

    def __init__(
        self, n_inputs: int, *, width: int = 32, n_layers: int = 6, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _glorot_linear(n_inputs if index == 0 else width, width, generator) for index in range(n_layers)
        )
        self.last = _glorot_linear(width, 1, generator)

    def forward(self, features: Tensor) -> Tensor:
        """Compute an energy per row of features, (..., n_inputs) -> (...)."""
        for layer in self.layers:
            hidden = torch.tanh(layer(features))
            features = features + hidden if hidden.shape == features.shape else hidden
        return self.last(features)[..., 0]


def standardized(settings: PaperSettings, distances: Tensor) -> PaperSettings:
    """Return `settings` whose missing means and deviations of r and 1/r come from `distances` (n,), Angstrom."""
    inverse = 1 / distances.double()
    statistics: dict[str, Any] = {
        "inverse_mean": float(inverse.mean()),
        "inverse_deviation": float(inverse.std(correction=0)),
        "distance_mean": float(distances.double().mean()),
        "distance_deviation": float(distances.double().std(correction=0)),
    }
    missing = {name: value for name, value in statistics.items() if getattr(settings, name) is None}
    # equal distances have no spread to divide by
    return settings.model_copy(update={name: 1.0 if value < 1e-6 else value for name, value in missing.items()})


def _distances(graph: Graph) -> Tensor:
    shifts = torch.matmul(graph.shifts, graph.cell[graph.structure])
    vectors = graph.positions[graph.neighbors] - graph.positions[:, None] + shifts
    return torch.linalg.norm(vectors[graph.neighbor_mask], dim=-1)


def _evenly_spread(cutoff: float, n_dimensions: int) -> Tensor:
    """Return the distances of neighbors that fill the ball around an atom evenly, except its innermost tenth."""
    fractions = (np.arange(10_000) + 0.5) / 10_000
    lowest = _NEAREST**n_dimensions  # the volume within a distance grows with its power n_dimensions
    return torch.from_numpy(cutoff * (lowest + (1 - lowest) * fractions) ** (1 / n_dimensions))


def _standardize(values: Tensor, mean: float | None, deviation: float | None) -> Tensor:
    assert mean is not None
    assert deviation is not None
    return (values - mean) / deviation


def _tanh_network(n_inputs: int, widths: Sequence[int], generator: torch.Generator | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((n_inputs, *widths)):
        layers += [_glorot_linear(n_in, n_out, generator), nn.Tanh()]
    return nn.Sequential(*layers)


def _glorot_linear(n_inputs: int, n_outputs: int, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.Linear(n_inputs, n_outputs)
    with torch.no_grad():
        nn.init.xavier_normal_(layer.weight, generator=generator)
        layer.bias.zero_()
    return layer
