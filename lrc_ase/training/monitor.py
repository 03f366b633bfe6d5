"""What a run tells while it goes on: one line on the console, a log, a table of metrics, TensorBoard."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lrc_ase.dataset import Label
from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.training.configuration import ConfigurationError
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.progress import EpochRecord
from lrc_ase.training.run_folder import RunFolder

__all__ = ["Monitor"]

_LINES_WITHOUT_TERMINAL = 20
"""Epochs of a stage printed where no bar can be seen."""


_STYLES: dict[Label, str] = {"energy": ".2f", "forces": ".1f", "stress": ".2f"}
"""Format of the errors of each label."""


class Monitor:
    """Shows and records the course of a run; silent in all processes but the first."""

    def __init__(self, folder: RunFolder, *, is_first: bool, quiet: bool, tensorboard: bool) -> None:
        self.folder = folder
        self.is_first = is_first
        self.console = Console(quiet=quiet or not is_first)
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[validation]}"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.make_board = _summary_writer() if tensorboard and is_first else None
        self.board: Any = None
        self.task: TaskID | None = None
        self.said_compiling = False
        self.begin = time.monotonic()

    @contextmanager
    def task_shown(self, description: str, *, total: int | None = None, completed: int = 0) -> Iterator[TaskID]:
        """Show a line of the progress bar."""
        self.task = self.bar.add_task(description, total=total, completed=completed, loss="", validation="", speed="")
        self.begin = time.monotonic()
        try:
            yield self.task
        finally:
            self.bar.remove_task(self.task)
            self.task = None

    def reading(self, done: int, total: int) -> None:
        """Show how many structures have been read and prepared."""
        assert self.task is not None
        self.bar.update(self.task, completed=done, total=total, description="neighbors")

    def caching(self, done: int, file: str) -> None:
        """Show how many frames of a file have been put into the cache."""
        assert self.task is not None
        self.bar.update(self.task, completed=done, description=f"cache, {Path(file).name}")

    def step(self, loop: StageLoop) -> None:
        """Show the loss so far and the speed."""
        progress = loop.progress
        assert self.task is not None
        self.bar.update(
            self.task,
            completed=progress.step,
            description=f"{loop.stage.name} {progress.epoch + 1}/{loop.n_epochs}",
            loss=f"loss {progress.sums.loss / max(progress.sums.n_structures, 1):.2e}",
            speed=f"{self._speed(loop):.0f} atoms/s",
        )

    def epoch(self, loop: StageLoop, record: EpochRecord, watched: Mapping[str, float] | None) -> None:
        """Record an epoch everywhere."""
        if not self.is_first:
            return
        parts = {"train": record.train, "validation": record.validation or {}, "watched": watched or {}}
        values = {f"{part}_{name}": value for part, errors in parts.items() for name, value in errors.items()}
        values.pop("watched_loss", None)
        row: dict[str, Any] = {
            "stage": loop.stage.name,
            "epoch": record.epoch,
            "learning_rate": f"{record.learning_rate:.4e}",
            "seconds": f"{record.seconds:.2f}",
        }
        known = {name: value for name, value in values.items() if not math.isnan(value)}
        self.folder.add_metrics(row | {name: f"{value:.6g}" for name, value in known.items()})
        if self.make_board is not None:
            self.board = self.board or self.make_board(self.folder.path / "tensorboard")
            for name, value in known.items():
                self.board.add_scalar(f"{loop.stage.name}/{name}", value, loop.progress.step)
        line = (
            f"{loop.stage.name} epoch {record.epoch}: train {_errors(record.train)}"
            + (f"; validation {_errors(record.validation)}" if record.validation else "")
            + (f"; watched {_errors(watched)}" if watched else "")
            + (" *" if record.improved and record.validation else "")
        )
        self.folder.log(line)
        if not self.console.is_terminal and record.epoch % math.ceil(loop.n_epochs / _LINES_WITHOUT_TERMINAL) == 0:
            left = (loop.n_epochs - record.epoch) * record.seconds / max(record.epoch, 1)
            self._print(f"{line}; {self._speed(loop):.0f} atoms/s, {_duration(left)} left")
        if record.validation and self.task is not None:
            shown = (
                f"validation {record.validation['energy_rmse']:.2f} meV/atom "
                f"{record.validation['forces_rmse']:.1f} meV/Angstrom"
            )
            self.bar.update(self.task, validation=shown)

    def compiling(self) -> None:
        """Say, once, that kernels are being compiled."""
        if self.said_compiling or not self.is_first:
            return
        self.said_compiling = True
        self._print("compiling kernels (once, about half a minute)")
        if self.task is not None:
            self.bar.update(self.task, description="compiling kernels")

    def log(self, text: str) -> None:
        """Say what the user must know."""
        if self.is_first:
            self.folder.log(text)
            self._print(text)

    def close(self) -> None:
        """End what is open."""
        if self.board is not None:
            self.board.close()

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _speed(self, loop: StageLoop) -> float:
        return loop.n_atoms_done / max(time.monotonic() - self.begin, 1e-9)


def _errors(metrics: Mapping[str, float]) -> str:
    shown = [
        f"{label} {metrics[f'{label}_rmse']:{style}} {ERROR_UNITS[label].ascii}"
        for label, style in _STYLES.items()
        if not math.isnan(metrics[f"{label}_rmse"])
    ]
    return f"loss {metrics['loss']:.3e}, {', '.join(shown)} (RMSE)"


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _duration(3725.4)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _summary_writer() -> Any:
    """TensorBoard's writer, if it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigurationError(
            "`tensorboard: true` needs the package tensorboard: install it with `pip install tensorboard`, or leave "
            "the key out; metrics.csv holds the same numbers"
        ) from error
    return SummaryWriter
