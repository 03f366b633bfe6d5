r"""Atoms to mesh and back: one multilinear family, closed under differentiation.

With the window g, atoms at mesh coordinates x_j and all multi-indices alpha of total degree up to a `level`,

    spread:  mesh[m]  = sum_j sum_alpha w_j,alpha  d^alpha g(m - x_j)
    gather:  v_j,alpha = sum_m mesh[m] d^alpha g(m - x_j)

(derivatives by x_j, periodic in the mesh). Each is the other's adjoint, and differentiating either by x_j raises the
level by one. So the two custom functions below differentiate into each other to any order the window allows, and no
graph over (atoms x stencil) is ever kept: only positions, weights and meshes are.

Meshes have shape (n_structures, n_channels, *mesh_shape): channels are planes, spread and gathered together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lrc_ase.layer.constants import constant
from lrc_ase.layer.mesh.backend import backend_for
from lrc_ase.layer.mesh.stencil import Sites, Stencil, multi_indices

__all__ = ["contract_raised", "gather", "gather_gradient", "gather_level", "spread", "spread_level"]


def spread(weights: Tensor, fractional: Tensor, stencil: Stencil, sites: Sites | None = None) -> Tensor:
    r"""Smear point weights onto the mesh, :math:`\rho(x_m) = \sum_j f_j\, g(m - x_j)`.

    `weights` (n_atoms, n_channels), `fractional` (n_atoms, d) in units of the cell vectors, any real number ->
    (n_structures, n_channels, *mesh_shape). Adjoint of `gather`; differentiable to any order in both arguments.
    `sites` are those of `fractional`, where they are sorted already.
    """
    return _Spread.apply(weights[:, None, :], fractional, sites or Sites(fractional.detach(), stencil), 0)


def gather(mesh: Tensor, fractional: Tensor, stencil: Stencil, sites: Sites | None = None) -> Tensor:
    r"""Interpolate a mesh at the points, :math:`v_j = \sum_m v(x_m)\, g(m - x_j)`.

    `mesh` (n_structures, n_channels, *mesh_shape) -> (n_atoms, n_channels). Adjoint of `spread`.
    """
    return _Gather.apply(mesh, fractional, sites or Sites(fractional.detach(), stencil), 0)[:, 0]


def gather_gradient(mesh: Tensor, fractional: Tensor, stencil: Stencil, sites: Sites) -> Tensor:
    """Interpolate the gradient of a mesh by fractional coordinates, (n_atoms, d, n_channels); see `gather`."""
    d = stencil.dimension
    n_mesh = constant(tuple, stencil.mesh_shape, like=fractional)[
        :, None
    ]  # derivatives of mesh coordinates by fractional ones
    return _Gather.apply(mesh, fractional, sites, 1)[:, 1 : 1 + d] * n_mesh


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, fractional: Tensor, sites: Sites, level: int) -> Tensor:
        # `fractional` is an argument for its graph alone: the numbers are those of `sites`, sorted once
        ctx.save_for_backward(weights, fractional)
        ctx.sites, ctx.level = sites, level
        return spread_level(weights, sites, level)

    @staticmethod
    def backward(ctx: Any, grad_mesh: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        weights, fractional = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return _Gather.apply(grad_mesh, fractional, ctx.sites, ctx.level), None, None, None
        # one pass gathers both: values for the weights, and one derivative more for the positions
        gathered = _Gather.apply(grad_mesh, fractional, ctx.sites, ctx.level + 1)
        # orders of lower degree come first, so those of `level` are a prefix
        grad_weights = gathered[:, : weights.shape[1]]
        return grad_weights, contract_raised(weights, gathered, ctx.sites.stencil, ctx.level), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mesh: Tensor, fractional: Tensor, sites: Sites, level: int) -> Tensor:
        ctx.save_for_backward(mesh, fractional)
        ctx.sites, ctx.level = sites, level
        return gather_level(mesh, sites, level)

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        mesh, fractional = ctx.saved_tensors
        grad_mesh = grad_fractional = None
        if ctx.needs_input_grad[0]:
            grad_mesh = _Spread.apply(grad_values, fractional, ctx.sites, ctx.level)
        # only where positions are differentiated: a level more costs up to twice as much
        if ctx.needs_input_grad[1]:
            gathered = _Gather.apply(mesh, fractional, ctx.sites, ctx.level + 1)
            grad_fractional = contract_raised(grad_values, gathered, ctx.sites.stencil, ctx.level)
        return grad_mesh, grad_fractional, None, None


def contract_raised(weights: Tensor, gathered: Tensor, stencil: Stencil, level: int) -> Tensor:
    """Return the gradient by fractional coordinates (n_atoms, d): sums of w_alpha v_(alpha + e_axis).

    `weights` (n_atoms, n_orders, n_channels) at `level`, `gathered` one level higher.
    """
    d = stencil.dimension
    columns = []
    for axis, n_mesh in enumerate(stencil.mesh_shape):
        raised = gathered.index_select(1, constant(_raised_orders, d, level, axis, like=stencil.structure))
        columns.append(n_mesh * (weights * raised).sum(dim=(1, 2)))  # dx = n_mesh ds
    return torch.stack(columns, dim=-1)


def _raised_orders(dimension: int, level: int, axis: int) -> list[int]:
    """Return where each order alpha, raised by e_axis, stands among the orders of the next level."""
    index_of = {order: index for index, order in enumerate(multi_indices(dimension, level + 1))}
    return [
        index_of[tuple(value + (other == axis) for other, value in enumerate(order))]
        for order in multi_indices(dimension, level)
    ]


def spread_level(weights: Tensor, sites: Sites, level: int) -> Tensor:
    """Spread without a graph: `weights` (n_atoms, n_orders, n_channels) with the orders of `multi_indices`.

    Returns (n_structures, n_channels, *mesh_shape).
    """
    stencil = sites.stencil
    mesh = weights.new_zeros(stencil.n_structures, weights.shape[-1], *stencil.mesh_shape)
    backend_for(mesh, stencil, level).spread(weights.detach(), sites, level, mesh)
    return mesh


def gather_level(mesh: Tensor, sites: Sites, level: int) -> Tensor:
    """Gather without a graph, (n_atoms, n_orders, n_channels) with the orders of `multi_indices`."""
    return backend_for(mesh, sites.stencil, level).gather(mesh.detach().contiguous(), sites, level)
