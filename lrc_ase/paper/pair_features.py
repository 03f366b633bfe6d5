r"""The paper's descriptor pair by pair, with derivatives by the vector between the points.

For a pair i, j with :math:`v = x_j - x_i = r n` the features of i are :math:`D(v)`, those of j :math:`D(-v)`. Some are
functions of r alone and the same for both; the others are a function of the direction, :math:`\mp n`, times one of r:

.. math:: D(\pm v) = [A(r),\ B(\mp n)\,q(r)], \qquad
          \nabla D = [A' n,\ B\,q'\,n + \tfrac qr \textstyle\sum_t \partial_t B\; t]

with unit vectors t perpendicular to n. Derivatives pass through the networks in forward mode, one direction at a time:
this is cheap for 64 features of one to three variables, and the results are differentiable by the parameters of the
networks. In one dimension all features are of the first kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrc_ase.models.descriptors.paper import PaperDescriptor

__all__ = ["PairFeatures", "pair_features"]


@dataclass(frozen=True)
class PairFeatures:
    """Features of `n_pairs` pairs; those of the first point see `direction`, those of the second its opposite."""

    direction: Tensor
    """Unit vectors n from the first to the second point, (n_pairs, d)."""
    radial: Tensor
    """A, (n_pairs, n_radial)."""
    radial_slope: Tensor
    """A', (n_pairs, n_radial)."""
    angular: Tensor
    """B at either point, (2, n_pairs, n_angular); n_angular = 0 in one dimension."""
    angular_slopes: Tensor
    """Derivatives of B along the perpendiculars, (d - 1, 2, n_pairs, n_angular)."""
    perpendicular: Tensor
    """The perpendiculars t divided by the distance, (d - 1, n_pairs, d)."""
    factor: Tensor
    """q, (n_pairs, 1)."""
    factor_slope: Tensor
    """q', (n_pairs, 1)."""

    def values(self) -> tuple[Tensor, Tensor]:
        """Return features of the first and the second points, each (n_pairs, n_features), angular ones first."""
        first, second = (torch.cat([angular * self.factor, self.radial], dim=1) for angular in self.angular)
        return first, second

    def slopes(self) -> Tensor:
        """Differentiate the summed features of both points by the vector, (d, n_pairs, n_features)."""
        along = self.direction.T[..., None]
        slopes = self.angular.sum(dim=0) * self.factor_slope * along
        for slope, perpendicular in zip(self.angular_slopes, self.perpendicular, strict=True):
            slopes = slopes + slope.sum(dim=0) * self.factor * perpendicular.T[..., None]
        return torch.cat([slopes, 2 * self.radial_slope * along], dim=-1)

    def pull(self, first: Tensor, second: Tensor) -> Tensor:
        """Differentiate an energy by the vector, (n_pairs, d).

        `first` and `second` (n_pairs, n_features) are its derivatives by the features of the two points.
        """
        n_angular = self.angular.shape[-1]
        along = ((first[:, n_angular:] + second[:, n_angular:]) * self.radial_slope).sum(dim=1, keepdim=True)
        if n_angular == 0:
            return along * self.direction
        ends = torch.stack([first[:, :n_angular], second[:, :n_angular]])
        along = along + self.factor_slope * (ends * self.angular).sum(dim=(0, 2))[:, None]
        pull = along * self.direction
        for slope, perpendicular in zip(self.angular_slopes, self.perpendicular, strict=True):
            pull = pull + self.factor * (ends * slope).sum(dim=(0, 2))[:, None] * perpendicular
        return pull


def pair_features(descriptor: PaperDescriptor, vectors: Tensor) -> PairFeatures:
    """Compute the features of pairs with `vectors` (n_pairs, d) within the cutoff."""
    settings, dimension = descriptor.settings, vectors.shape[1]
    distance = vectors.norm(dim=1, keepdim=True)
    direction = vectors / distance
    factor, factor_slope = _standardized(
        1 / distance, -1 / distance**2, settings.inverse_mean, settings.inverse_deviation
    )
    networks, networks_slope = _forwards(descriptor.of_distance, factor, factor_slope[None])
    turning = _perpendicular(direction)
    if dimension == 1:
        position = _standardized(
            distance, torch.ones_like(distance), settings.distance_mean, settings.distance_deviation
        )
        values, slopes = _forwards(descriptor.of_position, position[0], position[1][None])
        networks, networks_slope = torch.cat([values, networks], dim=1), torch.cat([slopes, networks_slope], dim=2)
        angular = networks.new_zeros(2, len(vectors), 0)
        angular_slopes = networks.new_zeros(0, 2, len(vectors), 0)
    else:
        # x_i - x_j seen from the first point, the opposite from the second
        inputs, input_slopes = torch.cat([-direction, direction]), torch.cat([-turning, turning], dim=1)
        values, slopes = _forwards(descriptor.of_position, inputs, input_slopes)
        angular, angular_slopes = values.unflatten(0, (2, -1)), slopes.unflatten(1, (2, -1))
    return PairFeatures(
        direction=direction,
        radial=networks * factor,
        radial_slope=networks_slope[0] * factor + networks * factor_slope,
        angular=angular,
        angular_slopes=angular_slopes,
        perpendicular=turning / distance,
        factor=factor,
        factor_slope=factor_slope,
    )


def _forwards(network: nn.Sequential, values: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Pass values (n, n_in) and slopes (m, n, n_in) through linear layers and tanh: (n, n_out) and (m, n, n_out)."""
    for layer in network:
        values = layer(values)
        slopes = slopes @ layer.weight.T if isinstance(layer, nn.Linear) else slopes * (1 - values**2)
    return values, slopes


def _standardized(values: Tensor, slopes: Tensor, mean: float | None, deviation: float | None) -> tuple[Tensor, Tensor]:
    assert mean is not None
    assert deviation is not None
    return (values - mean) / deviation, slopes / deviation


def _perpendicular(direction: Tensor) -> Tensor:
    """Return unit vectors perpendicular to `direction` (n, d) and to each other, (d - 1, n, d)."""
    n_pairs, dimension = direction.shape
    if dimension == 1:
        return direction.new_zeros(0, n_pairs, 1)
    if dimension == 2:
        return torch.stack([-direction[:, 1], direction[:, 0]], dim=1)[None]
    # away from the axis that is least along the direction
    axis = torch.nn.functional.one_hot(direction.abs().argmin(dim=1), dimension).to(direction)
    one = torch.linalg.cross(direction, axis)
    one = one / one.norm(dim=1, keepdim=True)
    return torch.stack([one, torch.linalg.cross(direction, one)])
