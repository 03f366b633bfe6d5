"""Reuse of a list of pairs for a moving structure: one rule for ASE, LAMMPS and torch-sim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Skin"]


class Skin:
    r"""Extra range of a list of pairs, and the structure of the last search.

    A list of all pairs within cutoff + skin holds every pair within the cutoff until two atoms have approached each
    other by the skin. A new search is therefore needed when an atom has moved by half the skin, or when any other
    quantity has changed.

    A periodic cell may change from A to A F. Atoms then move by u from where F takes them, and two atoms that were r
    apart are at least :math:`\sigma r - 2u` apart, with the smallest singular value of F or 1, whichever is smaller.
    The list therefore holds while :math:`2u \le \sigma (r_c + s) - r_c`, with cutoff and skin, and so does any shorter
    range in place of the cutoff.

    Parameters
    ----------
    width
        The skin, Angstrom; zero for a search after every move.
    cutoff
        Range of the pairs, Angstrom; needed where cells may change.
    """

    def __init__(self, width: float, cutoff: float = math.inf) -> None:
        if not width >= 0:
            raise ValueError(f"`skin` must be zero or a positive length in Angstrom, got {width}")
        self.width, self.cutoff = width, cutoff
        self.n_searches = 0
        """Number of searches so far."""
        self._positions: Tensor | None = None
        self._unmoving: tuple[Tensor, ...] = ()
        self._cell: Tensor | None = None

    def holds(self, positions: Tensor, unmoving: Sequence[Tensor], cell: Tensor | None = None) -> bool:
        """Return True if the last list is valid for `positions` (n_atoms, 3), on the device of the last search.

        `unmoving` are all other quantities that pairs or the graph depend on: elements, boundary, charge, and the cell
        unless it is passed as `cell` (3, 3), periodic in all directions.
        """
        last = self._positions
        if last is None or len(last) != len(positions) or len(unmoving) != len(self._unmoving):
            return False
        for value, before in zip(unmoving, self._unmoving, strict=True):
            if not torch.equal(value, before):
                return False
        if len(positions) == 0:
            return True
        approach = self.width
        if cell is None or self._cell is None:
            if cell is not self._cell:
                return False
        elif not torch.equal(cell, self._cell):
            if not torch.isfinite(cell).all():
                return False  # the search reports it
            deformation = torch.linalg.solve(self._cell, cell)
            last = last @ deformation
            shrinkage = min(1.0, float(torch.linalg.svdvals(deformation)[-1]))
            approach = shrinkage * (self.cutoff + self.width) - self.cutoff
        # False for NaN, so that the search reports it
        return approach >= 0 and bool(_largest_move(last, positions) <= (0.5 * approach) ** 2)

    def searched(self, positions: Tensor, unmoving: Sequence[Tensor], cell: Tensor | None = None) -> None:
        """Record copies of the structure of a new list, and count the search."""
        self._positions, self._cell = positions.clone(), None if cell is None else cell.clone()
        self._unmoving = tuple(value.clone() for value in unmoving)
        self.n_searches += 1


def _largest_move(before: Tensor, after: Tensor) -> Any:
    """Return the largest squared distance between two positions of an atom."""
    if after.device.type != "cpu":
        return (after - before).square().sum(dim=1).max()
    moves = after.numpy() - before.numpy()  # a fraction of the time of tensors where atoms are few
    return np.einsum("ij,ij->i", moves, moves).max()
