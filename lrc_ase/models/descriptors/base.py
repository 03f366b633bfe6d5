"""Interface of short-range descriptors."""

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
    """Class of `settings`; its `name` selects the descriptor in configurations and potential files."""
    rotation_invariant: ClassVar[bool] = True
    """True if a rotation changes the features by rounding alone. Otherwise the training measures the error under
    rotation and writes it to the potential."""
    hands_on: ClassVar[bool] = False
    """True if `forward` takes `to_ghosts`, so that processes can share a structure although `reach` is above one,
    and `element_counts`."""
    n_features: int
    """Width of the output."""
    reach: int = 1
    """Range of the features in units of the cutoff. Above one, features of an atom depend on features of others."""

    def forward(self, vectors: Tensor, mask: Tensor, species: Tensor, neighbors: Tensor) -> Tensor:
        """Compute the features of each atom, (n_atoms, n_features).

        `vectors` (n_atoms, n_neighbors, 3) from atom to neighbor in Angstrom, `mask` (n_atoms, n_neighbors) False where
        padded, `species` (n_atoms,) element indices, `neighbors` (n_atoms, n_neighbors) the atom in each column.
        Neighbors beyond the cutoff (in the skin) contribute exactly zero. With a reach of one, `neighbors` may refer to
        ghosts: atoms without a row of neighbors, whose elements follow in `species`.

        With a larger reach they may if the descriptor has `hands_on`. The model then passes the keyword argument
        `to_ghosts`, a differentiable function that appends to values of the local atoms, (n_local, ...), those of the
        ghosts, which their owners send. Where it has the numbers of local atoms of each element on the host, it passes
        them as `element_counts`, and the descriptor does not ask a GPU for them.
        """
        raise TypeError(f"{type(self).__name__} does not define its features")

    @classmethod
    def settings_from_data(cls, settings: Any, graphs: Sequence[Graph], *, cutoff: float) -> Any:
        """Return `settings` with values that are None replaced by statistics of the training graphs."""
        return settings
