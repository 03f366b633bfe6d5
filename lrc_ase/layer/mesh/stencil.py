"""What ties atoms to a mesh, and the order of derivatives that spreading and gathering share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any

from torch import Tensor

from lrc_ase.layer.exchange import Exchange
from lrc_ase.layer.windows import Window

__all__ = ["Stencil", "multi_indices"]


@lru_cache(maxsize=32)
def multi_indices(dimension: int, level: int) -> tuple[tuple[int, ...], ...]:
    """Derivative orders of total degree up to `level`: by degree, then the first axis first.

    >>> multi_indices(2, 2)
    ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    """
    found = [order for order in product(range(level + 1), repeat=dimension) if sum(order) <= level]
    return tuple(sorted(found, key=lambda order: (sum(order), [-value for value in order])))


@dataclass(eq=False)
class Stencil:
    """What ties atoms to a mesh: everything but the coordinates."""

    window: Window
    mesh_shape: tuple[int, ...]
    structure: Tensor
    """Structure of each atom, int64 (n_atoms,)."""
    n_structures: int
    exchange: Exchange | None = None
    """Processes that share the mesh, each spreading atoms of its own; None where one holds them all."""
    held: Tensor | None = None
    """Coordinates that nobody changes while this object lives: they are sorted without a look at whether they did."""
    sorted_atoms: Any = field(default=None, init=False, repr=False)
    """Kept by the compiled kernels, so that atoms are sorted once for several passes."""

    @property
    def dimension(self) -> int:
        return len(self.mesh_shape)

    def holding(self, fractional: Tensor) -> Stencil:
        """The same for coordinates that nobody changes."""
        return Stencil(self.window, self.mesh_shape, self.structure, self.n_structures, self.exchange, fractional)
