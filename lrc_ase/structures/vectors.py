r"""Vectors from atoms to their neighbors, :math:`r_{ij} = x_j + s_{ij} A - x_i`, linear in positions and cell.

The backward pass of the map is its adjoint and vice versa, so that derivatives of any order exist. On the CPU both are
compiled.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_ase.compiled.compilation import PRECISIONS, compiled
from lrc_ase.compiled.threads import run_over_atoms

__all__ = ["PairArrays", "neighbor_vectors", "pull_sums", "strained_positions", "vectors_to_neighbors"]


def strained_positions(positions: Tensor, strain: Tensor, structure: Tensor) -> Tensor:
    """Return positions x (1 + strain); `positions` (n_atoms, 3), `strain` (n_structures, 3, 3)."""
    if len(strain) == 1:  # a gathered matrix per atom has a derivative that is slow on GPUs: all atoms add to one place
        return positions + positions @ strain[0]
    # row vectors: (n_atoms, 1, 3) @ (n_atoms, 3, 3), then back to (n_atoms, 3)
    return positions + torch.matmul(positions[:, None], strain[structure])[:, 0]


def neighbor_vectors(
    positions: Tensor, cell: Tensor, neighbors: Tensor, shifts: Tensor, structure: Tensor, dtype: torch.dtype
) -> Tensor:
    """Compute vectors (n_local, n_neighbors, 3) in `dtype` from differences of positions in float64.

    `positions` (n_atoms, 3), `cell` (n_structures, 3, 3); `neighbors`, `shifts` and `structure` as in `Graph`. Points
    in one or two dimensions go through plain torch.
    """
    compiles = positions.device.type == "cpu" and positions.shape[1] == 3
    if compiles and dtype in (torch.float32, torch.float64):
        return _Vectors.apply(positions, cell, (neighbors, shifts, structure), dtype)
    n_local = len(neighbors)
    # (n_local, n_neighbors, d) @ (n_local, d, d)
    offsets = torch.matmul(shifts, cell[0] if len(cell) == 1 else cell[structure[:n_local]])
    return (positions[neighbors] - positions[:n_local, None] + offsets).to(dtype)


Pairs = tuple[Tensor, Tensor, Tensor]
"""`neighbors`, `shifts`, `structure`."""


PairArrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The same for kernels: contiguous arrays."""


def vectors_to_neighbors(positions: np.ndarray, cell: np.ndarray, pairs: PairArrays, vectors: np.ndarray) -> None:
    """Write the vectors (n_local, n_neighbors, 3) that `neighbor_vectors` returns."""
    kernel, n_local = _kernel("vectors", PRECISIONS[vectors.dtype]), len(vectors)
    run_over_atoms(kernel, (positions, cell, *pairs, vectors), n_local, torch.get_num_threads())


def pull_sums(
    pulls: np.ndarray, pairs: PairArrays, sizes: tuple[int, int], *, with_cell: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Sum gradients by the vectors, (n_local, n_neighbors, 3), over each atom, and with `with_cell` over each cell.

    `sizes` are the numbers of atoms and structures. Return (n_atoms, 3) and (n_structures, 3, 3) in float64.
    """
    kernel, arguments = _kernel("pulls", PRECISIONS[pulls.dtype]), (pulls, *pairs, *sizes, with_cell)
    parts = run_over_atoms(kernel, arguments, len(pulls), torch.get_num_threads())
    by_positions, by_cell = parts[0]
    # each range of atoms has its own arrays: neighbors lie in any range, and threads must not add to one array
    for more_by_positions, more_by_cell in parts[1:]:
        by_positions += more_by_positions
        by_cell += more_by_cell
    return by_positions, by_cell


class _Vectors(torch.autograd.Function):
    """The map from positions and cells to neighbor vectors, compiled; its backward pass is `_Pulls`."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, cell: Tensor, pairs: Pairs, dtype: torch.dtype) -> Tensor:
        ctx.pairs, ctx.sizes = pairs, (len(positions), len(cell))
        arrays = _array(positions), _array(cell), (_array(pairs[0]), _array(pairs[1]), _array(pairs[2]))
        vectors = torch.empty(*pairs[0].shape, 3, dtype=dtype)
        vectors_to_neighbors(*arrays, vectors.numpy())
        return vectors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        # the map is linear: its backward pass needs no values of the forward pass and can itself be differentiated
        by_positions, by_cell = _Pulls.apply(gradient, ctx.pairs, ctx.sizes, ctx.needs_input_grad[1])
        return by_positions, by_cell if ctx.needs_input_grad[1] else None, None, None


class _Pulls(torch.autograd.Function):
    """Adjoint of `_Vectors`: sums of gradients by the vectors ("pulls") over each atom and each cell."""

    @staticmethod
    def forward(
        ctx: Any, pulls: Tensor, pairs: Pairs, sizes: tuple[int, int], with_cell: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.pairs, ctx.dtype = pairs, pulls.dtype
        arrays = _array(pairs[0]), _array(pairs[1]), _array(pairs[2])
        by_positions, by_cell = pull_sums(_array(pulls), arrays, sizes, with_cell=with_cell)
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
    """Return the kernel of `_Vectors` for atoms `first` to `last`."""

    def kernel(positions, cell, neighbors, shifts, structure, vectors, first, last):
        for atom in range(first, last):
            s = structure[atom]
            for column in range(neighbors.shape[1]):
                neighbor = neighbors[atom, column]
                a, b, c = shifts[atom, column, 0], shifts[atom, column, 1], shifts[atom, column, 2]
                for axis in range(3):
                    offset = a * cell[s, 0, axis] + b * cell[s, 1, axis] + c * cell[s, 2, axis]
                    # float64 until the assignment: positions far from the origin lose no digits
                    vectors[atom, column, axis] = positions[neighbor, axis] - positions[atom, axis] + offset

    return kernel


def _pulls() -> Any:
    """Return the kernel of `_Pulls` for atoms `first` to `last`; it sums in float64."""

    def kernel(pulls, neighbors, shifts, structure, n_atoms, n_structures, with_cell, first, last):
        by_positions, by_cell = np.zeros((n_atoms, 3)), np.zeros((n_structures, 3, 3))
        for atom in range(first, last):
            x, y, z = 0.0, 0.0, 0.0  # the sum over the row of neighbors, minus the gradient by the central atom
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
                    s = structure[atom]
                    for vector in range(3):
                        shift = shifts[atom, column, vector]
                        by_cell[s, vector, 0] += shift * px
                        by_cell[s, vector, 1] += shift * py
                        by_cell[s, vector, 2] += shift * pz
            by_positions[atom, 0] -= x
            by_positions[atom, 1] -= y
            by_positions[atom, 2] -= z
        return by_positions, by_cell

    return kernel
