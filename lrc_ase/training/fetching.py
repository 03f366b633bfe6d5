"""Graphs of one batch after the other; what lies on disk is read while the batch before is being trained on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from lrc_ase.dataset import LabelledGraph, Lazy

__all__ = ["Fetcher"]

Batch = dict[int, LabelledGraph]


class Fetcher:
    """Hands out the graphs of batches by their indices."""

    def __init__(self, graphs: Sequence[LabelledGraph]) -> None:
        self.graphs = graphs
        self.seconds_waited = 0.0
        """Time that batches had to be waited for."""
        self.pool = ThreadPoolExecutor(1) if isinstance(graphs, Lazy) else None
        self.ahead: tuple[tuple[int, ...], Future[Batch]] | None = None

    def batch(self, indices: Sequence[int], following: Sequence[int] = ()) -> Batch:
        """Graphs at `indices`; a thread begins to read those of the `following` batch."""
        begin = time.monotonic()
        if self.pool is None:
            found = self._read(indices)
        else:
            key, future = self.ahead or ((), None)
            found = future.result() if future is not None and key == tuple(indices) else self._read(indices)
            self.ahead = (tuple(following), self.pool.submit(self._read, following)) if following else None
        self.seconds_waited += time.monotonic() - begin
        return found

    def _read(self, indices: Sequence[int]) -> Batch:
        return {index: self.graphs[index] for index in indices}
