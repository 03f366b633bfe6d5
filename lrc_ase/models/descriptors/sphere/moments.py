r"""Moments of the neighbors, :math:`c_{i,lm,nz} = \sum_{j \in z} B_n(r_{ij})\, Y_{lm}(\hat r_{ij})`.

With weights :math:`w_{ijk}` the columns are (k, n) and the sum runs over all neighbors. What dynamics (first
derivatives) and training on forces (their derivatives by parameters) need is compiled for the CPU. Second derivatives
by the vectors, for Hessians, and everything beyond goes through the reference.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from lrc_ase.layer.postponed import zeros_with_derivative
from lrc_ase.models.descriptors.sphere import compiled_moments
from lrc_ase.models.descriptors.sphere.reference import independent, moments_reference
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["moments"]

Surroundings: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""`mask`, `species`, `neighbors`."""


def moments(
    vectors: Tensor,
    mask: Tensor,
    species: Tensor,
    neighbors: Tensor,
    shape: SphereShape,
    weights: Tensor | None = None,
) -> Tensor:
    """Moments (n_lm, n_atoms, n_inputs) on the CPU; arguments as in `Descriptor.forward`.

    `weights` (n_atoms, n_neighbors, n_weights) weigh the neighbors; None tells their elements apart.
    """
    around = mask.contiguous(), species.contiguous(), neighbors.contiguous()
    return _Moments.apply(vectors, weights, around, shape)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, weights: Tensor | None, around: Surroundings, shape: SphereShape) -> Tensor:
        ctx.save_for_backward(vectors, weights)
        ctx.around, ctx.shape = around, shape
        made = vectors.new_empty(shape.n_harmonics, vectors.shape[0], shape.n_inputs)
        arrays = _arrays(vectors, *around), _array(weights), made.numpy()
        compiled_moments.moment(*arrays, shape, torch.get_num_threads())
        return made

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        vectors, weights = ctx.saved_tensors
        # `_Gradient` does not differentiate by the vectors: that is slow, and no loss on forces wants it
        rest = ctx.around, ctx.shape
        by_vectors, by_weights = _Gradient.apply(vectors.detach(), weights, given, (vectors,), *rest)
        if torch.is_grad_enabled():

            def curvature(*directions: Tensor | None) -> Tensor:
                """Derivative of the gradients by the vectors."""
                full = [
                    torch.zeros_like(own) if along is None else along
                    for own, along in zip(like, directions, strict=True)
                ]
                pair = full[0], full[1] if weights is not None else None
                return _second(vectors, weights, given, pair, *rest, by_vectors=True)[0]

            like = [vectors] if weights is None else [vectors, weights]
            zeros = zeros_with_derivative(vectors, like, curvature)
            by_vectors = by_vectors + zeros[0]
            by_weights = None if weights is None else by_weights + zeros[1]
        return by_vectors, by_weights, None, None


class _Gradient(torch.autograd.Function):
    """Gradients of `given` times the moments by vectors and weights; differentiates by weights and `given` only."""

    @staticmethod
    def forward(
        ctx: Any,
        detached: Tensor,
        weights: Tensor | None,
        given: Tensor,
        hidden: tuple[Tensor],
        around: Surroundings,
        shape: SphereShape,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(weights, given)
        (ctx.vectors,), ctx.around, ctx.shape = hidden, around, shape
        by_vectors = torch.zeros_like(detached)
        by_weights = None if weights is None else torch.zeros_like(weights)
        arrays = _arrays(detached, *around), _array(weights), _array(given), _array(by_vectors), _array(by_weights)
        compiled_moments.moment_backward(*arrays, shape, torch.get_num_threads())
        return by_vectors, by_weights

    @staticmethod
    def backward(
        ctx: Any, direction: Tensor, weight_direction: Tensor | None
    ) -> tuple[None, Tensor | None, Tensor, None, None, None]:
        weights, given = ctx.saved_tensors
        if torch.is_grad_enabled():
            directions = direction, weight_direction
            found = _second(ctx.vectors, weights, given, directions, ctx.around, ctx.shape, by_vectors=False)
            return None, None if weights is None else found[0], found[-1], None, None, None
        slope, by_weights = torch.empty_like(given), None
        arrays = _arrays(ctx.vectors, *ctx.around), _array(weights), _array(direction)
        n_threads = torch.get_num_threads()
        compiled_moments.moment_slope(*arrays, _array(weight_direction), _array(slope), ctx.shape, n_threads)
        if weights is not None:
            by_weights = torch.zeros_like(weights)
            of, own, along = _arrays(ctx.vectors, *ctx.around), weights.contiguous().numpy(), _array(direction)
            compiled_moments.weight_slope(of, own, _array(given), along, by_weights.numpy(), ctx.shape, n_threads)
        return None, by_weights, slope, None, None, None


def _second(
    vectors: Tensor,
    weights: Tensor | None,
    given: Tensor,
    directions: tuple[Tensor, Tensor | None],
    around: Surroundings,
    shape: SphereShape,
    *,
    by_vectors: bool,
) -> tuple[Tensor, ...]:
    """Derivatives of `directions` times the gradients, by vectors or by weights (if any) and `given`."""
    further, (mask, species, neighbors) = torch.is_grad_enabled(), around
    with torch.enable_grad():
        # partial derivatives: the arguments may come from each other
        own, own_given = independent(vectors, given)
        own_weights = None if weights is None else independent(weights)[0]
        made = moments_reference(own, mask, species, neighbors, shape, own_weights)
        first = [own] if own_weights is None else [own, own_weights]
        gradients = torch.autograd.grad(made, first, own_given, create_graph=True)
        inputs = [own] if by_vectors else [*first[1:], own_given]
        return torch.autograd.grad(gradients, inputs, directions[: len(first)], create_graph=further)


def _arrays(vectors: Tensor, *around: Tensor) -> compiled_moments.Neighborhoods:
    mask, species, neighbors = around
    return vectors.contiguous().numpy(), mask.numpy(), species.numpy(), neighbors.numpy()


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.contiguous().numpy()
