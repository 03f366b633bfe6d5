"""Ties between atoms and a mesh, and the order of derivatives that spreading and gathering share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, Protocol

from torch import Tensor

from lrc_ase.layer.exchange import Exchange
from lrc_ase.layer.windows import Window

__all__ = ["Backend", "Sites", "Stencil", "multi_indices"]


@lru_cache(maxsize=32)
def multi_indices(dimension: int, level: int) -> tuple[tuple[int, ...], ...]:
    """Return all derivative orders of total degree up to `level`: by degree, then the first axis first.

    >>> multi_indices(2, 2)
    ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    """
    # by degree, so that the orders of a lower level are a prefix of those of a higher one
    orders = [order for order in product(range(level + 1), repeat=dimension) if sum(order) <= level]
    return tuple(sorted(orders, key=lambda order: (sum(order), [-value for value in order])))


@dataclass(frozen=True, eq=False)
class Stencil:
    """Window, mesh and structure of each atom: everything about spreading but the coordinates."""

    window: Window
    mesh_shape: tuple[int, ...]
    structure: Tensor
    """Structure of each atom, int64 (n_atoms,)."""
    n_structures: int
    exchange: Exchange | None = None
    """Processes that share the mesh, each with atoms of its own; None where one process holds all atoms."""

    @cached_property
    def dimension(self) -> int:
        return len(self.mesh_shape)


class Backend(Protocol):
    """Kernels between atoms and mesh for one kind of device.

    The filter between spreading and gathering is the same for all: torch's FFT runs on every device (`filtering`).
    """

    def sort(self, fractional: Tensor, stencil: Stencil) -> Any:
        """Bring atoms into the order in which `spread` and `gather` visit them; only this backend reads the result.

        `fractional` (n_atoms, d) are any real numbers in units of the cell vectors, without a graph.
        """
        ...

    def spread(self, weights: Tensor, sites: Sites, level: int, mesh: Tensor) -> None:
        """Add weights to a contiguous mesh (n_structures, n_channels, *mesh_shape).

        `weights` (n_atoms, n_orders, n_channels) multiply the window's derivatives of `multi_indices(d, level)`.
        """
        ...

    def gather(self, mesh: Tensor, sites: Sites, level: int) -> Tensor:
        """Interpolate a contiguous mesh with all window derivatives up to `level`, (n_atoms, n_orders, n_channels)."""
        ...


@dataclass(frozen=True, eq=False)
class Sites:
    """Atoms at fixed coordinates on a mesh, sorted once for all passes over them.

    One convolution makes one `Sites`, and hands it to every spread and gather of its value and derivatives.
    """

    fractional: Tensor
    """Coordinates in units of the cell vectors (n_atoms, d), without a graph; nobody may change them in place."""
    stencil: Stencil
    _sorted: dict[Backend, Any] = field(default_factory=dict, init=False, repr=False)

    def sorted_by(self, backend: Backend) -> Any:
        """Return what `backend.sort` makes of these atoms."""
        # per backend, as third derivatives go by plain torch while the others are compiled
        if backend not in self._sorted:
            self._sorted[backend] = backend.sort(self.fractional, self.stencil)
        return self._sorted[backend]
