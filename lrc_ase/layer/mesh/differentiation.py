r"""The convolution as a differentiable function, :math:`u = G\,\mathcal F^{-1} T\,\mathcal F\,G^T f`.

G gathers at the atoms, its transpose spreads. `convolve` gives the field u, `field_and_energy` the energies
:math:`\tfrac12\sum f u` of some channels, whose derivatives are cheaper, and the field of the others.

First and second derivatives are written out in `evaluation`, for values of both kinds; higher ones are those of
`composed`. Derivatives that are costly and often unwanted are nodes of their own (`lrc_ase.layer.postponed`): by the
table; and, of the gradients, by positions and by the table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrc_ase.layer.mesh.convolver import Convolver
from lrc_ase.layer.mesh.evaluation import EnergyEvaluation, Evaluation, FieldEvaluation, Gradients
from lrc_ase.layer.mesh.gradient_evaluation import GradientEvaluation
from lrc_ase.layer.mesh.stencil import Sites, Stencil
from lrc_ase.layer.postponed import zeros_with_derivative

__all__ = ["FieldAndEnergy", "convolve", "field_and_energy"]


class FieldAndEnergy(NamedTuple):
    """Energies of the first channels, field of the others."""

    field: Tensor
    """u of the channels without an energy, (n_atoms, n_channels - n_energies)."""
    energy: Tensor
    """1/2 sum f u of each structure, (n_structures, n_energies) in float64."""
    potential: Tensor
    """u of the channels with an energy, (n_atoms, n_energies). Values alone: differentiate `energy`."""
    gradient: Tensor | None = None
    """Gradient of `potential` at the atoms, differentiable, (n_atoms, d, n_energies); None unless asked for."""


def convolve(weights: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil) -> Tensor:
    """Compute the field at the atoms, (n_atoms, n_outputs); differentiable to any order in the three tensors.

    Parameters
    ----------
    weights
        (n_atoms, n_inputs).
    fractional
        Coordinates in units of the cell vectors, (n_atoms, d).
    table
        Multiplier over the square of the window's transform; see `filtered`.
    """
    convolver = _convolver(fractional, table, stencil)
    fixed = weights.detach()
    evaluation = FieldEvaluation(fixed, convolver, convolver(fixed[:, None]))
    return _differentiable(_Inputs(weights, fractional, table), evaluation)


def field_and_energy(
    weights: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil, n_energies: int, *, gradient: bool = False
) -> FieldAndEnergy:
    """Compute energies of the first `n_energies` channels and the field of the others, in one convolution.

    Arguments as in `convolve`; the table maps channels one to one. With `gradient` return the gradient by fractional
    coordinates of the potentials of the energies.
    """
    convolver = _convolver(fractional, table, stencil)
    fixed = weights.detach()
    # the derivative of a gradient needs second derivatives, which cost less here than in a pass of their own
    potential = convolver(fixed[:, None], level=convolver.level + 1 if gradient else convolver.level)
    if n_energies == weights.shape[1]:
        inputs = _Inputs(weights, fractional, table)
        energy = _differentiable(inputs, EnergyEvaluation(fixed, convolver, potential))
        slopes = _differentiable(inputs, GradientEvaluation(fixed, convolver, potential)) if gradient else None
        return FieldAndEnergy(weights.new_empty(len(weights), 0), energy, potential.values, slopes)
    # energies and field share one convolution, but differentiate by different rules: two nodes
    first, rest = slice(None, n_energies), slice(n_energies, None)
    parts_first = fixed[:, first], convolver.of_channels(first), potential.of_channels(first)
    of_field = FieldEvaluation(fixed[:, rest], convolver.of_channels(rest), potential.of_channels(rest))
    # the derivative of one split joins its parts; that of each slice would pad it with zeros to the whole table
    counts = [n_energies, weights.shape[1] - n_energies]
    weights_first, weights_rest = weights.split(counts, dim=1)
    table_first, table_rest = table.split(counts, dim=1)
    inputs = _Inputs(weights_first, fractional, table_first)
    energy = _differentiable(inputs, EnergyEvaluation(*parts_first))
    slopes = _differentiable(inputs, GradientEvaluation(*parts_first)) if gradient else None
    field = _differentiable(_Inputs(weights_rest, fractional, table_rest), of_field)
    return FieldAndEnergy(field, energy, potential.values[:, :n_energies], slopes)


def _convolver(fractional: Tensor, table: Tensor, stencil: Stencil) -> Convolver:
    # nobody can ask for derivatives that no graph records: gather and keep less
    differentiated = torch.is_grad_enabled()
    level = int(fractional.requires_grad and differentiated)
    sites = Sites(fractional.detach(), stencil)
    return Convolver(table.detach(), sites, level, keeps_spectra=table.requires_grad and differentiated)


class _Inputs(NamedTuple):
    """Inputs with their graphs. As one argument of a function they are no edges of the graph by themselves."""

    weights: Tensor
    fractional: Tensor
    table: Tensor
    cotangent: Tensor | None = None


def _differentiable(inputs: _Inputs, evaluation: Evaluation) -> Tensor:
    """Attach the derivatives of an evaluation to its value."""
    if not torch.is_grad_enabled():
        return evaluation.value
    by_table = None
    if inputs.table.requires_grad:
        # what `_Value.backward` computes last; see `postponed` on the order of nodes
        last: list[Gradients] = []

        def derivative(cotangent: Tensor) -> Tensor:
            if torch.is_grad_enabled():  # somebody differentiates further
                value = evaluation.composed(inputs.weights, inputs.fractional, inputs.table)
                return torch.autograd.grad(value, inputs.table, cotangent, create_graph=True)[0]
            return last[0].by_table()  # correlates spectra that the first derivatives have left

        (by_table,) = zeros_with_derivative(inputs.table, (evaluation.value,), derivative)
        return _Value.apply(inputs.weights, inputs.fractional, by_table, inputs, evaluation, last)
    return _Value.apply(inputs.weights, inputs.fractional, None, inputs, evaluation, [])


class _Value(torch.autograd.Function):
    """The value of an evaluation, and its derivatives by weights and positions.

    `by_table` are zeros with the derivative by the table, which uses the gradients that `backward` leaves in `last`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        fractional: Tensor,
        by_table: Tensor | None,
        inputs: _Inputs,
        evaluation: Evaluation,
        last: list[Gradients],
    ) -> Tensor:
        ctx.inputs, ctx.evaluation, ctx.last = inputs, evaluation, last
        return evaluation.value.detach()  # another tensor: one that knew this node would keep itself alive

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        # without a graph: if somebody differentiates further, `_FirstDerivatives` attaches it
        gradients = ctx.evaluation.gradients(cotangent.detach())
        ctx.last[:] = [gradients]
        # the zeros count as a summand of the value: their gradient is the cotangent itself
        for_table = cotangent if ctx.inputs.table.requires_grad else None
        if not torch.is_grad_enabled():
            return gradients.by_weights, gradients.by_positions, for_table, None, None, None
        inputs = ctx.inputs._replace(cotangent=cotangent)
        return *_differentiable_gradients(inputs, ctx.evaluation, gradients), for_table, None, None, None


