"""Cells, wave vectors and mesh shapes in d = 1, 2, 3 dimensions.

Cells hold their vectors as rows, as in ASE; every function takes a batch of them, (n_structures, d, d).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "fractional_coordinates",
    "half_mesh_indices",
    "held_mesh_shape",
    "mesh_shape_for_spacing",
    "reciprocal_cell",
    "volume",
    "wave_vectors",
]


def volume(cell: Tensor) -> Tensor:
    r"""Volume :math:`|\det A|` of each cell, (n_structures,)."""
    return torch.linalg.det(cell).abs()


def reciprocal_cell(cell: Tensor) -> Tensor:
    r"""Reciprocal vectors :math:`B = 2\pi A^{-T}` as rows, so that :math:`a_i \cdot b_j = 2\pi\delta_{ij}`."""
    return 2 * math.pi * torch.linalg.inv(cell).transpose(-1, -2)


def fractional_coordinates(positions: Tensor, cell: Tensor, structure: Tensor) -> Tensor:
    """Coordinates in units of the cell vectors, not wrapped; `positions` (n_atoms, d), `structure` (n_atoms,)."""
    inverse = torch.linalg.inv(cell)
    if cell.shape[0] == 1:
        return positions @ inverse[0]
    return torch.einsum("ni,nij->nj", positions, inverse[structure])


def half_mesh_indices(mesh_shape: Sequence[int], *, device: torch.device | None = None) -> Tensor:
    """Integer wave indices m of the real-to-complex FFT, int64 (*half mesh, d).

    All axes but the last run over 0, 1, ..., -1; the last over 0 ... n // 2.
    """
    axes = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=device) for n in mesh_shape[:-1]]
    axes.append(torch.fft.rfftfreq(mesh_shape[-1], 1 / mesh_shape[-1], dtype=torch.float64, device=device))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).round().to(torch.int64)


def wave_vectors(cell: Tensor, mesh_shape: Sequence[int]) -> Tensor:
    r"""Wave vectors :math:`k_m = 2\pi m A^{-T}` of the half mesh, (n_structures, *half mesh, d)."""
    indices = half_mesh_indices(mesh_shape, device=cell.device).to(cell.dtype)
    d = len(mesh_shape)
    flat = indices.reshape(-1, d) @ reciprocal_cell(cell)  # (n_structures, n_waves, d)
    return flat.reshape(cell.shape[0], *indices.shape)


def mesh_shape_for_spacing(lengths: Sequence[float], spacing: float, *, minimum: int = 1) -> tuple[int, ...]:
    r"""Smallest mesh with at most `spacing` between points along each cell vector; even products of 2, 3, 5, 7.

    `lengths` are the lengths of the cell vectors. A mesh with spacing h along every *vector* (not every height)
    holds all waves :math:`|k| < \pi / h`, whatever the angles: :math:`m_i = k \cdot a_i / 2\pi`.
    """
    shape = []
    for length in lengths:
        # a hair of tolerance, so that rounding in a cell's lengths cannot change the mesh
        shape.append(_fast_length(max(math.ceil(length / spacing * (1 - 1e-12)), minimum)))
    return tuple(shape)


@lru_cache(maxsize=64)
def held_mesh_shape(
    cell: bytes, dtype: str, spacing: float, minimum: int, held: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return `held` while it is fine enough and at most a quarter finer than needed, else a mesh for the cell.

    `cell` holds the numbers of the cell vectors (d, d), which tell one cell from another at no cost in every step.
    """
    vectors = np.frombuffer(cell, dtype)
    lengths = np.linalg.norm(vectors.reshape(math.isqrt(len(vectors)), -1), axis=-1)
    shape = mesh_shape_for_spacing(lengths.tolist(), spacing, minimum=minimum)
    if held is not None and all(
        length / n <= spacing and n <= 1.25 * m for length, n, m in zip(lengths, held, shape, strict=True)
    ):
        return held
    return shape


@lru_cache(maxsize=1024)
def _fast_length(needed: int) -> int:
    half = (needed + 1) // 2
    while 210 ** half.bit_length() % half:  # 210 = 2 * 3 * 5 * 7
        half += 1
    return 2 * half
