"""Loading of batches; graphs on disk are read while the previous batch is trained on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from lrc_ase.dataset import LabelledGraph, Lazy

__all__ = ["Fetcher"]

Batch = dict[int, LabelledGraph]


class Fetcher:
    """Reader of the graphs of batches, one batch ahead for graphs on disk."""

    def __init__(self, graphs: Sequence[LabelledGraph]) -> None:
        self.graphs = graphs
        self.seconds_waited = 0.0
        """Time spent waiting for batches."""
        self.pool = ThreadPoolExecutor(1) if isinstance(graphs, Lazy) else None
        self.ahead: tuple[tuple[int, ...], Future[Batch]] | None = None

    def batch(self, indices: Sequence[int], following: Sequence[int] = ()) -> Batch:
        """Return the graphs at `indices`; a thread begins to read those of the `following` batch."""
        begin = time.monotonic()
        if self.pool is None:
            batch = self._read(indices)
        else:
            # after a rewind or a restart another batch may be due than the one read ahead
            key, future = self.ahead or ((), None)
            batch = future.result() if future is not None and key == tuple(indices) else self._read(indices)
            self.ahead = (tuple(following), self.pool.submit(self._read, following)) if following else None
        self.seconds_waited += time.monotonic() - begin
        return batch

    def _read(self, indices: Sequence[int]) -> Batch:
        """Read the graphs at `indices`."""
        return {index: self.graphs[index] for index in indices}
