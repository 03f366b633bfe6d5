r"""Averages over the sphere, :math:`\frac{1}{4\pi}\int \prod_{f \le k} \sum_{lm} A_{f,lm} Y_{lm}\, d\Omega` for each k.

Vector averages have the direction :math:`\hat n` as one more factor. They turn with the structure.

On the CPU the averages and their first and second derivatives are compiled. Higher derivatives go through the reference
in plain torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lrc_ase.models.descriptors.sphere import compiled_averages
from lrc_ase.models.descriptors.sphere.reference import averages_reference, independent
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["averages"]


def averages(channels: Tensor, shape: SphereShape) -> tuple[Tensor, Tensor]:
    """Average products of densities, `channels` (n_lm, n_atoms, n_factors * n_channels), over the sphere, on the CPU.

    Return the averages, (n_atoms, n_factors * n_channels), and those of the first `shape.n_vectors` products times the
    direction, (3, n_atoms, n_vectors * n_channels).
    """
    return _Averages.apply(channels, shape)


class _Averages(torch.autograd.Function):
    """The averages; their gradient is `_Gradient`."""

    @staticmethod
    def forward(ctx: Any, channels: Tensor, shape: SphereShape) -> tuple[Tensor, Tensor]:
        # kernels address flat memory and check no strides
        channels = channels.contiguous()
        ctx.save_for_backward(channels)
        ctx.shape = shape
        averages = _empty(channels, shape)
        compiled_averages.average(channels.numpy(), _arrays(averages), shape, torch.get_num_threads())
        return averages

    @staticmethod
    def backward(ctx: Any, weights: Tensor, vector_weights: Tensor) -> tuple[Tensor, None]:
        # a function of its own instead of a kernel call: losses on forces differentiate this gradient once more
        return _Gradient.apply(*ctx.saved_tensors, weights, vector_weights, ctx.shape), None


class _Gradient(torch.autograd.Function):
    """Gradient by the channels of the sum of `weights` times the averages."""

    @staticmethod
    def forward(ctx: Any, channels: Tensor, weights: Tensor, vector_weights: Tensor, shape: SphereShape) -> Tensor:
        weights, vector_weights = weights.contiguous(), vector_weights.contiguous()
        ctx.save_for_backward(channels, weights, vector_weights)
        ctx.shape = shape
        gradient = torch.empty_like(channels)
        arrays = channels.numpy(), _arrays((weights, vector_weights)), gradient.numpy()
        compiled_averages.average_backward(*arrays, shape, torch.get_num_threads())
        return gradient

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        channels, *weights = ctx.saved_tensors
        # gradients are enabled in a backward pass with `create_graph` alone: somebody wants a third derivative
        if torch.is_grad_enabled():
            free_channels, *free_weights = independent(channels, *weights)
            averages = averages_reference(free_channels, ctx.shape)
            # partial derivatives: the weights may depend on the channels, as in the gradient of a loss
            (gradient,) = torch.autograd.grad(averages, free_channels, free_weights, create_graph=True)
            inputs = free_channels, *free_weights
            curvature, slope, vector_slope = torch.autograd.grad(
                gradient, inputs, direction, create_graph=True, allow_unused=True, materialize_grads=True
            )
            return curvature, slope, vector_slope, None
        # one kernel for both: they share the values at the points and their tangents
        curvature, slopes = torch.empty_like(channels), _empty(channels, ctx.shape)
        arrays = channels.numpy(), _arrays(weights), direction.contiguous().numpy(), curvature.numpy(), _arrays(slopes)
        compiled_averages.average_second(*arrays, ctx.shape, torch.get_num_threads())
        return curvature, *slopes, None


def _empty(channels: Tensor, shape: SphereShape) -> tuple[Tensor, Tensor]:
    """Return uninitialized averages and vector averages."""
    n_atoms = channels.shape[1]
    # (n_atoms, n_factors * n_channels) and (3, n_atoms, n_vectors * n_channels); kernels write every entry
    return channels.new_empty(channels.shape[1:]), channels.new_empty(3, n_atoms, shape.n_vectors * shape.n_channels)


def _arrays(pair: Sequence[Tensor]) -> compiled_averages.Averages:
    averages, vectors = pair
    return averages.numpy(), vectors.numpy()
