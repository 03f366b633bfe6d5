"""Reuse of a list of pairs for a moving structure: one rule for ASE, LAMMPS and torch-sim."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Skin"]


class Skin:
    """Extra range of a list of pairs, and the structure of the last search.

    A list of all pairs within cutoff + skin holds every pair within the cutoff until two atoms have approached each
    other by the skin. A new search is therefore needed when an atom has moved by half the skin, or when any other
    quantity has changed.

    Parameters
    ----------
    width
        The skin, Angstrom; zero for a search after every move.
    """

    def __init__(self, width: float) -> None:
        if not width >= 0:
            raise ValueError(f"`skin` must be zero or a positive length in Angstrom, got {width}")
        self.width = width
        self.n_searches = 0
        """Number of searches so far."""
        self._positions: Tensor | None = None
        self._unmoving: tuple[Tensor, ...] = ()

    def holds(self, positions: Tensor, unmoving: Sequence[Tensor]) -> bool:
        """Return True if the last list is valid for `positions` (n_atoms, 3), on the device of the last search.

        `unmoving` are all other quantities that pairs or the graph depend on: elements, cell, boundary, charge.
        """
        last = self._positions
        if last is None or len(last) != len(positions) or len(unmoving) != len(self._unmoving):
            return False
        for value, before in zip(unmoving, self._unmoving, strict=True):
            if not torch.equal(value, before):
                return False
        if len(positions) == 0:
            return True
        squared = (positions - last).square().sum(dim=1).max()
        return bool(squared <= (0.5 * self.width) ** 2)  # False for NaN, so that the search reports it

    def searched(self, positions: Tensor, unmoving: Sequence[Tensor]) -> None:
        """Record copies of the structure of a new list, and count the search."""
        self._positions = positions.clone()
        self._unmoving = tuple(value.clone() for value in unmoving)
        self.n_searches += 1
