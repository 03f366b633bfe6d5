"""The interface that every short-range descriptor fills."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Descriptor"]


class Descriptor(nn.Module):
    """Per-atom features from neighbor vectors, smooth at the cutoff and zero without neighbors."""

    n_features: int
    """Width of the output."""

    def forward(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        """Features of each atom.

        `vectors` (n_atoms, n_neighbors, 3) from atom to neighbor in Angstrom, `mask` (n_atoms, n_neighbors) False where
        padded, `species` (n_atoms,) element indices, `neighbors` (n_atoms, n_neighbors) the atom in each column ->
        (n_atoms, n_features). Neighbors beyond the cutoff (a skin) contribute exactly zero.
        """
        raise TypeError(f"{type(self).__name__} does not define its features")