def _differentiable_gradients(
    inputs: _Inputs, evaluation: Evaluation, gradients: Gradients
) -> tuple[Tensor, Tensor | None]:
    """Attach second derivatives to the gradients by weights and positions."""
    last: list[Any] = []
    like = [gradients.by_weights, *([] if gradients.by_positions is None else [gradients.by_positions])]

    def postponed(name: str) -> tuple[Tensor, ...]:
        """Return zeros of the gradients' shapes with the derivative by one of the inputs."""

        def derivative(*cotangents: Tensor | None) -> Tensor | None:
            if torch.is_grad_enabled():
                return _composed_second(inputs, evaluation, cotangents, name)[0]  # third derivatives
            second = last[0]
            by_input: Tensor = second.by_positions() if name == "fractional" else second.by_table()
            return by_input

        return zeros_with_derivative(getattr(inputs, name), like, derivative)

    zeros: list[Tensor] = []
    for name in ("fractional", "table"):
        if getattr(inputs, name).requires_grad:
            zeros += postponed(name)
    assert inputs.cotangent is not None
    arguments = inputs.cotangent, inputs.weights, inputs, evaluation, gradients, last
    by_weights, *by_positions = _FirstDerivatives.apply(*arguments, *zeros)
    return by_weights, by_positions[0] if by_positions else None


