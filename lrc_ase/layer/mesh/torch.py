"""Spreading and gathering in plain torch: runs on any device, and what the compiled kernels are tested against."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lrc_ase.layer.mesh.stencil import Stencil, multi_indices

__all__ = ["gather_reference", "spread_reference"]

_CHUNK_ELEMENTS = 2_000_000
"""Elements of the workspace of one piece of atoms."""


def spread_reference(weights: Tensor, fractional: Tensor, stencil: Stencil, level: int) -> Tensor:
    """Spread in plain torch: `weights` (n_atoms, n_orders, n_channels) -> (n_structures, n_channels, *mesh_shape)."""
    n_channels, d = weights.shape[-1], stencil.dimension
    mesh = weights.new_zeros(stencil.n_structures * math.prod(stencil.mesh_shape), n_channels)
    slots = _dense_slots(d, level)
    for chunk, values, rows_touched in _chunks(fractional, stencil, level, n_channels):
        n = values.shape[0]
        dense = weights.new_zeros(n, (level + 1) ** d, n_channels)
        dense[:, slots] = weights[chunk]
        # one direction at a time, last axis first: (n, orders of the rest, R, points so far * C) -> R becomes P
        for axis in reversed(range(d)):
            dense = dense.reshape(n, (level + 1) ** axis, level + 1, -1)
            dense = torch.matmul(values[:, None, axis], dense)
        mesh.index_add_(0, rows_touched.reshape(-1), dense.reshape(-1, n_channels))
    return mesh.reshape(stencil.n_structures, *stencil.mesh_shape, n_channels).movedim(-1, 1).contiguous()


def gather_reference(mesh: Tensor, fractional: Tensor, stencil: Stencil, level: int) -> Tensor:
    """Gather in plain torch, (n_atoms, n_orders, n_channels)."""
    n_channels, d = mesh.shape[1], stencil.dimension
    flat = mesh.movedim(1, -1).reshape(-1, n_channels)
    slots = _dense_slots(d, level)
    gathered = mesh.new_empty(fractional.shape[0], len(slots), n_channels)
    n_points = stencil.window.n_points
    for chunk, values, rows_touched in _chunks(fractional, stencil, level, n_channels):
        n = values.shape[0]
        patch = flat.index_select(0, rows_touched.reshape(-1))
        # one direction at a time, first axis first: (n, orders so far, P, points of the rest * C) -> P becomes R
        for axis in range(d):
            patch = patch.reshape(n, (level + 1) ** axis, n_points, -1)
            patch = torch.matmul(values[:, None, axis].transpose(-1, -2), patch)
        gathered[chunk] = patch.reshape(n, -1, n_channels)[:, slots]
    return gathered


def _chunks(
    fractional: Tensor, stencil: Stencil, level: int, n_channels: int
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
        values = window.values(coordinates, level)
        points = window.first_point(coordinates)[..., None] + torch.arange(n_points, device=own.device)
        points = torch.remainder(points, shape[:, None])  # (n, d, P)
        rows = stencil.structure[chunk]
        for axis in range(d):
            rows = rows[..., None] * stencil.mesh_shape[axis] + points[:, axis].reshape(-1, *(1,) * axis, n_points)
        yield chunk, values, rows


def _dense_slots(dimension: int, level: int) -> list[int]:
    """Place of each multi-index among all (level + 1)^d of them."""
    places = [(level + 1) ** axis for axis in reversed(range(dimension))]
    return [sum(o * p for o, p in zip(order, places, strict=True)) for order in multi_indices(dimension, level)]
