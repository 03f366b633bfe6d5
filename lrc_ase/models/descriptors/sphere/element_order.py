"""Multiplication of the rows of atoms by matrices of their elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ElementOrder"]


@dataclass(frozen=True)
class ElementOrder:
    """Atoms sorted by element, so that all atoms of an element share one matrix product."""

    order: Tensor | None
    """Atom in each row of the sorted order; None if the atoms are not sorted."""
    rows: Tensor | None
    """Row of each atom in the sorted order."""
    counts: list[int]
    """Number of atoms of each element."""

    @classmethod
    def of(cls, species: Tensor, n_elements: int, counts: Sequence[int] | None = None) -> ElementOrder:
        """Return the order of atoms with element indices `species` (n_atoms,); `counts` of them, where known."""
        if n_elements == 1 or len(species) == 0:
            return cls(None, None, [len(species)] + [0] * (n_elements - 1))
        # the argsort of a permutation is its inverse; counts as Python numbers, which `split` needs
        order = torch.argsort(species)
        if counts is None:
            counts = torch.bincount(species, minlength=n_elements).tolist()
        return cls(order, torch.argsort(order), list(counts))

    def sort(self, tensor: Tensor, dim: int) -> Tensor:
        """Bring a dimension from the order of atoms to that of elements."""
        return tensor if self.order is None else torch.index_select(tensor, dim, self.order)

    def unsort(self, tensor: Tensor, dim: int) -> Tensor:
        """Bring a dimension back from the order of elements to that of atoms."""
        return tensor if self.rows is None else torch.index_select(tensor, dim, self.rows)

    def multiply(self, tensor: Tensor, weights: Tensor) -> Tensor:
        """Multiply (n, n_atoms, n_inputs), sorted, by `weights` (n_elements, n or 1, n_inputs, n_outputs)."""
        by_element = zip(tensor.split(self.counts, dim=1), weights, strict=True)
        # one product per element: a gathered matrix per atom would be read from memory for each of them
        products = [torch.matmul(piece, weight) for piece, weight in by_element if piece.shape[1]]
        # no copy for one element; without atoms an empty product, which keeps type and shape
        if len(products) < 2:
            return products[0] if products else torch.matmul(tensor, weights[0])
        return torch.cat(products, dim=1)