class _FirstDerivatives(torch.autograd.Function):
    """dL/df, and dL/dx unless positions are fixed, differentiable by the cotangent and the weights.

    Further inputs are zeros with the derivatives by positions and table, which use what `backward` leaves in `last`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        cotangent: Tensor,
        weights: Tensor,
        inputs: _Inputs,
        evaluation: Evaluation,
        gradients: Gradients,
        last: list[Any],
        *zeros: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.inputs, ctx.evaluation, ctx.gradients, ctx.last, ctx.n_zeros = (
            inputs,
            evaluation,
            gradients,
            last,
            len(zeros),
        )
        ctx.set_materialize_grads(False)  # None where nobody uses an output: its half of the work is left out
        if gradients.by_positions is None:
            return (gradients.by_weights.detach(),)
        return gradients.by_weights.detach(), gradients.by_positions.detach()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        nothing = (None,) * 4
        if all(cotangent is None for cotangent in cotangents):
            return None, None, *nothing, *(None,) * ctx.n_zeros
        # one group of zeros per input, each shaped as the outputs, whose cotangents they share
        for_zeros = cotangents * (ctx.n_zeros // len(cotangents))
        if torch.is_grad_enabled():
            by_inputs = _composed_second(ctx.inputs, ctx.evaluation, cotangents, "cotangent", "weights")
            return *by_inputs, *nothing, *for_zeros
        # no graph is wanted: cotangents that carry one would drag it into the results
        fixed = [None if cotangent is None else cotangent.detach() for cotangent in cotangents]
        second = ctx.gradients.second(*fixed, *(None,) * (2 - len(fixed)))
        ctx.last[:] = [second]
        return second.by_cotangent, second.by_weights, *nothing, *for_zeros


def _composed_second(
    inputs: _Inputs, evaluation: Evaluation, cotangents: tuple[Tensor | None, ...], *wanted: str
) -> tuple[Tensor | None, ...]:
    """Differentiate the gradients by some of their inputs, differentiably; `cotangents` are those of the gradients."""
    # views, so that each derivative is by one input alone, even where the cotangent was made of the weights
    names = ("weights", "fractional", "table", "cotangent")
    views = {name: getattr(inputs, name).view_as(getattr(inputs, name)) for name in names}
    weights, fractional, table, cotangent = views.values()
    needed = [name for name in wanted if views[name].requires_grad]
    if not weights.requires_grad:  # the gradients are by weights all the same
        weights.requires_grad_()
    value = evaluation.composed(weights, fractional, table)
    pairs = [
        (torch.autograd.grad(value, tensor, cotangent, create_graph=True)[0], of_tensor)
        for tensor, of_tensor in zip((weights, fractional), cotangents, strict=False)
        if of_tensor is not None
    ]
    derivatives = torch.autograd.grad(
        [gradient for gradient, _ in pairs],
        [views[name] for name in needed],
        [of_gradient for _, of_gradient in pairs],
        create_graph=True,
        allow_unused=True,
    )
    return tuple(dict(zip(needed, derivatives, strict=True)).get(name) for name in wanted)
