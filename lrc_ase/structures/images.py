"""Whole cells by which atoms jump when they are wrapped through periodic boundaries between two evaluations."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from lrc_ase.layer.lattice import fractional_coordinates, inverse_cell

__all__ = ["CellImages"]

_LARGEST_MOVE = 1.0
"""Largest displacement of an atom, jumps and strain taken out, between two evaluations of one structure, Angstrom."""
_LARGEST_STRAIN = 0.02
"""Largest strain of the cell between two evaluations of one structure."""


class CellImages:
    """Counter of whole cells, which makes wrapped positions continuous.

    The polarization of a periodic cell is defined up to a quantum, charge times cell vector. Unwrapped positions
    :math:`x_i + n_i A` with the whole numbers :math:`n_i` of this class stay on one branch while atoms are wrapped: the
    polarization, and the energy in a field, change without steps. The first structure, and any structure that is no
    small change of the one before it, takes positions as they are, n = 0.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop the branch: the next structure takes its positions as they are."""
        self._unmoving: tuple[Tensor, ...] = ()
        self._last: tuple[Tensor, Tensor, Tensor] | None = None
        self._tensors: tuple[Tensor, ...] = ()
        self._small_move = 0.0

    def images(
        self, positions: Tensor, cell: Tensor, pbc: Tensor, structure: Tensor, unmoving: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return whole numbers (n_atoms, 3), in units of the cell vectors, that make `positions` continuous.

        `positions` (n_atoms, 3), `cell` (n_structures, 3, 3), `pbc` (n_structures, 3) and `structure` (n_atoms,) as in
        `Graph`; `unmoving` are quantities, such as elements, that differ only between different structures.
        """
        unmoving = (pbc, structure, *unmoving)
        if self._only_moves_little(positions, (cell, *unmoving)):
            assert self._last is not None
            self._last = positions.clone(), *self._last[1:]
            return self._last[1]
        fractional = fractional_coordinates(positions, cell, structure)
        images = torch.zeros_like(fractional)
        if self._last is not None and _equal(unmoving, self._unmoving):
            before, counted, last_cell = self._last
            change = fractional - fractional_coordinates(before, last_cell, structure)
            jumps = change.round() * pbc[structure]
            deformation = torch.linalg.solve(last_cell, cell) - torch.eye(3).to(cell)
            moved = torch.einsum("na,nab->nb", change - jumps, cell[structure]).norm(dim=1) > _LARGEST_MOVE
            # one structure of a batch may be another one while the rest continue
            counts = torch.zeros(len(cell)).to(cell).index_add(0, structure, moved.to(cell))
            another = (deformation.abs() > _LARGEST_STRAIN).flatten(1).any(dim=1) | (counts > 0)
            images = torch.where(another[structure][:, None], images, counted - jumps)
        self._last = (positions.clone(), images, cell.clone())
        self._unmoving = tuple(value.clone() for value in unmoving)
        return images

    def _only_moves_little(self, positions: Tensor, tensors: tuple[Tensor, ...]) -> bool:
        """Return True where no atom jumped: the usual step of dynamics, between two searches of neighbors.

        `tensors`, the cell first, are all arguments of `images` but the positions.
        """
        if len(tensors) != len(self._tensors) or any(map(operator.is_not, tensors, self._tensors)):
            self._tensors, self._small_move = tensors, 0.0
            return False
        assert self._last is not None
        if self._small_move == 0.0:
            # of a component: a third of the distance between the closest faces of the cells is no jump
            distance = 1 / float(torch.linalg.vector_norm(inverse_cell(tensors[0]), dim=1).max())
            self._small_move = min(_LARGEST_MOVE, distance / 3) / 3**0.5
        return bool((positions - self._last[0]).abs().max() < self._small_move)


def _equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))
