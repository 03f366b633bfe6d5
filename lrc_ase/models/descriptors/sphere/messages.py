r"""Moments of neighbors that hand on messages.

The message of atom j holds K scalars and K vectors, functions on the sphere for k = 1 to K,

.. math:: h_{jk}(\hat n) = h_{jk0} + \sqrt 3\, \hat n \cdot \mathbf h_{jk}.
 The neighbors of atom i form the density

.. math:: D_{ik}(\hat n) = \sum_j \sum_{lm} R_k(r_{ij})\, Y_{lm}(\hat r_{ij})\, Y_{lm}(\hat n)\, h_{jk}(\hat n),

with a radial function for the scalars and another one for the vectors, both mixed from the functions B_n of the first
block. A product of a harmonic of degree l with a vector has degrees l - 1 and l + 1. The moments hold all three parts
(scalars, vectors that raised the degree, vectors that lowered it) up to the highest degree of the shape. Each part
turns as a harmonic of its degree does, so that the density stays equivariant.

Compiled for the CPU are first derivatives and their derivatives by messages and radial mixing, as in `moments`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lrc_ase.compiled.simd import native_width
from lrc_ase.layer.postponed import zeros_with_derivative
from lrc_ase.models.descriptors.sphere import compiled_messages
from lrc_ase.models.descriptors.sphere.reference import independent, message_moments_reference
from lrc_ase.models.descriptors.sphere.shape import SphereShape

__all__ = ["message_moments"]

Surroundings: TypeAlias = tuple[Tensor, Tensor]
"""`mask`, `neighbors`."""


def message_moments(
    vectors: Tensor, mask: Tensor, neighbors: Tensor, messages: Tensor, mixing: Tensor, shape: SphereShape
) -> Tensor:
    """Compute the moments (n_lm, n_atoms, 3 K) on the CPU; `vectors`, `mask`, `neighbors` as in `Descriptor.forward`.

    `messages` (n_atoms with ghosts, 4, K) hold the scalars, then the three components of the vectors, `mixing`
    (2, n_radial, K) the radial functions of scalars and vectors.
    """
    n_messages = mixing.shape[-1]
    missing = -n_messages % native_width(mixing.element_size(), n_messages)
    if missing:  # kernels work on whole vectors
        messages, mixing = nn.functional.pad(messages, (0, missing)), nn.functional.pad(mixing, (0, missing))
    around = mask.contiguous(), neighbors.contiguous()
    moments = _Moments.apply(vectors, messages, mixing, around, shape)
    # (n_lm, n_atoms, 3, padded K) -> (n_lm, n_atoms, 3 K)
    return moments.unflatten(-1, (3, -1))[..., :n_messages].flatten(-2) if missing else moments


class _Moments(torch.autograd.Function):
    """The moments; their gradients are `_Gradient`."""

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, messages: Tensor, mixing: Tensor, around: Surroundings, shape: SphereShape
    ) -> Tensor:
        messages, mixing = messages.contiguous(), mixing.contiguous()
        ctx.save_for_backward(vectors, messages, mixing)
        ctx.around, ctx.shape = around, shape
        moments = vectors.new_empty(shape.n_harmonics, len(vectors), 3 * mixing.shape[-1])  # kernels write every entry
        arrays = _arrays(vectors, *around), _pair(messages, mixing), moments.numpy()
        compiled_messages.message_moment(*arrays, shape, torch.get_num_threads())
        return moments

    @staticmethod
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        vectors, messages, mixing = ctx.saved_tensors
        rest = ctx.around, ctx.shape
        # training on forces never differentiates `_Gradient` by the vectors: see `moments`
        gradients = _Gradient.apply(vectors.detach(), messages, mixing, cotangents, (vectors,), *rest)
        if torch.is_grad_enabled():
            like = vectors, messages, mixing

            def curvature(*directions: Tensor | None) -> Tensor:
                """Differentiate the gradients times `directions` by the vectors."""
                return _second(vectors, messages, mixing, cotangents, directions, *rest, by_vectors=True)[0]

            # a node of value zero: its costly derivative runs only if somebody asks for it
            zeros = zeros_with_derivative(vectors, like, curvature)
            gradients = tuple(one + zero for one, zero in zip(gradients, zeros, strict=True))
        return *gradients, None, None


class _Gradient(torch.autograd.Function):
    """Gradients by vectors, messages and mixing of the sum of `cotangents` times the moments.

    The backward pass differentiates by all but the vectors, which come detached and, hidden from autograd, in a tuple.
    """

    @staticmethod
    def forward(
        ctx: Any,
        detached: Tensor,
        messages: Tensor,
        mixing: Tensor,
        cotangents: Tensor,
        hidden: tuple[Tensor],
        around: Surroundings,
        shape: SphereShape,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)  # None: the loss does not depend on this gradient
        cotangents = cotangents.contiguous()
        ctx.save_for_backward(messages, mixing, cotangents)
        # in a tuple autograd does not see a tensor: no derivative by it is recorded here
        (ctx.vectors,), ctx.around, ctx.shape = hidden, around, shape
        # zeros: kernels skip padding and neighbors beyond the cutoff
        by_vectors = torch.zeros(detached.shape, dtype=detached.dtype)
        arrays = _arrays(detached, *around), _pair(messages, mixing), cotangents.numpy(), by_vectors.numpy()
        by_messages, by_mixing = compiled_messages.message_pull(
            *arrays, shape, torch.get_num_threads(), by_mixing=ctx.needs_input_grad[2]
        )
        return by_vectors, torch.from_numpy(by_messages), torch.from_numpy(by_mixing)

    @staticmethod
    def backward(
        ctx: Any, direction: Tensor | None, message_direction: Tensor | None, mixing_direction: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        messages, mixing, cotangents = ctx.saved_tensors
        directions = direction, message_direction, mixing_direction
        # a loss on forces does not depend on the gradient by the mixing
        if torch.is_grad_enabled() or mixing_direction is not None:
            rest = ctx.around, ctx.shape
            seconds = _second(ctx.vectors, messages, mixing, cotangents, directions, *rest, by_vectors=False)
            return None, *seconds, None, None, None
        along, changed = (
            torch.zeros_like(tensor) if one is None else one.contiguous()
            for tensor, one in zip((ctx.vectors, messages), directions[:2], strict=True)
        )
        # the moments are linear in the cotangents: the derivative by these is the slope of the moments
        slope = torch.empty_like(cotangents)
        of, carried, n_threads = _arrays(ctx.vectors, *ctx.around), _pair(messages, mixing), torch.get_num_threads()
        moved = along.numpy(), changed.numpy()
        compiled_messages.message_slope(of, carried, *moved, slope.numpy(), ctx.shape, n_threads)
        by_both = compiled_messages.message_second(of, carried, cotangents.numpy(), *moved, ctx.shape, n_threads)
        return None, *map(torch.from_numpy, by_both), slope, None, None, None


def _second(
    vectors: Tensor,
    messages: Tensor,
    mixing: Tensor,
    cotangents: Tensor,
    directions: tuple[Tensor | None, ...],
    around: Surroundings,
    shape: SphereShape,
    *,
    by_vectors: bool,
) -> tuple[Tensor, ...]:
    """Differentiate `directions` times the gradients, by vectors or by messages, mixing and cotangents."""
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        # partial derivatives: messages depend on the vectors
        free = independent(vectors, messages, mixing, cotangents)
        free_vectors, free_messages, free_mixing, free_cotangents = free
        moments = message_moments_reference(free_vectors, *around, free_messages, free_mixing, shape)
        gradients = torch.autograd.grad(moments, free[:3], free_cotangents, create_graph=True)
        # without outputs that the loss does not depend on
        kept = [(one, along) for one, along in zip(gradients, directions, strict=True) if along is not None]
        inputs = free[:1] if by_vectors else free[1:]
        ones, alongs = zip(*kept, strict=True)
        return torch.autograd.grad(
            ones, inputs, alongs, create_graph=further, allow_unused=True, materialize_grads=True
        )


def _arrays(vectors: Tensor, mask: Tensor, neighbors: Tensor) -> compiled_messages.Surroundings:
    return vectors.detach().contiguous().numpy(), mask.numpy(), neighbors.numpy()


def _pair(messages: Tensor, mixing: Tensor) -> compiled_messages.Carried:
    return messages.detach().numpy(), mixing.detach().numpy()
