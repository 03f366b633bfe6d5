"""Progress of the loop: lines of a log file, and the interface of an observer that shows it."""

from __future__ import annotations

import time
from pathlib import Path

from lrc_ase.learning.state import IterationRecord, LearnState

__all__ = ["Observer", "log_line"]


class Observer:
    """Interface of the code around the loop; this one shows nothing."""

    def phase(self, name: str, total: int) -> None:
        """Begin a phase of `total` units."""

    def advance(self, done: int) -> None:
        """Show how far the phase is."""

    def iteration(self, record: IterationRecord, state: LearnState) -> None:
        """Show what is known of an iteration after its exploration, or after the labels of the last one."""

    def note(self, text: str) -> None:
        """Show a sentence."""


def log_line(path: Path, text: str) -> None:
    """Append a line to the log, with the time."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")
