r"""Moments of the neighbors, :math:`c_{i,lm,nz} = \sum_{j \in z} B_n(r_{ij})\, Y_{lm}(\hat r_{ij})`.

What dynamics (first derivatives) and training on forces (their derivatives by parameters) need is compiled for the
CPU. Second derivatives by the vectors, for Hessians, and everything beyond goes through the reference.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from . import compiled_moments
from .reference import independent, moments_reference
from .shape import SphereShape

__all__ = ["moments"]

Surroundings: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""`mask`, `species`, `neighbors`."""


def moments(vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor, shape: SphereShape) -> Tensor:
    """Moments (n_lm, n_atoms, n_inputs); the arguments are those of `Descriptor.forward`, contiguous, on the CPU."""
    return _Moments.apply(vectors, (mask.contiguous(), species.contiguous(), neighbors.contiguous()), shape)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, around: Surroundings, shape: SphereShape) -> Tensor:
        ctx.save_for_backward(vectors)
        ctx.around, ctx.shape = around, shape
        made = vectors.new_empty(shape.n_harmonics, vectors.shape[0], shape.n_inputs)
        compiled_moments.moment(_arrays(vectors, *around), made.numpy(), shape, torch.get_num_threads())
        return made

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None, None]:
        (vectors,) = ctx.saved_tensors
        # Two nodes of the graph, one for each argument: a derivative by parameters does not visit the second one,
        # whose own derivative is slow. What a node does not differentiate by is hidden from it in a tuple.
        gradient = _Gradient.apply(vectors.detach(), weights, (vectors,), ctx.around, ctx.shape)
        if torch.is_grad_enabled():
            gradient = gradient + _Curvature.apply(vectors, (weights,), ctx.around, ctx.shape)
        return gradient, None, None


class _Gradient(torch.autograd.Function):
    """Gradient of `weights` times the moments by the vectors; differentiates by `weights` only."""

    @staticmethod
    def forward(
        ctx: Any, detached: Tensor, weights: Tensor, hidden: tuple[Tensor], around: Surroundings, shape: SphereShape
    ) -> Tensor:
        (ctx.vectors,), ctx.around, ctx.shape = hidden, around, shape
        gradient = torch.zeros_like(detached)
        arrays = _arrays(detached, *around), _array(weights), _array(gradient)
        compiled_moments.moment_backward(*arrays, shape, torch.get_num_threads())
        return gradient

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[None, Tensor, None, None, None]:
        return None, _slope(ctx.vectors, direction, ctx.around, ctx.shape), None, None, None


class _Curvature(torch.autograd.Function):
    """Zero, with the derivative by the vectors that `_Gradient` leaves out."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, hidden: tuple[Tensor], around: Surroundings, shape: SphereShape) -> Tensor:
        ctx.save_for_backward(vectors)
        (ctx.weights,), ctx.around, ctx.shape = hidden, around, shape
        return torch.zeros_like(vectors)

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, None, None, None]:
        (vectors,) = ctx.saved_tensors
        further, (mask, species, neighbors) = torch.is_grad_enabled(), ctx.around
        with torch.enable_grad():
            # partial derivatives: the weights may themselves come from the vectors
            own, weights = independent(vectors, ctx.weights)
            made = moments_reference(own, mask, species, neighbors, ctx.shape)
            (gradient,) = torch.autograd.grad(made, own, weights, create_graph=True)
            (curvature,) = torch.autograd.grad(gradient, own, direction, create_graph=further)
        return curvature, None, None, None


def _slope(vectors: Tensor, direction: Tensor, around: Surroundings, shape: SphereShape) -> Tensor:
    """Change of the moments along `direction`."""
    if not torch.is_grad_enabled():
        slope = direction.new_empty(shape.n_harmonics, vectors.shape[0], shape.n_inputs)
        arrays = _arrays(vectors, *around), _array(direction), _array(slope)
        compiled_moments.moment_slope(*arrays, shape, torch.get_num_threads())
        return slope
    (own,) = independent(vectors)
    made = moments_reference(own, *around, shape)
    weights = torch.zeros_like(made, requires_grad=True)
    (gradient,) = torch.autograd.grad(made, own, weights, create_graph=True)
    return torch.autograd.grad(gradient, weights, direction, create_graph=True)[0]


def _arrays(vectors: Tensor, *around: Tensor) -> compiled_moments.Neighborhoods:
    mask, species, neighbors = around
    return _array(vectors), _array(mask), _array(species), _array(neighbors)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy()
