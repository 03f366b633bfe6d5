"""Gradients by positions: weights times the slopes of their potentials, summed over channels."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_ase.compiled.compilation import compiled
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.layer.mesh.spreading import contract_raised
from lrc_ase.layer.mesh.stencil import Stencil

__all__ = ["contracted"]

_SERIAL_BELOW = 10_000
"""Atoms times channels below which threads cost more than they save."""


def contracted(weights: Tensor, orders: Tensor, stencil: Stencil, factor: float = 1.0) -> Tensor:
    """`contract_raised` at level 0 times `factor`, (n_atoms, d): the sum over channels of weights times slopes.

    `weights` (n_atoms, n_channels); `orders` (n_atoms, 1 + d, n_channels), potentials before their derivatives by mesh
    coordinates. On the CPU one pass over both.
    """
    if orders.device.type != "cpu":
        return factor * contract_raised(weights[:, None], orders, stencil, 0)
    arrays = weights.contiguous().numpy(), orders.contiguous().numpy()
    found = np.empty((arrays[1].shape[0], stencil.dimension), arrays[1].dtype)
    kernel, arguments = _kernel(found.dtype), (*arrays, _steps(stencil.mesh_shape, factor, found.dtype), found)
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
