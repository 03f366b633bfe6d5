"""The backend in plain torch: runs on any device, in any dimension; the compiled kernels are tested against it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lrc_ase.layer.mesh.stencil import Sites, Stencil, multi_indices

__all__ = ["TorchBackend"]

_CHUNK_ELEMENTS = 2_000_000
"""Elements of the workspace of one piece of atoms."""


class TorchBackend:
    """Spread and gather atoms in pieces, one direction of the stencil after the other."""

    def sort(self, fractional: Tensor, stencil: Stencil) -> None:
        """Check coordinates; atoms stay in the order of the input."""
        if not torch.isfinite(fractional).all():
            raise ValueError("`fractional` holds coordinates that are not finite (NaN or infinite)")

    def spread(self, weights: Tensor, sites: Sites, level: int, mesh: Tensor) -> None:
        sites.sorted_by(self)
        stencil, n_channels, d = sites.stencil, weights.shape[-1], sites.stencil.dimension
        rows = weights.new_zeros(stencil.n_structures * math.prod(stencil.mesh_shape), n_channels)
        slots = _dense_slots(d, level)
        for chunk, values, rows_touched in _chunks(sites, level, n_channels):
            n = values.shape[0]
            # all products of orders per axis, so that axes separate; those beyond the total degree stay zero
            dense = weights.new_zeros(n, (level + 1) ** d, n_channels)
            dense[:, slots] = weights[chunk]
            # one direction at a time, last axis first: (n, orders of the rest, R, points so far * C) -> R becomes P
            for axis in reversed(range(d)):
                dense = dense.reshape(n, (level + 1) ** axis, level + 1, -1)
                dense = torch.matmul(values[:, None, axis], dense)
            rows.index_add_(0, rows_touched.reshape(-1), dense.reshape(-1, n_channels))
        mesh += rows.reshape(stencil.n_structures, *stencil.mesh_shape, n_channels).movedim(-1, 1)

    def gather(self, mesh: Tensor, sites: Sites, level: int) -> Tensor:
        sites.sorted_by(self)
        n_channels, d = mesh.shape[1], sites.stencil.dimension
        flat = mesh.movedim(1, -1).reshape(-1, n_channels)
        slots = _dense_slots(d, level)
        gathered = mesh.new_empty(len(sites.fractional), len(slots), n_channels)
        n_points = sites.stencil.window.n_points
        for chunk, values, rows_touched in _chunks(sites, level, n_channels):
            n = values.shape[0]
            # the part of the mesh under each atom's stencil, copied: (n * points, C)
            patch = flat.index_select(0, rows_touched.reshape(-1))
            # one direction at a time, first axis first: (n, orders so far, P, points of the rest * C) -> P becomes R
            for axis in range(d):
                patch = patch.reshape(n, (level + 1) ** axis, n_points, -1)
                patch = torch.matmul(values[:, None, axis].transpose(-1, -2), patch)
            gathered[chunk] = patch.reshape(n, -1, n_channels)[:, slots]
        return gathered


def _chunks(sites: Sites, level: int, n_channels: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Cut atoms into pieces whose stencils fit a cache-friendly workspace.

    Yields the slice, window values (n, d, P, R) and the rows of the flat mesh that each atom touches, (n, P, ..., P).
    """
    stencil, window = sites.stencil, sites.stencil.window
    n_points, d = window.n_points, stencil.dimension
    size = max(1, _CHUNK_ELEMENTS // (n_points**d * n_channels))
    shape = torch.tensor(stencil.mesh_shape, device=sites.fractional.device)
    for start in range(0, len(sites.fractional), size):
        chunk = slice(start, start + size)
        fractional = sites.fractional[chunk]
        coordinates = (fractional - torch.floor(fractional)) * shape
        values = window.values(coordinates, level)
        points = window.first_point(coordinates)[..., None] + torch.arange(n_points, device=shape.device)
        points = torch.remainder(points, shape[:, None])  # (n, d, P)
        # row-major index of each point in the stencil, one axis more per step: (n, P), (n, P, P), ...
        rows = stencil.structure[chunk]
        for axis in range(d):
            rows = rows[..., None] * stencil.mesh_shape[axis] + points[:, axis].reshape(-1, *(1,) * axis, n_points)
        yield chunk, values, rows


def _dense_slots(dimension: int, level: int) -> list[int]:
    """Return the index of each multi-index among all (level + 1)^d products of orders."""
    strides = [(level + 1) ** axis for axis in reversed(range(dimension))]
    return [sum(o * s for o, s in zip(order, strides, strict=True)) for order in multi_indices(dimension, level)]
