"""Steps recorded as CUDA graphs, during which nothing may wait for the device.

A recorded step is replayed without Python: decisions that depend on numbers of the device cannot be made in it, and
numbers of the host cannot reach it. Code that would do either asks `recording` and takes a way around.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

__all__ = ["record", "recording", "recording_step"]

_RECORDING: ContextVar[bool] = ContextVar("recording", default=False)
_WARM_UPS = 3
"""Steps before the recording: kernels are compiled and constants come to the device."""


def record(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record `step` on a CUDA device and return a function that repeats it, on the same addresses.

    `step` runs three times before. What it leaves behind lies at addresses that every repetition writes again. If
    the recording fails, a warning says so, and `step` itself is returned.
    """
    try:
        return _recorded(step, device)
    except RuntimeError as error:  # of CUDA
        warnings.warn(
            f"steps go kernel by kernel, several times slower: they could not be recorded as a CUDA graph ({error})",
            stacklevel=2,
        )
        return step


def _recorded(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    recorded = torch.cuda.CUDAGraph()
    # recording wants a stream of its own, and so do the steps before it
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream), recording_step():
        for _ in range(_WARM_UPS):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    with torch.cuda.graph(recorded, capture_error_mode="thread_local"), recording_step():
        step()
    return recorded.replay


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
