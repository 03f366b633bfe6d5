"""Checks of the layer's input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrc_ase.layer.exchange import Exchange
from lrc_ase.layer.kernels import Multiplier
from lrc_ase.layer.recording import recording
from lrc_ase.layer.tables import MultiplierTables
from lrc_ase.layer.windows import Window

__all__ = ["Boundary", "check_inputs", "check_layer"]

_SMALLEST_SKEWNESS = 1e-6
"""Volume over the product of the edges below which cell vectors count as linearly dependent."""


class Boundary(NamedTuple):
    """Arguments of `LongRangeConvolution.forward` that say which atoms and directions belong together."""

    structure: Tensor | None
    pbc: Tensor | None
    mesh_shapes: Sequence[tuple[int, ...]] | None
    exchange: Exchange | None
    tables: MultiplierTables | None
    cell_on_host: Tensor | None
    structure_on_host: Tensor | None

    def sizes(self, n_structures: int) -> list[int]:
        """Count the atoms of each structure; waits for the device unless the structures are known on the host."""
        structure = self.structure if self.structure_on_host is None else self.structure_on_host
        assert structure is not None
        sizes: list[int] = torch.bincount(structure, minlength=n_structures).tolist()
        return sizes


def check_layer(multiplier: Multiplier, window: Window | None, method: str) -> None:
    """Raise an error for arguments of the layer that are of another type, or no method."""
    if not isinstance(multiplier, Multiplier):
        raise TypeError(f"`multiplier` must be a kernel of lrc_ase.layer.kernels, got {multiplier!r}")
    if not hasattr(multiplier, "n_channels"):
        raise TypeError(
            f"`multiplier` must have `n_channels`, its number of kernels: {type(multiplier).__name__} sets none"
        )
    if window is not None and not isinstance(window, Window):
        raise TypeError(f"`window` must be a window of lrc_ase.layer.windows, as bspline_window(6), got {window!r}")
    if method not in ("mesh", "ewald", "direct"):
        raise ValueError(f"`method` must be 'mesh', 'ewald' or 'direct', got {method!r}")


def check_inputs(weights: Tensor, fractional: Tensor, cell: Tensor, boundary: Boundary, n_inputs: int) -> np.ndarray:
    """Raise an error for types, shapes, coordinates or cells that cannot be summed; return the numbers of the cells.

    Coordinates and structures of a step that is recorded are not looked at.
    """
    structure, pbc, mesh_shapes, _, _, cell_on_host, structure_on_host = boundary
    named = ("weights", weights), ("fractional", fractional), ("cell", cell)
    optional = [each for each in (("pbc", pbc), ("structure", structure)) if each[1] is not None]
    for name, value in (*named, *optional):
        if not isinstance(value, Tensor):
            raise TypeError(f"`{name}` must be a tensor, got {type(value).__name__}: `torch.as_tensor` converts it")
    if fractional.ndim != 2:
        raise ValueError(f"`fractional` must have shape (n_atoms, d), got {tuple(fractional.shape)}")
    n_atoms, d = fractional.shape
    if weights.shape != (n_atoms, n_inputs):
        raise ValueError(
            f"`weights` must have shape ({n_atoms}, {n_inputs}), got {tuple(weights.shape)}: one row per "
            "atom, one column per input channel of the multiplier"
        )
    if cell.ndim != 3 or cell.shape[1:] != (d, d):
        raise ValueError(f"`cell` must have shape (n_structures, {d}, {d}), got {tuple(cell.shape)}")
    if pbc is not None and pbc.shape != cell.shape[:2]:
        raise ValueError(f"`pbc` must have shape (n_structures, {d}), {tuple(cell.shape[:2])}, got {tuple(pbc.shape)}")
    if mesh_shapes is not None and len(mesh_shapes) != len(cell):
        raise ValueError(f"`mesh_shapes` must hold one mesh for each of {len(cell)} structures, got {len(mesh_shapes)}")
    if structure is not None:
        _check_structure(structure, structure_on_host, n_atoms, len(cell))
    numbers = fractional.detach()
    # one number that is not finite makes the sum so: one pass
    if not recording() and not math.isfinite(numbers.sum()):
        finite = torch.isfinite(numbers).all(dim=-1)
        raise ValueError(
            f"`fractional` holds coordinates that are not finite (NaN or infinite), of atoms "
            f"{(~finite).nonzero()[:5, 0].tolist()}: look at the step that made these positions"
        )
    cells: np.ndarray = cell.detach().cpu().numpy() if cell_on_host is None else cell_on_host.to(cell.dtype).numpy()
    _check_cells(cells.tobytes(), cells.dtype.name, d)
    return cells


def _check_structure(structure: Tensor, on_host: Tensor | None, n_atoms: int, n_structures: int) -> None:
    """Raise a `ValueError` unless each atom has the index of one of the structures: kernels take it for an address."""
    if structure.shape != (n_atoms,) or structure.dtype != torch.int64:
        raise ValueError(
            f"`structure` must hold one whole number (int64) for each of {n_atoms} atoms, got {structure.dtype} "
            f"{tuple(structure.shape)}"
        )
    if n_atoms == 0 or recording():
        return
    lowest, highest = map(int, (structure if on_host is None else on_host).aminmax())
    if lowest < 0 or highest >= n_structures:
        raise ValueError(
            f"`structure` must hold indices from 0 to {n_structures - 1}, one less than the number of cells, got "
            f"{lowest} to {highest}"
        )


@lru_cache(maxsize=32)
def _check_cells(content: bytes, dtype: str, d: int) -> None:
    """Raise a `ValueError` for singular cells. Cached: a determinant costs as much as spreading a few atoms."""
    cells = np.frombuffer(content, dtype).reshape(-1, d, d)
    with np.errstate(all="ignore"):  # what is not a number fails the test below
        skewness = np.abs(np.linalg.det(cells)) / np.sqrt((cells**2).sum(axis=-1)).prod(axis=-1)
    if not (skewness > _SMALLEST_SKEWNESS).all():
        singular = int((~(skewness > _SMALLEST_SKEWNESS)).argmax())
        raise ValueError(
            f"`cell` {singular} is singular or not finite: {cells[singular].tolist()}; give "
            "independent vectors, unit ones in open directions (`lrc_ase.structures.neighbors.complete_cell`)"
        )
