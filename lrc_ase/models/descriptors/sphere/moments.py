r"""Moments of the neighbors, :math:`c_{i,lm,nz} = \sum_{j \in z} B_n(r_{ij})\, Y_{lm}(\hat r_{ij})`.

With weights :math:`w_{ijk}` the columns are (k, n) and the sum runs over all neighbors. Compiled for the CPU are the
first derivatives, which dynamics needs, and their derivatives by parameters, which training on forces needs. Second
derivatives by the vectors (for Hessians) and higher derivatives go through the reference in plain torch.

A "cotangent" is the gradient of a loss by the moments.
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
    """Compute the moments (n_lm, n_atoms, n_inputs) on the CPU; arguments as in `Descriptor.forward`.

    `weights` (n_atoms, n_neighbors, n_weights) multiply the contributions of the neighbors. None selects one group of
    columns per element of the neighbor.
    """
    around = mask.contiguous(), species.contiguous(), neighbors.contiguous()
    return _Moments.apply(vectors, weights, around, shape)


class _Moments(torch.autograd.Function):
    """The moments; their gradients by vectors and weights are `_Gradient`."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, weights: Tensor | None, around: Surroundings, shape: SphereShape) -> Tensor:
        ctx.save_for_backward(vectors, weights)
        ctx.around, ctx.shape = around, shape
        sums = vectors.new_empty(shape.n_harmonics, vectors.shape[0], shape.n_inputs)  # kernels write every entry
        arrays = _arrays(vectors, *around), _array(weights), sums.numpy()
        compiled_moments.moment(*arrays, shape, torch.get_num_threads())
        return sums

    @staticmethod
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        vectors, weights = ctx.saved_tensors
        # `_Gradient` does not differentiate by the vectors: that is slow, and training on forces never needs it. A
        # separate node, whose value is zero, carries this derivative and costs nothing unless it is requested.
        rest = ctx.around, ctx.shape
        by_vectors, by_weights = _Gradient.apply(vectors.detach(), weights, cotangents, (vectors,), *rest)
        if torch.is_grad_enabled():

            def curvature(*directions: Tensor | None) -> Tensor:
                """Differentiate the gradients times `directions` by the vectors."""
                # autograd passes None for an output that the loss does not depend on
                full = [
                    torch.zeros_like(tensor) if along is None else along
                    for tensor, along in zip(like, directions, strict=True)
                ]
                pair = full[0], full[1] if weights is not None else None
                return _second(vectors, weights, cotangents, pair, *rest, by_vectors=True)[0]

            like = [vectors] if weights is None else [vectors, weights]
            zeros = zeros_with_derivative(vectors, like, curvature)
            by_vectors = by_vectors + zeros[0]
            by_weights = None if weights is None else by_weights + zeros[1]
        return by_vectors, by_weights, None, None


class _Gradient(torch.autograd.Function):
    """Gradients, by vectors and weights, of the sum of `cotangents` times the moments.

    The backward pass differentiates by weights and cotangents only. The vectors come detached; the tuple `hidden` holds
    them once more, where autograd does not see them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        detached: Tensor,
        weights: Tensor | None,
        cotangents: Tensor,
        hidden: tuple[Tensor],
        around: Surroundings,
        shape: SphereShape,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(weights, cotangents)
        # in a tuple autograd does not see a tensor: no derivative by it is recorded here
        (ctx.vectors,), ctx.around, ctx.shape = hidden, around, shape
        # zeros: kernels skip padding and neighbors beyond the cutoff
        by_vectors = torch.zeros_like(detached)
        by_weights = None if weights is None else torch.zeros_like(weights)
        arrays = _arrays(detached, *around), _array(weights), _array(cotangents), _array(by_vectors), _array(by_weights)
        compiled_moments.moment_backward(*arrays, shape, torch.get_num_threads())
        return by_vectors, by_weights

    @staticmethod
    def backward(
        ctx: Any, direction: Tensor, weight_direction: Tensor | None
    ) -> tuple[None, Tensor | None, Tensor, None, None, None]:
        weights, cotangents = ctx.saved_tensors
        # only with `create_graph` in the backward pass: the result must be differentiable again
        if torch.is_grad_enabled():
            directions = direction, weight_direction
            derivatives = _second(ctx.vectors, weights, cotangents, directions, ctx.around, ctx.shape, by_vectors=False)
            return None, None if weights is None else derivatives[0], derivatives[-1], None, None, None
        # the moments are linear in the cotangents: the derivative by these is the slope of the moments
        slope, by_weights = torch.empty_like(cotangents), None
        arrays = _arrays(ctx.vectors, *ctx.around), _array(weights), _array(direction)
        n_threads = torch.get_num_threads()
        compiled_moments.moment_slope(*arrays, _array(weight_direction), _array(slope), ctx.shape, n_threads)
        # weights enter linearly too: the gradient by them changes with the vectors alone
        if weights is not None:
            by_weights = torch.zeros_like(weights)
            of, along = _arrays(ctx.vectors, *ctx.around), _array(direction)
            arguments = of, _array(weights), _array(cotangents), along, by_weights.numpy()
            compiled_moments.weight_slope(*arguments, ctx.shape, n_threads)
        return None, by_weights, slope, None, None, None


def _second(
    vectors: Tensor,
    weights: Tensor | None,
    cotangents: Tensor,
    directions: tuple[Tensor, Tensor | None],
    around: Surroundings,
    shape: SphereShape,
    *,
    by_vectors: bool,
) -> tuple[Tensor, ...]:
    """Differentiate `directions` times the gradients, by vectors or by weights (if any) and `cotangents`."""
    further, (mask, species, neighbors) = torch.is_grad_enabled(), around
    with torch.enable_grad():
        # partial derivatives: in a second block the weights depend on the vectors
        free_vectors, free_cotangents = independent(vectors, cotangents)
        free_weights = None if weights is None else independent(weights)[0]
        sums = moments_reference(free_vectors, mask, species, neighbors, shape, free_weights)
        first = [free_vectors] if free_weights is None else [free_vectors, free_weights]
        gradients = torch.autograd.grad(sums, first, free_cotangents, create_graph=True)
        # by vectors for `curvature`; all others for `_Gradient.backward`
        inputs = [free_vectors] if by_vectors else [*first[1:], free_cotangents]
        return torch.autograd.grad(gradients, inputs, directions[: len(first)], create_graph=further)


def _arrays(vectors: Tensor, *around: Tensor) -> compiled_moments.Neighborhoods:
    mask, species, neighbors = around
    return vectors.contiguous().numpy(), mask.numpy(), species.numpy(), neighbors.numpy()


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.contiguous().numpy()
