r"""Vectors from atoms to their neighbors, :math:`r_{ij} = x_j + s_{ij} A - x_i`, linear in positions and cell.

The map and its adjoint differentiate into each other, to any order; on the CPU both are compiled.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_ase.compiled.compilation import compiled
from lrc_ase.compiled.threads import run_over_atoms

__all__ = ["neighbor_vectors"]


def neighbor_vectors(
    positions: Tensor, cell: Tensor, neighbors: Tensor, shifts: Tensor, structure: Tensor, dtype: torch.dtype
) -> Tensor:
    """Vectors (n_local, n_neighbors, 3) in `dtype`, from differences that are taken in float64.

    `positions` (n_atoms, 3), `cell` (n_structures, 3, 3); `neighbors`, `shifts` and `structure` as in `Graph`. Points
    of one or two dimensions do as well, and are not compiled.
    """
    compiles = positions.device.type == "cpu" and positions.shape[1] == 3
    if compiles and dtype in (torch.float32, torch.float64):
        return _Vectors.apply(positions, cell, (neighbors, shifts, structure), dtype)
    n_local = len(neighbors)
    offsets = torch.matmul(shifts, cell[structure[:n_local]])
    return (positions[neighbors] - positions[:n_local, None] + offsets).to(dtype)


Pairs = tuple[Tensor, Tensor, Tensor]
"""`neighbors`, `shifts`, `structure`."""


class _Vectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, cell: Tensor, pairs: Pairs, dtype: torch.dtype) -> Tensor:
        ctx.pairs, ctx.sizes = pairs, (len(positions), len(cell))
        vectors = torch.empty(*pairs[0].shape, 3, dtype=dtype)
        arguments = (_array(positions), _array(cell), *map(_array, pairs), vectors.numpy())
        run_over_atoms(_kernel("vectors", arguments[-1].dtype.name), arguments, len(pairs[0]), torch.get_num_threads())
        return vectors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        by_positions, by_cell = _Pulls.apply(gradient, ctx.pairs, ctx.sizes, ctx.needs_input_grad[1])
        return by_positions, by_cell if ctx.needs_input_grad[1] else None, None, None


class _Pulls(torch.autograd.Function):
    """Sums of pulls along the vectors over each atom and structure; the adjoint of `_Vectors`."""

    @staticmethod
    def forward(
        ctx: Any, pulls: Tensor, pairs: Pairs, sizes: tuple[int, int], with_cell: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.pairs, ctx.dtype = pairs, pulls.dtype
        kernel = _kernel("pulls", _array(pulls).dtype.name)
        arguments = (_array(pulls), *map(_array, pairs), *sizes, with_cell)
        parts = run_over_atoms(kernel, arguments, len(pulls), torch.get_num_threads())
        by_positions, by_cell = (sum(part[1:], start=part[0]) for part in zip(*parts, strict=True))
        return torch.from_numpy(by_positions), torch.from_numpy(by_cell)

    @staticmethod
    def backward(ctx: Any, positions: Tensor, cell: Tensor) -> tuple[Tensor, None, None, None]:
        return _Vectors.apply(positions, cell, ctx.pairs, ctx.dtype), None, None, None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy()


@lru_cache(maxsize=4)
def _kernel(name: str, precision: str) -> Any:
    return compiled(_vectors() if name == "vectors" else _pulls(), "neighbor", name, precision)


def _vectors() -> Any:
    def kernel(positions, cell, neighbors, shifts, structure, vectors, first, last):
        for atom in range(first, last):
            own = structure[atom]
            for column in range(neighbors.shape[1]):
                neighbor = neighbors[atom, column]
                a, b, c = shifts[atom, column, 0], shifts[atom, column, 1], shifts[atom, column, 2]
                for axis in range(3):
                    offset = a * cell[own, 0, axis] + b * cell[own, 1, axis] + c * cell[own, 2, axis]
                    vectors[atom, column, axis] = positions[neighbor, axis] - positions[atom, axis] + offset

    return kernel


def _pulls() -> Any:
    def kernel(pulls, neighbors, shifts, structure, n_atoms, n_structures, with_cell, first, last):
        by_positions, by_cell = np.zeros((n_atoms, 3)), np.zeros((n_structures, 3, 3))
        for atom in range(first, last):
            x, y, z = 0.0, 0.0, 0.0
            for column in range(neighbors.shape[1]):
                neighbor = neighbors[atom, column]
                px = np.float64(pulls[atom, column, 0])
                py = np.float64(pulls[atom, column, 1])
                pz = np.float64(pulls[atom, column, 2])
                by_positions[neighbor, 0] += px
                by_positions[neighbor, 1] += py
                by_positions[neighbor, 2] += pz
                x, y, z = x + px, y + py, z + pz
                if with_cell:
                    own = structure[atom]
                    for vector in range(3):
                        shift = shifts[atom, column, vector]
                        by_cell[own, vector, 0] += shift * px
                        by_cell[own, vector, 1] += shift * py
                        by_cell[own, vector, 2] += shift * pz
            by_positions[atom, 0] -= x
            by_positions[atom, 1] -= y
            by_positions[atom, 2] -= z
        return by_positions, by_cell

    return kernel
