"""Progress of ``lrc-ase learn``: a row for each iteration, and a bar for the phase that runs."""

from __future__ import annotations

import time

from rich.progress import Progress, TaskID

from lrc_ase.cli.console import progress_bar, say
from lrc_ase.learning.frame_counts import with_counts
from lrc_ase.learning.progress import Observer
from lrc_ase.learning.settings import BudgetSettings, LearnSettings, load_settings
from lrc_ase.learning.starts import read_starts
from lrc_ase.learning.state import FreshErrors, IterationRecord, LearnFolder, LearnState
from lrc_ase.report.learning_report import report_learning

__all__ = ["LearnProgress"]

REPORT_EVERY = 120.0
"""Seconds between reports while the loop runs."""
_HEADING = (
    "      teacher   force error, meV/A      walkers           time, min\n"
    " iter   calls   fresh expected held   alarms   ps K max   spent   left"
)


class LearnProgress(Observer):
    """Observer that prints rows of a table, 72 columns wide, and shows a bar in a terminal."""

    def __init__(self, folder: LearnFolder, settings: LearnSettings | None, *, quiet: bool) -> None:
        self.folder, self.settings, self.quiet = folder, settings, quiet
        self._budget: BudgetSettings | None = None
        self.bar: Progress = progress_bar()
        self.task: TaskID | None = None
        self.reported = time.monotonic()
        self.has_heading = False

    def __enter__(self) -> LearnProgress:
        if not self.quiet:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def phase(self, name: str, total: int) -> None:
        """Show a bar for a phase."""
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(name, total=total, status="")

    def advance(self, done: int) -> None:
        """Move the bar."""
        if self.task is not None:
            self.bar.update(self.task, completed=done)

    def note(self, text: str) -> None:
        """Print a sentence."""
        if not self.quiet:
            say(text)

    def iteration(self, record: IterationRecord, state: LearnState) -> None:
        """Print the row of an iteration; write the report if the last one is old."""
        if not self.quiet:
            if not self.has_heading:
                self.has_heading = True
                print(_HEADING, flush=True)
            print(row(record, state, self._minutes_left(state)), flush=True)
        if time.monotonic() - self.reported > REPORT_EVERY:
            report_learning(self.folder.path)
            self.reported = time.monotonic()

    def _minutes_left(self, state: LearnState) -> float | None:
        """Return an estimate of the time until the budget ends, minutes; None without a budget."""
        if self._budget is None:
            settings = self.settings or load_settings(self.folder.settings)
            self._budget = with_counts(settings, read_starts(settings.starts), 0).budget
        budget, left = self._budget, []
        if budget.teacher_calls is not None and state.calls:
            left.append(state.seconds / state.calls * (budget.teacher_calls - state.calls) / 60)
        if budget.minutes is not None:
            left.append(max(budget.minutes - state.seconds / 60, 0.0))
        return min(left, default=None)


def row(record: IterationRecord, state: LearnState, minutes_left: float | None) -> str:
    """Return the row of an iteration."""
    every = record.fresh.get("all")
    alarms = f"{record.alarms + record.explosions}/{record.runs}" if record.runs else "-"
    hottest = "-" if record.hottest is None else f"{record.hottest:.0f}"
    left = "-" if minutes_left is None else f"{minutes_left:.1f}"
    return (
        f"{record.iteration:5d} {state.calls:7d} {_error(every)} {_expected(every)} {_error(record.held_out, 4)} "
        f"{alarms:>8} {record.picoseconds:4.0f} {hottest:>5} {state.seconds / 60:7.1f} {left:>6}"
    )


def _error(errors: FreshErrors | None, width: int = 7) -> str:
    return f"{'-':>{width}}" if errors is None else f"{errors.forces_rmse:{width}.1f}"


def _expected(errors: FreshErrors | None) -> str:
    known = errors is not None and errors.forces_predicted is not None
    return f"{errors.forces_predicted:8.1f}" if known and errors is not None else f"{'-':>8}"
