"""How a structure's boundary is summed: periodic directions as they are, an open one padded, its kernel truncated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .lattice import wave_vectors
from .multipliers import WaveNumbers

__all__ = ["Layout", "slab_layout", "wave_numbers"]

_TRUNCATION_MARGIN = 7.0
"""Smearing widths beyond which a Gaussian cloud is taken to end, exp(-24)."""


@dataclass(frozen=True)
class Layout:
    """How one structure is summed: no mesh for open space; the padded axis and range of the kernel for a slab."""

    open_axis: int | None
    mesh_shape: tuple[int, ...] | None
    padding: tuple[float, ...]
    truncation: float


def slab_layout(
    fractional: Tensor,
    cell: Tensor,
    pbc: tuple[bool, ...],
    smearing: float,
    mesh_shape_for: Callable[[np.ndarray], tuple[int, ...]],
) -> Layout:
    """Layout of a structure with one open direction; `fractional` (n_atoms, 3), `cell` (3, 3)."""
    if len(pbc) != 3 or sum(pbc) != 2:
        raise ValueError(
            f"periodic directions {pbc} are not supported by the long-range part: make the structure periodic in "
            "two or three directions, or in none"
        )
    if smearing == 0:
        raise ValueError("a slab needs a kernel with `smearing` > 0")
    fixed = cell.detach().double().cpu()
    axis = pbc.index(False)
    heights = fractional.detach()[:, axis].double()
    length = float(torch.linalg.norm(fixed[axis]))
    # rounded up, so that the padded cell and its mesh stay as they are while atoms move a little
    extent = math.ceil(float(heights.max() - heights.min()) * length) + 1.0
    margin = _TRUNCATION_MARGIN * smearing
    padding = tuple((2 * extent + 2 * margin) / length if own == axis else 1.0 for own in range(3))
    padded = (fixed * torch.tensor(padding, dtype=torch.float64)[:, None]).numpy()
    return Layout(axis, mesh_shape_for(padded), padding, extent + margin)


def wave_numbers(cell: Tensor, mesh_shape: tuple[int, ...], open_axis: int | None, truncation: Tensor) -> WaveNumbers:
    waves = wave_vectors(cell, mesh_shape)
    squared = (waves**2).sum(dim=-1)
    if open_axis is None:
        return WaveNumbers(squared, len(mesh_shape))
    direction = cell[:, open_axis] / torch.linalg.norm(cell[:, open_axis], dim=-1, keepdim=True)
    normal = torch.einsum("bxyzd,bd->bxyz", waves, direction)
    return WaveNumbers(squared, len(mesh_shape), normal, truncation[:, None, None, None])
