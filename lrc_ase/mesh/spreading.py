r"""Points to mesh and back: one multilinear family, closed under differentiation.

With the window g, atoms at mesh coordinates x_j and a multi-index of derivative orders alpha,

    spread:  mesh[m]  = sum_j sum_alpha w_j,alpha  d^alpha g(m - x_j)
    gather:  v_j,alpha = sum_m mesh[m] d^alpha g(m - x_j)

(derivatives by x_j, periodic in the mesh). Each is the other's adjoint, and differentiating either by x_j raises an
order by one. So the two custom functions below differentiate into each other to any order the window allows, and no
graph over (atoms x stencil) is ever kept: only positions, weights and meshes are.

Meshes have shape (n_structures, *mesh_shape, n_channels): channels last, spread and gathered together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiled import gather_compiled, spread_compiled
from .reference import Orders, Stencil, gather_reference, spread_reference

__all__ = ["Orders", "Stencil", "gather", "spread"]


def spread(weights: Tensor, fractional: Tensor, stencil: Stencil) -> Tensor:
    r"""Smear point weights onto the mesh, :math:`\rho(x_m) = \sum_j f_j\, g(m - x_j)`.

    `weights` (n_atoms, n_channels), `fractional` (n_atoms, d) in units of the cell vectors, any real number ->
    (n_structures, *mesh_shape, n_channels). Adjoint of `gather`; differentiable to any order in both arguments.
    """
    return _Spread.apply(weights[:, None, :], fractional, stencil, stencil.value)


def gather(mesh: Tensor, fractional: Tensor, stencil: Stencil) -> Tensor:
    r"""Interpolate a mesh at the points, :math:`v_j = \sum_m v(x_m)\, g(m - x_j)`.

    `mesh` (n_structures, *mesh_shape, n_channels) -> (n_atoms, n_channels). Adjoint of `spread`.
    """
    return _Gather.apply(mesh, fractional, stencil, stencil.value)[:, 0]


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, fractional: Tensor, stencil: Stencil, orders: Orders) -> Tensor:
        ctx.save_for_backward(weights, fractional)
        ctx.stencil, ctx.orders = stencil, orders
        return _spread(weights, fractional, stencil, orders)

    @staticmethod
    def backward(ctx: Any, grad_mesh: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        weights, fractional = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return _Gather.apply(grad_mesh, fractional, ctx.stencil, ctx.orders), None, None, None
        extended = _raised(ctx.orders)
        gathered = _Gather.apply(grad_mesh, fractional, ctx.stencil, extended)
        grad_weights = gathered[:, : len(ctx.orders)]
        return grad_weights, _contract_raised(weights, gathered, extended, ctx), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mesh: Tensor, fractional: Tensor, stencil: Stencil, orders: Orders) -> Tensor:
        ctx.save_for_backward(mesh, fractional)
        ctx.stencil, ctx.orders = stencil, orders
        return _gather(mesh, fractional, stencil, orders)

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        mesh, fractional = ctx.saved_tensors
        grad_mesh = grad_fractional = None
        if ctx.needs_input_grad[0]:
            grad_mesh = _Spread.apply(grad_values, fractional, ctx.stencil, ctx.orders)
        if ctx.needs_input_grad[1]:
            extended = _raised(ctx.orders)
            gathered = _Gather.apply(mesh, fractional, ctx.stencil, extended)
            grad_fractional = _contract_raised(grad_values, gathered, extended, ctx)
        return grad_mesh, grad_fractional, None, None


def _raise_order(order: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(value + (axis == own) for own, value in enumerate(order))


def _raised(orders: Orders) -> Orders:
    """`orders` first, then everything one derivative further that is not among them."""
    further = (_raise_order(order, axis) for order in orders for axis in range(len(order)))
    return orders + tuple(order for order in dict.fromkeys(further) if order not in orders)


def _contract_raised(weights: Tensor, gathered: Tensor, extended: Orders, ctx: Any) -> Tensor:
    """Gradient by fractional coordinates, sum over orders and channels of w_alpha gathered_(alpha + e_axis)."""
    columns = []
    for axis, n_mesh in enumerate(ctx.stencil.mesh_shape):
        raised = [extended.index(_raise_order(order, axis)) for order in ctx.orders]
        columns.append(n_mesh * (weights * gathered[:, raised]).sum(dim=(1, 2)))  # dx = n_mesh ds
    return torch.stack(columns, dim=-1)


def _spread(weights: Tensor, fractional: Tensor, stencil: Stencil, orders: Orders) -> Tensor:
    if not _has_compiled(weights, stencil):
        return spread_reference(weights, fractional, stencil, orders)
    mesh = weights.new_zeros(stencil.n_structures, *stencil.mesh_shape, weights.shape[-1])
    arguments = _compiled_arguments(fractional, stencil, orders)
    spread_compiled(weights.contiguous().numpy(), *arguments, mesh.numpy(), torch.get_num_threads())
    return mesh


def _gather(mesh: Tensor, fractional: Tensor, stencil: Stencil, orders: Orders) -> Tensor:
    if not _has_compiled(mesh, stencil):
        return gather_reference(mesh, fractional, stencil, orders)
    gathered = mesh.new_empty(fractional.shape[0], len(orders), mesh.shape[-1])
    arguments = _compiled_arguments(fractional, stencil, orders)
    gather_compiled(mesh.contiguous().numpy(), *arguments, gathered.numpy(), torch.get_num_threads())
    return gathered


def _has_compiled(tensor: Tensor, stencil: Stencil) -> bool:
    return tensor.device.type == "cpu" and stencil.dimension == 3


def _compiled_arguments(fractional: Tensor, stencil: Stencil, orders: Orders) -> tuple[Any, Any, int, Any, Orders]:
    # always float64: few numbers, and the kernels then have one type of coordinates
    wrapped = fractional.double()
    coordinates = (wrapped - torch.floor(wrapped)) * torch.tensor(stencil.mesh_shape)
    if not torch.isfinite(coordinates).all():
        raise ValueError("`fractional` holds coordinates that are not finite (NaN or infinite)")
    values = np.float32 if fractional.dtype == torch.float32 else np.float64
    table = stencil.window.horner_table(max(max(order) for order in orders), np.dtype(values))
    return coordinates.numpy(), stencil.structure.numpy(), stencil.window.n_points, table, orders
