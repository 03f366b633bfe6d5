r"""Averages over the sphere, :math:`\frac{1}{4\pi}\int \prod_{f \le k} \sum_{lm} A_{f,lm} Y_{lm}\, d\Omega` for each k.

On the CPU the averages and their first and second derivatives are compiled. Higher derivatives go through the reference
in plain torch.
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
    """Average products of densities, `channels` (n_lm, n_atoms, n_factors * n_channels), over the sphere, on the CPU.

    Return (n_atoms, n_factors * n_channels).
    """
    return _Averages.apply(channels, shape)


class _Averages(torch.autograd.Function):
    """The averages; their gradient is `_Gradient`."""

    @staticmethod
    def forward(ctx: Any, channels: Tensor, shape: SphereShape) -> Tensor:
        channels = channels.contiguous()
        ctx.save_for_backward(channels)
        ctx.shape = shape
        averages = channels.new_empty(channels.shape[1:])
        compiled_averages.average(channels.numpy(), averages.numpy(), shape, torch.get_num_threads())
        return averages

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None]:
        return _Gradient.apply(*ctx.saved_tensors, weights, ctx.shape), None


class _Gradient(torch.autograd.Function):
    """Gradient by the channels of the sum of `weights` times the averages."""

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
        # gradients are enabled in a backward pass with `create_graph` alone: somebody wants a third derivative
        if torch.is_grad_enabled():
            free_channels, free_weights = independent(channels, weights)
            averages = averages_reference(free_channels, ctx.shape)
            (gradient,) = torch.autograd.grad(averages, free_channels, free_weights, create_graph=True)
            inputs = free_channels, free_weights
            curvature, slope = torch.autograd.grad(gradient, inputs, direction, create_graph=True)
            return curvature, slope, None
        curvature, slope = torch.empty_like(channels), torch.empty_like(weights)
        arrays = channels.numpy(), weights.numpy(), direction.contiguous().numpy(), curvature.numpy(), slope.numpy()
        compiled_averages.average_second(*arrays, ctx.shape, torch.get_num_threads())
        return curvature, slope, None
