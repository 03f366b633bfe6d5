"""Time spent compiling kernels, which the time limit of a training does not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core import event

__all__ = ["CompilationClock", "compilation_timed"]


class CompilationClock(event.Listener):
    """Clock of the time in which this process compiles kernels; loading them from disk does not count."""

    def __init__(self, on_begin: Callable[[], None] = lambda: None) -> None:
        self.seconds = 0.0
        """Time spent compiling so far."""
        self.on_begin = on_begin
        """Called when a compilation begins, outermost kernels only."""
        self._depth = 0
        self._begin = 0.0

    def on_start(self, event: event.Event) -> None:
        # a kernel compiles the functions that it calls: only the outermost counts
        self._depth += 1
        if self._depth == 1:
            self._begin = time.monotonic()
            self.on_begin()

    def on_end(self, event: event.Event) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.monotonic() - self._begin


@contextmanager
def compilation_timed(on_begin: Callable[[], None] = lambda: None) -> Iterator[CompilationClock]:
    """Measure the time of compilations within the context.

    >>> from numba import njit
    >>> with compilation_timed() as clock:
    ...     njit(lambda x: x + 1)(1)
    2
    >>> clock.seconds > 0
    True
    """
    clock = CompilationClock(on_begin)
    with event.install_listener("numba:compile", clock):
        yield clock
