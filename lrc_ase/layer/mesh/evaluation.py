r"""Values of a convolution and their first and second derivatives, written out, without a graph.

K spreads, filters and gathers; its adjoint :math:`K^T` has the transposed table. F is the density of the weights f on
the mesh, T the table, :math:`\langle\cdot,\cdot\rangle` the sum over waves; gradients are in mesh coordinates.

**The field** u = K f, with the cotangent g of u and its density G:

    first:   a_i = dL/df_i = (K^T g)_i,    b_i = dL/dx_i = g_i grad(K f)_i + f_i grad(K^T g)_i,    dL/dT = <G, F>
    second:  with cotangents a', b' of these:  L' = <G, T H> + <D, T F>,

where H is the density of a' and of the dipoles f b', and D that of the dipoles g b': a convolution in the first
derivative, two in the second.

**The energy** :math:`E = \tfrac12 \sum_i f_i u_i` of each structure, channel by channel, with the cotangent c of E. K
is its own adjoint here, so

    first:   a_i = c u_i,    b_i = c f_i grad u_i,    dL/dT = c <F, F> / 2
    second:  L' = c <F, T H>:

no convolution in the first derivative, one in the second. A training step on forces spreads and filters twice.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from lrc_ase.layer.mesh.convolver import Convolved, Convolver, monopoles_and_dipoles
from lrc_ase.layer.mesh.filtering import filtered
from lrc_ase.layer.mesh.spreading import contract_raised, gather, spread
from lrc_ase.layer.mesh.stencil import Sites, Stencil
from lrc_ase.layer.mesh.totals import total

__all__ = ["EnergyEvaluation", "Evaluation", "FieldEvaluation", "Gradients", "composed", "sum_by_structure"]


def composed(weights: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil) -> Tensor:
    """Compute the field as a composition that autograd differentiates step by step, (n_atoms, n_outputs)."""
    sites = Sites(fractional.detach(), stencil)
    density = total(spread(weights, fractional, stencil, sites), stencil.exchange)
    return gather(filtered(density, table), fractional, stencil, sites)


class Gradients(Protocol):
    """First derivatives for one cotangent, and what their own derivatives need."""

    by_weights: Tensor
    """dL/df, (n_atoms, n_inputs)."""
    by_positions: Tensor | None
    """dL/dx, (n_atoms, d); None where positions are fixed."""

    def by_table(self) -> Tensor:
        """Compute dL/dT, of the table's shape."""

    def second(self, by_weights: Tensor | None, by_positions: Tensor | None) -> SecondGradients:
        """Differentiate L', the sum of dL/df and dL/dx times these cotangents, of which one may be None."""


class SecondGradients(Protocol):
    """Derivatives of first derivatives."""

    by_cotangent: Tensor
    by_weights: Tensor | None

    def by_table(self) -> Tensor:
        """Compute dL'/dT."""

    def by_positions(self) -> Tensor:
        """Compute dL'/dx, of which Hessians are made."""


class Evaluation(Protocol):
    """A value of the convolution, and its derivatives."""

    value: Tensor

    def gradients(self, cotangent: Tensor) -> Gradients:
        """Compute the first derivatives for a cotangent of `value`."""

    def composed(self, weights: Tensor, fractional: Tensor, table: Tensor) -> Tensor:
        """Compute `value` from differentiable steps, for third derivatives."""


# Evaluations hold tensors without a graph, and never the functions' outputs: an output knows its node, and a node that
# held it would keep itself alive until the garbage collector runs.


class FieldEvaluation:
    """The field u = K f, (n_atoms, n_outputs)."""

    def __init__(self, weights: Tensor, convolve: Convolver, potential: Convolved) -> None:
        self.weights, self.convolve, self.potential = weights, convolve, potential
        self.value = potential.values

    def gradients(self, cotangent: Tensor) -> _FieldGradients:
        return _FieldGradients(self, cotangent)

    def composed(self, weights: Tensor, fractional: Tensor, table: Tensor) -> Tensor:
        return composed(weights, fractional, table, self.convolve.stencil)


class _FieldGradients:
    def __init__(self, of: FieldEvaluation, cotangent: Tensor) -> None:
        self.of, self.cotangent = of, cotangent
        # the field is linear in f: its derivative is the transposed convolution of the cotangent
        self.adjoint = of.convolve(cotangent[:, None], transposed=True)
        self.by_weights = self.adjoint.values
        self.by_positions: Tensor | None = None
        if of.convolve.level:
            # an atom moves in the field of the others, and the others in its own: both ends of each pair
            by_positions = of.convolve.slopes(cotangent, of.potential)
            self.by_positions = by_positions.add_(of.convolve.slopes(of.weights, self.adjoint))

    @cached_property
    def raised(self) -> tuple[Tensor, Tensor]:
        """Return potentials of F and G with all derivatives up to the second; rows of a Hessian share them."""
        of_g = self.of.convolve(self.cotangent[:, None], transposed=True, level=2)
        return self.of.convolve(self.of.weights[:, None], level=2).orders, of_g.orders

    def by_table(self) -> Tensor:
        return self.of.convolve.correlation(self.adjoint, self.of.potential)

    def second(self, by_weights: Tensor | None, by_positions: Tensor | None) -> _FieldSecond:
        return _FieldSecond(self, by_weights, by_positions)


