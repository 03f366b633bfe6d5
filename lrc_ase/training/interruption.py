"""Ctrl-C and SIGTERM as a wish to stop at the next safe point."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["StopWish", "TrainingInterrupted", "catch_signals"]


class TrainingInterrupted(Exception):
    """Training was stopped by Ctrl-C or SIGTERM; the state is kept."""


@dataclass
class StopWish:
    """Which signal asked to stop, if one did."""

    signal_name: str | None = None


@contextmanager
def catch_signals() -> Iterator[StopWish]:
    """Note the first SIGINT or SIGTERM in the wish; a second one acts as without this.

    Outside the main thread, where Python delivers no signals, it does nothing.
    """
    wish = StopWish()
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
        yield wish
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)
