"""The interface that every short-range descriptor fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from lrc_ase.models.settings import DescriptorSettings
from lrc_ase.structures.graph import Graph

__all__ = ["Descriptor"]


class Descriptor(nn.Module):
    """Per-atom features from neighbor vectors, smooth at the cutoff and zero without neighbors.

    A descriptor is built as ``Class(settings, n_elements=..., cutoff=..., average_neighbors=..., generator=...)``:
    number of elements, cutoff in Angstrom, mean number of neighbors within it in the training set, and the source of
    the random initial weights.
    """

    settings_class: ClassVar[type[DescriptorSettings]]
    """What `settings` is made of; its `name` names the descriptor in configurations and potential files."""
    rotation_invariant: ClassVar[bool] = True
    """Whether features are invariant to rounding. Where not, the training measures by how much and writes it into the
    potential."""
    n_features: int
    """Width of the output."""
    reach: int = 1
    """Cutoffs that the features of an atom see. Beyond one, they are features of other atoms' features."""

    def forward(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        """Features of each atom.

        `vectors` (n_atoms, n_neighbors, 3) from atom to neighbor in Angstrom, `mask` (n_atoms, n_neighbors) False where
        padded, `species` (n_atoms,) element indices, `neighbors` (n_atoms, n_neighbors) the atom in each column ->
        (n_atoms, n_features). Neighbors beyond the cutoff (a skin) contribute exactly zero. With a reach of one,
        `neighbors` may name ghosts: further atoms, that have a place in `species` alone.
        """
        raise TypeError(f"{type(self).__name__} does not define its features")

    @classmethod
    def settings_from_data(cls, settings: Any, graphs: Sequence[Graph], *, cutoff: float) -> Any:
        """`settings` with what they leave open derived from the training graphs."""
        return settings
