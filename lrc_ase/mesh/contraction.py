"""Gradients by positions: weights times the slopes of their potentials, summed over channels."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compilation import compiled
from ..threads import run_over_atoms

__all__ = ["contracted"]

_SERIAL_BELOW = 10_000
"""Atoms times channels below which threads cost more than they save."""


def contracted(weights: Tensor, orders: Tensor, mesh_shape: tuple[int, ...], factor: float = 1.0) -> Tensor:
    """Sum over channels of weights times slopes, by fractional coordinates, (n_atoms, d).

    `weights` (n_atoms, n_channels); `orders` (n_atoms, 1 + d, n_channels), potentials before their derivatives by mesh
    coordinates.
    """
    if orders.device.type != "cpu":
        n_mesh = factor * torch.tensor(mesh_shape, dtype=orders.dtype, device=orders.device)
        return (weights[:, None] * orders[:, 1:]).sum(dim=-1).mul_(n_mesh)
    arrays = weights.contiguous().numpy(), orders.contiguous().numpy()
    found = np.empty((arrays[1].shape[0], len(mesh_shape)), arrays[1].dtype)
    kernel, arguments = _kernel(found.dtype), (*arrays, _steps(mesh_shape, factor, found.dtype), found)
    if arrays[0].size < _SERIAL_BELOW:
        kernel(*arguments, 0, len(found))
    else:
        run_over_atoms(kernel, arguments, len(found), torch.get_num_threads())
    return torch.from_numpy(found)


@lru_cache(maxsize=64)
def _steps(mesh_shape: tuple[int, ...], factor: float, dtype: np.dtype) -> np.ndarray:
    """Mesh points along each axis, times `factor`."""
    return np.asarray([factor * n for n in mesh_shape], dtype)


@lru_cache(maxsize=2)
def _kernel(dtype: np.dtype) -> Any:
    def contract(weights, orders, steps, found, first, last):
        for atom in range(first, last):
            for axis in range(found.shape[1]):
                product = found.dtype.type(0)
                for channel in range(weights.shape[1]):
                    product += weights[atom, channel] * orders[atom, 1 + axis, channel]
                found[atom, axis] = product * steps[axis]

    return compiled(contract, "contract", dtype.name)
