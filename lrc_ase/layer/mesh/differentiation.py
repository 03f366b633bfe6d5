r"""The convolution as a differentiable function, :math:`u = G\,\mathcal F^{-1} T\,\mathcal F\,G^T f`.

G gathers at the atoms, its transpose spreads. First and second derivatives are written out (`evaluation`); what they
need is computed once and remembered. An autograd function does not know which of its derivatives is wanted, only which
of its inputs could be differentiated. So the derivatives that are costly and often unwanted are functions of their own,
whose value is zero and is added: by the table; and of the gradients, by positions and by the table. Higher derivatives
are those of the composition of `spread`, `filtered` and `gather`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrc_ase.layer.mesh.evaluation import Evaluation
from lrc_ase.layer.mesh.filtering import filtered
from lrc_ase.layer.mesh.spreading import gather, spread
from lrc_ase.layer.mesh.stencil import Sites, Stencil
from lrc_ase.layer.mesh.totals import total

__all__ = ["composed", "convolve"]

Gradients = tuple[Tensor | None, ...]


def convolve(weights: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil) -> Tensor:
    """Field at the atoms, (n_atoms, n_outputs); differentiable to any order in the three tensors.

    Parameters
    ----------
    weights
        (n_atoms, n_inputs).
    fractional
        Coordinates in units of the cell vectors, (n_atoms, d).
    table
        Multiplier over the square of the window's transform; see `filtered`.
    """
    differentiated = torch.is_grad_enabled()
    needs = fractional.requires_grad and differentiated, table.requires_grad and differentiated
    evaluation = Evaluation(weights, fractional, table, stencil, needs)
    if not differentiated:
        return evaluation.result.values
    inputs = _Inputs(weights, fractional, table)
    field = _Field.apply(weights, fractional, inputs, evaluation)
    return field + _FieldByTable.apply(table, inputs, evaluation) if needs[1] else field


def composed(weights: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil) -> Tensor:
    """The same, as a composition that autograd differentiates step by step."""
    sites = Sites(fractional.detach(), stencil)
    density = total(spread(weights, fractional, stencil, sites), stencil.exchange)
    return gather(filtered(density, table), fractional, stencil, sites)


class _Inputs(NamedTuple):
    """Handed to functions whole, so that an edge of the graph leads only where they have a derivative to give."""

    weights: Tensor
    fractional: Tensor
    table: Tensor
    cotangent: Tensor | None = None


class _Field(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, fractional: Tensor, inputs: _Inputs, evaluation: Evaluation) -> Tensor:
        ctx.inputs, ctx.evaluation = inputs, evaluation
        return evaluation.result.values

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Gradients:
        if not torch.is_grad_enabled():
            return *ctx.evaluation.by_weights_and_positions(cotangent), None, None
        # somebody differentiates further
        inputs, evaluation = ctx.inputs._replace(cotangent=cotangent), ctx.evaluation
        found = _Gradients.apply(cotangent, inputs.weights, inputs, evaluation)
        for tensor, by_input in ((inputs.fractional, _GradientsByPositions), (inputs.table, _GradientsByTable)):
            if tensor.requires_grad:
                zeros = by_input.apply(tensor, inputs, evaluation)
                found = tuple(None if own is None else own + zero for own, zero in zip(found, zeros, strict=True))
        return *found, None, None


class _FieldByTable(torch.autograd.Function):
    """Zeros of the field's shape, with their derivative by the table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, inputs: _Inputs, evaluation: Evaluation) -> Tensor:
        ctx.inputs, ctx.evaluation = inputs, evaluation
        return _zeros(evaluation.result.values)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Gradients:
        if not torch.is_grad_enabled():
            return ctx.evaluation.by_table(cotangent), None, None
        weights, fractional, table = ctx.inputs.weights, ctx.inputs.fractional, ctx.inputs.table
        field = composed(weights, fractional, table, ctx.evaluation.stencil)
        return torch.autograd.grad(field, table, cotangent, create_graph=True)[0], None, None


class _Gradients(torch.autograd.Function):
    """dL/df, and dL/dx unless positions are fixed; differentiable here by the cotangent and the weights."""

    @staticmethod
    def forward(
        ctx: Any, cotangent: Tensor, weights: Tensor, inputs: _Inputs, evaluation: Evaluation
    ) -> tuple[Tensor, Tensor | None]:
        _keep(ctx, inputs, evaluation)
        return evaluation.by_weights_and_positions(cotangent)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> Gradients:
        if given == (None, None):
            return None, None, None, None
        if torch.is_grad_enabled():
            return *_differentiated(ctx, given, "cotangent", "weights"), None, None
        return *ctx.evaluation.second_by_cotangent_and_weights(ctx.inputs.cotangent, *given), None, None


class _GradientsByPositions(torch.autograd.Function):
    """Zeros of the gradients' shapes, with their derivative by positions."""

    @staticmethod
    def forward(ctx: Any, fractional: Tensor, inputs: _Inputs, evaluation: Evaluation) -> tuple[Tensor, Tensor]:
        _keep(ctx, inputs, evaluation)
        return _zeros(inputs.weights), _zeros(fractional)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> Gradients:
        if given == (None, None):
            return None, None, None
        if torch.is_grad_enabled():
            return *_differentiated(ctx, given, "fractional"), None, None
        return ctx.evaluation.second_by_positions(ctx.inputs.cotangent, *given), None, None


class _GradientsByTable(torch.autograd.Function):
    """Zeros of the gradients' shapes, with their derivative by the table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, inputs: _Inputs, evaluation: Evaluation) -> tuple[Tensor, Tensor]:
        _keep(ctx, inputs, evaluation)
        return _zeros(inputs.weights), _zeros(inputs.fractional)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> Gradients:
        if given == (None, None):
            return None, None, None
        if torch.is_grad_enabled():
            return *_differentiated(ctx, given, "table"), None, None
        return ctx.evaluation.second_by_table(ctx.inputs.cotangent, *given), None, None


def _keep(ctx: Any, inputs: _Inputs, evaluation: Evaluation) -> None:
    ctx.inputs, ctx.evaluation = inputs, evaluation
    ctx.set_materialize_grads(False)


def _differentiated(ctx: Any, given: tuple[Tensor | None, ...], *wanted: str) -> tuple[Tensor | None, ...]:
    """Derivatives of the gradients by some of their inputs, themselves differentiable; `given` are the cotangents."""
    # views, so that each derivative is by one input alone, even where the cotangent was made of the weights
    names = ("weights", "fractional", "table", "cotangent")
    views = {name: getattr(ctx.inputs, name).view_as(getattr(ctx.inputs, name)) for name in names}
    weights, fractional, table, cotangent = views.values()
    needed = [name for name in wanted if views[name].requires_grad]
    if not weights.requires_grad:  # the gradients are by weights all the same
        weights.requires_grad_()
    field = composed(weights, fractional, table, ctx.evaluation.stencil)
    gradients = [
        torch.autograd.grad(field, own, cotangent, create_graph=True)[0]
        for own, cotangent_of_own in zip((weights, fractional), given, strict=True)
        if cotangent_of_own is not None
    ]
    cotangents = [own for own in given if own is not None]
    found = torch.autograd.grad(
        gradients, [views[name] for name in needed], cotangents, create_graph=True, allow_unused=True
    )
    return tuple(dict(zip(needed, found, strict=True)).get(name) for name in wanted)


def _zeros(like: Tensor) -> Tensor:
    """Zeros that take no memory."""
    return like.new_zeros(()).expand(like.shape)
