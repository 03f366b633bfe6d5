"""Ctrl-C and SIGTERM as requests to stop at the next safe point."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["StopWish", "TrainingInterrupted", "catch_signals"]


class TrainingInterrupted(Exception):
    """Exception of a training that Ctrl-C or SIGTERM stopped after its state was written."""


@dataclass
class StopWish:
    """Name of the signal that asked to stop, None if none did."""

    signal_name: str | None = None


@contextmanager
def catch_signals(wish: StopWish) -> Iterator[None]:
    """Record the first SIGINT or SIGTERM in `wish` instead of obeying it; a second signal acts as usual.

    Outside the main thread Python delivers no signals, and the context does nothing.
    """
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        wish.signal_name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        signal.signal(number, previous[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    except ValueError:  # not the main thread
        previous.clear()
    try:
        yield
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)
