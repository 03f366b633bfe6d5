r"""Averages over the sphere, :math:`\frac{1}{4\pi}\int \prod_{f \le k} \sum_{lm} A_{f,lm} Y_{lm}\, d\Omega` for each k.

Compiled for the CPU with first and second derivatives; beyond that through the reference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lrc_ase.models.descriptors.sphere import compiled_averages
from lrc_ase.models.descriptors.sphere.reference import averages_reference, independent
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["averages"]


def averages(channels: Tensor, shape: SphereShape) -> Tensor:
    """Averages (n_atoms, n_factors * n_channels) of `channels` (n_lm, n_atoms, n_factors * n_channels) on the CPU."""
    return _Averages.apply(channels, shape)


class _Averages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, channels: Tensor, shape: SphereShape) -> Tensor:
        channels = channels.contiguous()
        ctx.save_for_backward(channels)
        ctx.shape = shape
        made = channels.new_empty(channels.shape[1:])
        compiled_averages.average(channels.numpy(), made.numpy(), shape, torch.get_num_threads())
        return made

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None]:
        return _Gradient.apply(*ctx.saved_tensors, weights, ctx.shape), None


class _Gradient(torch.autograd.Function):
    """Gradient of `weights` times the averages by the channels."""

    @staticmethod
    def forward(ctx: Any, channels: Tensor, weights: Tensor, shape: SphereShape) -> Tensor:
        weights = weights.contiguous()
        ctx.save_for_backward(channels, weights)
        ctx.shape = shape
        gradient = torch.empty_like(channels)
        arrays = channels.numpy(), weights.numpy(), gradient.numpy()
        compiled_averages.average_backward(*arrays, shape, torch.get_num_threads())
        return gradient

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, Tensor, None]:
        channels, weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            own, own_weights = independent(channels, weights)
            made = averages_reference(own, ctx.shape)
            (gradient,) = torch.autograd.grad(made, own, own_weights, create_graph=True)
            curvature, slope = torch.autograd.grad(gradient, (own, own_weights), direction, create_graph=True)
            return curvature, slope, None
        curvature, slope = torch.empty_like(channels), torch.empty_like(weights)
        arrays = channels.numpy(), weights.numpy(), direction.contiguous().numpy(), curvature.numpy(), slope.numpy()
        compiled_averages.average_second(*arrays, ctx.shape, torch.get_num_threads())
        return curvature, slope, None
