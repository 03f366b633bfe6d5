"""Processes that share one structure, each with some of its atoms: what they must tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

__all__ = ["Exchange"]


class Exchange(Protocol):
    """Sums and maxima over the processes that share a structure, and parts of arrays that they send each other.

    Each method is collective: every process calls it, in the same order, those without atoms too.
    """

    n_processes: int
    """Number of processes that share the structure."""
    rank: int
    """Number of this process, from 0."""

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, the same for all; the memory of `values` may be used for it."""

    def largest(self, values: Tensor) -> Tensor:
        """Return the maximum over the processes, entry by entry."""

    def sum_of_part(self, values: Tensor, ranges: Sequence[tuple[int, int]]) -> Tensor:
        """Sum over the processes; return the rows in this process's range, one of `ranges` for each process."""

    def join(self, part: Tensor, ranges: Sequence[tuple[int, int]], whole: Tensor) -> None:
        """Write the rows of all processes, each of which has those of its range, into `whole`."""

    def swap(self, leaving: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Send numbers of `leaving`, (n,), to each process, and return those that arrive, in the order of processes."""
