"""Spreading and gathering in plain torch: runs on any device, and what the compiled kernels are tested against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..windows import Window

__all__ = ["Orders", "Stencil", "gather_reference", "spread_reference"]

Orders = tuple[tuple[int, ...], ...]
"""Multi-indices of derivative orders, one integer per dimension each, such as ((0, 0, 0), (1, 0, 0))."""

_CHUNK_ELEMENTS = 2_000_000
"""Elements of the workspace of one piece of atoms."""


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


def spread_reference(weights: Tensor, fractional: Tensor, stencil: Stencil, orders: Orders) -> Tensor:
    """Spread in plain torch: `weights` (n_atoms, n_orders, n_channels)."""
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


def gather_reference(mesh: Tensor, fractional: Tensor, stencil: Stencil, orders: Orders) -> Tensor:
    """Gather in plain torch, (n_atoms, n_orders, n_channels)."""
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
