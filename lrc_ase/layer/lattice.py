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

from lrc_ase.layer.constants import constant

__all__ = [
    "fractional_coordinates",
    "half_mesh_indices",
    "held_mesh_shape",
    "indices_along",
    "inverse_cell",
    "mesh_shape_for_spacing",
    "reciprocal_cell",
    "squared_wave_numbers",
    "volume",
    "wave_indices",
]


def volume(cell: Tensor) -> Tensor:
    r"""Return the volume :math:`|\det A|` of each cell, (n_structures,)."""
    if cell.shape[-1] != 3:
        return torch.linalg.det(cell).abs()
    a, b, c = cell.unbind(dim=1)
    return (a * torch.linalg.cross(b, c)).sum(dim=-1).abs()  # no wait for a GPU, as in `inverse_cell`


def inverse_cell(cell: Tensor) -> Tensor:
    """Return the inverse of each cell, (n_structures, d, d), without waiting for a GPU in three dimensions.

    Its columns are cross products of two cell vectors over the volume.
    """
    if cell.shape[-1] != 3:
        return torch.linalg.inv(cell)
    a, b, c = cell.unbind(dim=1)
    columns = [torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)]
    return torch.stack(columns, dim=-1) / (a * columns[0]).sum(dim=-1)[:, None, None]


def reciprocal_cell(cell: Tensor) -> Tensor:
    r"""Return reciprocal vectors :math:`B = 2\pi A^{-T}` as rows, so that :math:`a_i \cdot b_j = 2\pi\delta_{ij}`."""
    return 2 * math.pi * inverse_cell(cell).transpose(-1, -2)


def fractional_coordinates(positions: Tensor, cell: Tensor, structure: Tensor) -> Tensor:
    """Return coordinates in units of cell vectors, not wrapped; `positions` (n_atoms, d), `structure` (n_atoms,)."""
    inverse = inverse_cell(cell)
    if cell.shape[0] == 1:
        return positions @ inverse[0]
    return torch.einsum("ni,nij->nj", positions, inverse[structure])


def wave_indices(mesh_shape: Sequence[int], *, like: Tensor) -> list[Tensor]:
    """Return the wave indices m of the real-to-complex FFT along each axis, in the type and on the device of `like`.

    All axes but the last run over 0, 1, ..., -1; the last over 0 ... n // 2. Each tensor is shaped to broadcast over
    the half mesh, with an axis of structures in front: (1, n, 1, 1) for the first of three.
    """
    last = len(mesh_shape) - 1
    indices = [constant(indices_along, n, axis == last, like=like) for axis, n in enumerate(mesh_shape)]
    return [
        along.reshape([1, *(-1 if other == axis else 1 for other in range(last + 1))])
        for axis, along in enumerate(indices)
    ]


def indices_along(n: int, is_last: bool) -> np.ndarray:
    """Return the wave indices of the real-to-complex FFT along one axis of `n` points, whole numbers in float64."""
    return np.arange(n // 2 + 1.0) if is_last else np.fft.fftfreq(n, 1 / n).round()  # n times 1/n is not exactly one


def half_mesh_indices(mesh_shape: Sequence[int], *, device: torch.device | None = None) -> Tensor:
    """Return the wave indices m of the whole half mesh, int64 (*half mesh, d)."""
    axes = wave_indices(mesh_shape, like=torch.zeros((), dtype=torch.int64, device=device))
    return torch.stack(torch.broadcast_tensors(*axes), dim=-1)[0]


def squared_wave_numbers(cell: Tensor, mesh_shape: Sequence[int], axes: Sequence[int]) -> Tensor:
    r"""Return :math:`|k_m|^2` of :math:`k_m = \sum_i m_i b_i` over some axes i, with the reciprocal vectors b.

    (n_structures, *half mesh), of length 1 along the other axes. In 1/Angstrom^2.
    """
    reciprocal = reciprocal_cell(cell).reshape(len(cell), *cell.shape[1:], *(1,) * len(mesh_shape))
    indices = wave_indices(mesh_shape, like=cell)
    squared = cell.new_zeros(len(cell), *(1,) * len(mesh_shape))
    # component by component: a mesh of vectors would take three times the memory. The sum over axes grows from the
    # first to the last, so that only its last step is as large as the mesh.
    for component in range(cell.shape[-1]):
        along = sum((indices[axis] * reciprocal[:, axis, component] for axis in axes), torch.zeros_like(squared))
        squared = squared + along**2
    return squared


def mesh_shape_for_spacing(lengths: Sequence[float], spacing: float, *, minimum: int = 1) -> tuple[int, ...]:
    r"""Return the smallest mesh with at most `spacing` between points along each cell vector.

    Even products of 2, 3, 5 and 7, for the FFT. `lengths` are the lengths of the cell vectors. A mesh with spacing h
    along every *vector* (not every height) holds all waves :math:`|k| < \pi / h`, whatever the angles, as
    :math:`m_i = k \cdot a_i / 2\pi`.
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
    # a quarter finer costs twice the FFT and is as exact; coarser would miss the accuracy: hence the uneven limits
    shape = mesh_shape_for_spacing(lengths.tolist(), spacing, minimum=minimum)
    if held is not None and all(
        length / n <= spacing and n <= 1.25 * m for length, n, m in zip(lengths, held, shape, strict=True)
    ):
        return held
    return shape


@lru_cache(maxsize=1024)
def _fast_length(needed: int) -> int:
    # half of the length is tested, so that the length is even. A number has no prime factors but 2, 3, 5 and 7
    # if and only if it divides a high enough power of 210
    half = (needed + 1) // 2
    while 210 ** half.bit_length() % half:  # 210 = 2 * 3 * 5 * 7
        half += 1
    return 2 * half
