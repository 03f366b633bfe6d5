"""The sign that a step is being recorded as a CUDA graph, during which nothing may wait for the device.

A recorded step is replayed without Python: decisions that depend on numbers of the device cannot be made in it, and
numbers of the host cannot reach it. Code that would do either asks `recording` and takes a way around.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["recording", "recording_step"]

_RECORDING: ContextVar[bool] = ContextVar("recording", default=False)


def recording() -> bool:
    """Return True within `recording_step`."""
    return _RECORDING.get()


@contextmanager
def recording_step() -> Iterator[None]:
    """Mark the steps within this block as recorded, or as a rehearsal of that."""
    token = _RECORDING.set(True)
    try:
        yield
    finally:
        _RECORDING.reset(token)
