r"""Sums over the processes that share a structure, as functions that differentiate.

With the loss of all processes the sum of theirs, :math:`L = \sum_p L_p`, the gradient by one process's summand is the
sum of the gradients that all processes hold for the total: the adjoint of a sum over processes is one more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lrc_ase.layer.exchange import Exchange

__all__ = ["total"]


def total(values: Tensor, exchange: Exchange | None) -> Tensor:
    """Sum `values` over all processes; return them as they are without an `exchange`, for a single process."""
    return values if exchange is None else _Total.apply(values, exchange)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        # a contiguous copy, as `sum` may work in the memory that it gets
        return exchange.sum(values.detach().clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Total.apply(gradient, ctx.exchange), None
