"""Processes that share one structure, each with some of its atoms: what they must tell each other."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["Exchange"]


class Exchange(Protocol):
    """Sums and maxima over the processes that share a structure.

    Each method is collective: every process calls it, in the same order, those without atoms too.
    """

    n_processes: int
    """Number of processes that share the structure."""

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, the same for all; the memory of `values` may be used for it."""

    def largest(self, values: Tensor) -> Tensor:
        """Return the maximum over the processes, entry by entry."""
