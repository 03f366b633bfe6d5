"""Derivatives that are costly and often unwanted, as nodes of the graph of their own.

An autograd function learns which of its inputs *could* be differentiated, not which derivatives somebody asked for. A
function with one cheap and one costly derivative would compute both in every backward pass. So the costly one becomes
a separate node: zeros that count as a summand of the result, and whose derivative is the costly one. PyTorch visits the
node only where a path from the asked inputs leads through it.

Zeros may be added to a result. Where the costly derivative needs what the cheap one has computed, they are handed to
the main function as inputs instead:

    result = Main.apply(x, zeros_with_derivative(y, (like,), derivative))

`Main.backward` returns the cotangent of its result as the gradient by the zeros, as if it had added them. The node of
the zeros therefore runs after `Main.backward` of the same pass, and may use what that has computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["zeros_with_derivative"]


def zeros_with_derivative(
    by: Tensor, like: Sequence[Tensor], derivative: Callable[..., Tensor | None]
) -> tuple[Tensor, ...]:
    """Return zeros of the shapes of `like`, without memory, with a derivative by the tensor `by`.

    ``derivative(*cotangents)`` maps the cotangents of the zeros, None for unused ones, to the gradient by `by`. It is
    called under `torch.enable_grad` where somebody differentiates further, and must then be differentiable itself.
    """
    return _Zeros.apply(by, tuple(like), derivative)


class _Zeros(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, by: Tensor, like: tuple[Tensor, ...], derivative: Callable[..., Tensor]
    ) -> tuple[Tensor, ...]:
        # a closure and not saved tensors: what it needs may be computed only in the backward pass
        ctx.derivative = derivative
        ctx.set_materialize_grads(False)  # None for zeros that nobody used, instead of tensors of zeros
        # one number, expanded: no memory, and adding it costs one pass over the result
        return tuple(tensor.new_zeros(()).expand(tensor.shape) for tensor in like)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, None, None]:
        if all(cotangent is None for cotangent in cotangents):
            return None, None, None
        # grad mode is that of the caller: enabled where somebody differentiates further (`create_graph`)
        return ctx.derivative(*cotangents), None, None
