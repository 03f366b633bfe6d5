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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .windows import Window

__all__ = ["Orders", "Stencil", "gather", "spread"]

Orders = tuple[tuple[int, ...], ...]
"""Multi-indices of derivative orders, one integer per dimension each, such as ((0, 0, 0), (1, 0, 0))."""

_CHUNK_ELEMENTS = 2_000_000


@dataclass(frozen=True, eq=False)
class Stencil:
    """What ties atoms to a mesh: everything but the coordinates."""

    window: Window
    mesh_shape: tuple[int, ...]
    structure: Tensor
    """Structure of each atom, int64 (n_atoms,)."""
    n_structures: int

    @property
    def dimension(self) -> int:
        return len(self.mesh_shape)

    @property
    def value(self) -> Orders:
        """Orders of the plain value."""
        return ((0,) * self.dimension,)


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
    n_channels = weights.shape[-1]
    n_orders = 1 + max(max(order) for order in orders)
    rows = stencil.n_structures * _product(stencil.mesh_shape)
    mesh = weights.new_zeros(rows, n_channels)
    dense_slots = [_flat_slot(order, n_orders) for order in orders]
    for chunk, values, rows_touched in _chunks(fractional, stencil, n_orders, n_channels):
        n = values.shape[0]
        dense = weights.new_zeros(n, n_orders**stencil.dimension, n_channels)
        dense[:, dense_slots] = weights[chunk]
        # one direction at a time, last axis first: (n, orders of the rest, R, points so far * C) -> R becomes P
        for axis in reversed(range(stencil.dimension)):
            dense = dense.reshape(n, n_orders**axis, n_orders, -1)
            dense = torch.matmul(values[:, None, axis], dense)
        mesh.index_add_(0, rows_touched.reshape(-1), dense.reshape(-1, n_channels))
    return mesh.reshape(stencil.n_structures, *stencil.mesh_shape, n_channels)


def _gather(mesh: Tensor, fractional: Tensor, stencil: Stencil, orders: Orders) -> Tensor:
    n_channels = mesh.shape[-1]
    n_orders = 1 + max(max(order) for order in orders)
    flat = mesh.reshape(-1, n_channels)
    dense_slots = [_flat_slot(order, n_orders) for order in orders]
    gathered = mesh.new_empty(fractional.shape[0], len(orders), n_channels)
    n_points = stencil.window.n_points
    for chunk, values, rows_touched in _chunks(fractional, stencil, n_orders, n_channels):
        n = values.shape[0]
        patch = flat.index_select(0, rows_touched.reshape(-1))
        # one direction at a time, first axis first: (n, orders so far, P, points of the rest * C) -> P becomes R
        for axis in range(stencil.dimension):
            patch = patch.reshape(n, n_orders**axis, n_points, -1)
            patch = torch.matmul(values[:, None, axis].transpose(-1, -2), patch)
        gathered[chunk] = patch.reshape(n, -1, n_channels)[:, dense_slots]
    return gathered


def _chunks(
    fractional: Tensor, stencil: Stencil, n_orders: int, n_channels: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Atoms in pieces whose stencils fit a cache-friendly workspace: slice, window values (n, d, P, R), mesh rows."""
    window = stencil.window
    n_points, d = window.n_points, stencil.dimension
    size = max(1, _CHUNK_ELEMENTS // (n_points**d * n_channels))
    shape = torch.tensor(stencil.mesh_shape, device=fractional.device)
    for start in range(0, fractional.shape[0], size):
        chunk = slice(start, min(start + size, fractional.shape[0]))
        own = fractional[chunk]
        coordinates = (own - torch.floor(own)) * shape
        values = window.values(coordinates, n_orders - 1)
        points = window.first_point(coordinates)[..., None] + torch.arange(n_points, device=own.device)
        points = torch.remainder(points, shape[:, None])  # (n, d, P)
        rows = stencil.structure[chunk]
        for axis in range(d):
            rows = rows[..., None] * stencil.mesh_shape[axis] + points[:, axis].reshape(-1, *(1,) * axis, n_points)
        yield chunk, values, rows


def _flat_slot(order: tuple[int, ...], n_orders: int) -> int:
    slot = 0
    for value in order:
        slot = slot * n_orders + value
    return slot


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for n in shape:
        product *= n
    return product
