r"""The gradient of the field at the atoms, and its first and second derivatives, written out, without a graph.

.. math:: v_i = \nabla u(x)\big|_{x = x_i}, \qquad u = K f,

of channels that K maps one to one. Names are those of `evaluation`: F is the density of the weights f, T the table.
With the cotangent g of v and the density G of the dipoles g, in mesh coordinates:

    first:   a_i = dL/df_i = (K G)_i,    b_i = dL/dx_i = f_i grad(K G)_i + (g_i . grad) grad(K F)_i,    dL/dT = <G, F>
    second:  with cotangents a', b' of these:  L' = <G, T H> + <D, T F>,

where H is the density of a' and of the dipoles f b', and D that of the quadrupoles g b'. The value is gathered along
with the potential of the energies; the first derivative is one convolution, the second two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lrc_ase.layer.mesh.convolver import Convolved, Convolver, monopoles_and_dipoles
from lrc_ase.layer.mesh.filtering import filtered
from lrc_ase.layer.mesh.spreading import contract_raised, gather_gradient, spread
from lrc_ase.layer.mesh.stencil import Sites, multi_indices
from lrc_ase.layer.mesh.totals import total

__all__ = ["GradientEvaluation"]


class GradientEvaluation:
    """The gradient of the field by fractional coordinates, (n_atoms, d, n_channels).

    `potential` holds derivatives up to the second where positions may be differentiated, else up to the first.
    """

    def __init__(self, weights: Tensor, convolve: Convolver, potential: Convolved) -> None:
        self.weights, self.convolve, self.potential = weights, convolve, potential
        d = convolve.stencil.dimension
        self.value = potential.orders[:, 1 : 1 + d] * convolve.n_mesh[:, None]

    def gradients(self, cotangent: Tensor) -> _Gradients:
        return _Gradients(self, cotangent)

    def composed(self, weights: Tensor, fractional: Tensor, table: Tensor) -> Tensor:
        stencil = self.convolve.stencil
        sites = Sites(fractional.detach(), stencil)
        density = total(spread(weights, fractional, stencil, sites), stencil.exchange)
        return gather_gradient(filtered(density, table), fractional, stencil, sites)


class _Gradients:
    def __init__(self, of: GradientEvaluation, cotangent: Tensor) -> None:
        self.of, self.cotangent, convolve = of, cotangent, of.convolve
        self.dipoles = cotangent * convolve.n_mesh[:, None]  # (n_atoms, d, n_channels), in mesh coordinates
        orders = torch.cat([torch.zeros_like(of.weights)[:, None], self.dipoles], dim=1)
        self.adjoint = convolve(orders)
        self.by_weights = self.adjoint.values
        self.by_positions: Tensor | None = None
        if convolve.level:
            # weights move in the field of the dipoles, and dipoles in that of the weights
            in_field_of_weights = contract_raised(orders, of.potential.orders, convolve.stencil, 1)
            self.by_positions = convolve.slopes(of.weights, self.adjoint) + in_field_of_weights

    def by_table(self) -> Tensor:
        return self.of.convolve.correlation(self.adjoint, self.of.potential)

    def second(self, by_weights: Tensor | None, by_positions: Tensor | None) -> _Second:
        return _Second(self, by_weights, by_positions)


class _Second:
    def __init__(self, first: _Gradients, by_weights: Tensor | None, by_positions: Tensor | None) -> None:
        self.first, self.cotangents = first, (by_weights, by_positions)
        of, convolve = first.of, first.of.convolve
        d = convolve.stencil.dimension
        self.h = convolve(monopoles_and_dipoles(of.weights, by_weights, by_positions, convolve), level=1)
        by_cotangent = self.h.orders[:, 1 : 1 + d]
        self.by_weights: Tensor | None = None
        self.d: Convolved | None = None
        if by_positions is not None:
            step = by_positions * convolve.n_mesh  # (n_atoms, d), in mesh coordinates
            second, pairs = of.potential.orders[:, 1 + d :], _second_orders(d)
            for index, (a, b) in enumerate(pairs):
                by_cotangent[:, a] += step[:, b, None] * second[:, index]
                if a != b:
                    by_cotangent[:, b] += step[:, a, None] * second[:, index]
            quadrupoles = torch.zeros_like(of.potential.orders)
            for index, (a, b) in enumerate(pairs, start=1 + d):
                quadrupoles[:, index] = first.dipoles[:, a] * step[:, b, None]
                if a != b:  # one derivative of the window stands for both
                    quadrupoles[:, index] += first.dipoles[:, b] * step[:, a, None]
            self.d = convolve(quadrupoles, level=0)
            self.by_weights = self.d.values + convolve.along(by_positions, first.adjoint)
        self.by_cotangent = by_cotangent * convolve.n_mesh[:, None]

    def by_table(self) -> Tensor:
        convolve = self.first.of.convolve
        by_table = convolve.correlation(self.first.adjoint, self.h)
        return by_table if self.d is None else by_table + convolve.correlation(self.d, self.first.of.potential)

    def by_positions(self) -> Tensor:
        """Differentiate the composition: only Hessians want this, which takes third derivatives of the window."""
        of, first = self.first.of, self.first
        with torch.enable_grad():
            weights = of.weights.detach().requires_grad_()
            fractional = of.convolve.sites.fractional.detach().requires_grad_()
            value = of.composed(weights, fractional, of.convolve.table)
            gradients = torch.autograd.grad(value, (weights, fractional), first.cotangent, create_graph=True)
            pairs = [pair for pair in zip(gradients, self.cotangents, strict=True) if pair[1] is not None]
            outputs, cotangents = zip(*pairs, strict=True)
            return torch.autograd.grad(outputs, fractional, cotangents)[0]


def _second_orders(dimension: int) -> list[tuple[int, int]]:
    """Return the two axes of each second derivative, in the order of `multi_indices`."""
    orders = [order for order in multi_indices(dimension, 2) if sum(order) == 2]
    axes = [[axis for axis, count in enumerate(order) for _ in range(count)] for order in orders]
    return [(a, b) for a, b in axes]