class _FieldSecond:
    def __init__(self, first: _FieldGradients, by_weights: Tensor | None, by_positions: Tensor | None) -> None:
        self.first = first
        of, convolve = first.of, first.of.convolve
        self.h_orders = monopoles_and_dipoles(of.weights, by_weights, by_positions, convolve)
        self.h = convolve(self.h_orders)
        # L' is bilinear in f and g: by g what multiplies g, and the other way round
        self.by_cotangent = self.h.values
        self.by_weights: Tensor | None = None
        self.d: Convolved | None = None
        if by_positions is not None:
            self.d_orders = monopoles_and_dipoles(first.cotangent, None, by_positions, convolve)
            self.d = convolve(self.d_orders, transposed=True)
            self.by_cotangent = self.h.values + convolve.along(by_positions, of.potential)
            self.by_weights = self.d.values + convolve.along(by_positions, first.adjoint)

    def by_table(self) -> Tensor:
        convolve = self.first.of.convolve
        by_table = convolve.correlation(self.first.adjoint, self.h)
        return by_table if self.d is None else by_table + convolve.correlation(self.d, self.first.of.potential)

    def by_positions(self) -> Tensor:
        of, first, convolve = self.first.of, self.first, self.first.of.convolve
        # H and D hold dipoles that move with their atoms: their gradient needs second derivatives of potentials
        of_f, of_g = first.raised
        level = int(self.h_orders.shape[1] > 1)
        by_positions = convolve.slopes(first.cotangent, self.h)
        by_positions = by_positions + contract_raised(self.h_orders, of_g, convolve.stencil, level)
        if self.d is not None:
            by_positions = by_positions + convolve.slopes(of.weights, self.d)
            by_positions = by_positions + contract_raised(self.d_orders, of_f, convolve.stencil, level)
        return by_positions


class EnergyEvaluation:
    """The energies 1/2 sum f u of each structure and channel, (n_structures, n_channels) in float64.

    Where processes share a structure each gets the share of its atoms, and the cotangents must be the same in all of
    them: what is differentiated is a function of the sum.
    """

    def __init__(self, weights: Tensor, convolve: Convolver, potential: Convolved) -> None:
        self.weights, self.convolve, self.potential = weights, convolve, potential
        stencil = convolve.stencil
        self.value = sum_by_structure(0.5 * weights * potential.values, stencil.structure, stencil.n_structures)

    @cached_property
    def raised(self) -> Tensor:
        """Return the potential of F with all derivatives up to the second; rows of a Hessian share it."""
        return self.convolve(self.weights[:, None], level=2).orders

    def gradients(self, cotangent: Tensor) -> _EnergyGradients:
        return _EnergyGradients(self, cotangent.to(self.weights.dtype))

    def composed(self, weights: Tensor, fractional: Tensor, table: Tensor) -> Tensor:
        stencil = self.convolve.stencil
        products = 0.5 * weights * composed(weights, fractional, table, stencil)
        return sum_by_structure(products, stencil.structure, stencil.n_structures)


class _EnergyGradients:
    def __init__(self, of: EnergyEvaluation, cotangent: Tensor) -> None:
        self.of, self.cotangent = of, cotangent
        # one row serves all atoms of a single structure
        self.scale = cotangent if len(cotangent) == 1 else cotangent[of.convolve.stencil.structure]
        self.by_weights = of.potential.values * self.scale
        self.by_positions: Tensor | None = None
        if of.convolve.level:
            self.by_positions = of.convolve.slopes(of.weights * self.scale, of.potential)

    def by_table(self) -> Tensor:
        # E is quadratic in F: one half of the correlation of F with itself
        return 0.5 * self._times_cotangent(self.of.convolve.correlation(self.of.potential, self.of.potential))

    def second(self, by_weights: Tensor | None, by_positions: Tensor | None) -> _EnergySecond:
        return _EnergySecond(self, by_weights, by_positions)

    def _times_cotangent(self, by_table: Tensor) -> Tensor:
        return by_table * self.cotangent[(...,) + (None,) * self.of.convolve.stencil.dimension]


class _EnergySecond:
    def __init__(self, first: _EnergyGradients, by_weights: Tensor | None, by_positions: Tensor | None) -> None:
        self.first = first
        of, convolve = first.of, first.of.convolve
        self.h_orders = monopoles_and_dipoles(of.weights, by_weights, by_positions, convolve)
        self.h = convolve(self.h_orders)
        # a . a' + b . b' per atom, which the cotangent c multiplies; and its derivative by f
        products, at_atoms = torch.zeros_like(of.weights), self.h.values
        if by_weights is not None:
            products = by_weights * of.potential.values
        if by_positions is not None:
            along = convolve.along(by_positions, of.potential)
            products, at_atoms = products + of.weights * along, at_atoms + along
        stencil = convolve.stencil
        self.by_cotangent = sum_by_structure(products, stencil.structure, stencil.n_structures)
        self.by_weights: Tensor | None = at_atoms * first.scale

    def by_table(self) -> Tensor:
        of = self.first.of
        return self.first._times_cotangent(of.convolve.correlation(of.potential, self.h))

    def by_positions(self) -> Tensor:
        of, convolve, scale = self.first.of, self.first.of.convolve, self.first.scale
        level = int(self.h_orders.shape[1] > 1)
        # c goes with the atoms that it weighs, on either side of T
        raised = contract_raised(self.h_orders * scale[:, None], of.raised, convolve.stencil, level)
        return convolve.slopes(of.weights * scale, self.h) + raised


def sum_by_structure(values: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Sum values of atoms (n_atoms, n_channels) over each structure, (n_structures, n_channels) in float64."""
    # in double precision: a float32 sum over a million atoms would lose half of its digits
    if n_structures == 1:
        return values.sum(dim=0, keepdim=True, dtype=torch.float64)
    sums = values.new_zeros(n_structures, values.shape[1], dtype=torch.float64)
    return sums.index_add(0, structure, values.double())
