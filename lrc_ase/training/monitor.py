"""Progress of a run: rows of epochs and a bar on the console, a log, metrics, TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from lrc_ase.dataset import Label
from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.files.counted import counted
from lrc_ase.files.terminal import new_console
from lrc_ase.models.ensemble import members_of
from lrc_ase.training.configuration import ConfigurationError
from lrc_ase.training.epoch_table import epoch_heading, epoch_row, shown_labels, watched_row
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.progress import EpochRecord
from lrc_ase.training.run_folder import RunFolder

__all__ = ["Monitor"]

_ROWS = 20
"""Epochs of a stage that are printed; the log holds all."""


_STYLES: dict[Label, str] = {
    "energy": ".2f",
    "forces": ".1f",
    "stress": ".2f",
    "dipole": ".4f",
    "born_effective_charges": ".4f",
}
"""Format of the errors of each label."""


class Monitor:
    """Display and record of the progress of a run; silent in all processes but the first."""

    def __init__(self, folder: RunFolder, *, is_first: bool, quiet: bool, tensorboard: bool) -> None:
        self.folder = folder
        self.is_first = is_first
        self.console = new_console(quiet=quiet or not is_first)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[status]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.make_board = _summary_writer() if tensorboard and is_first else None
        self.board: Any = None
        self.task: TaskID | None = None
        self.said_compiling = False
        self.seconds_before = 0.0
        """Time that earlier processes spent in the stage."""

    @contextmanager
    def task_shown(self, description: str, *, total: int | None = None, completed: int = 0) -> Iterator[TaskID]:
        """Show a line of the progress bar."""
        self.task = self.bar.add_task(description, total=total, completed=completed, status="")
        try:
            yield self.task
        finally:
            self.bar.remove_task(self.task)
            self.task = None

    def reading(self, done: int, total: int) -> None:
        """Show the number of structures that are read and prepared."""
        assert self.task is not None
        self.bar.update(self.task, completed=done, total=total, description=f"neighbors {done}/{total}")

    def caching(self, done: int, file: str) -> None:
        """Show the number of frames of a file that are in the cache."""
        assert self.task is not None
        self.bar.update(self.task, completed=done, description=f"cache, {Path(file).name:.30}: {done}")

    def step(self, loop: StageLoop) -> None:
        """Show the loss so far and the speed."""
        progress = loop.progress
        assert self.task is not None
        loss = progress.sums.loss / max(progress.sums.n_structures, 1)
        self.bar.update(
            self.task,
            completed=progress.step,
            description=f"{loop.stage.name:.20} {progress.epoch + 1}/{loop.n_epochs}",
            status=f"loss {loss:.2e}  {self._speed(loop):.0f} atoms/s  {self._left(loop)} left",
        )

    def stage(self, loop: StageLoop) -> None:
        """Print model and length of a stage, and the heading of its rows."""
        members = members_of(loop.model)
        n_parameters = sum(parameter.numel() for parameter in members[0].parameters())
        ensemble = f"{len(members)} members of " if len(members) > 1 else ""
        stage, ending = loop.stage, ""
        if stage.patience is not None and stage.patience < loop.n_epochs:
            ending = f", or {counted(stage.patience, 'validation')} without a lower loss"
        self.log(
            f"stage '{stage.name}': {ensemble}{stage.model} model, {n_parameters} parameters, "
            f"{counted(loop.n_epochs, 'epoch')}{ending}"
        )
        self.seconds_before = loop.progress.seconds
        if self.is_first:
            self._print(epoch_heading(shown_labels(stage.loss), validated=bool(loop.validation_graphs)))

    def epoch(self, loop: StageLoop, record: EpochRecord, watched: Mapping[str, float] | None) -> None:
        """Write an epoch to metrics.csv, TensorBoard and the log, and print some epochs."""
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
        if record.epoch % math.ceil(loop.n_epochs / _ROWS) == 0 or loop.finished:
            validated = bool(loop.validation_graphs)
            labels = shown_labels(loop.stage.loss)
            self._print(epoch_row(labels, record, validated=validated, speed=self._speed(loop), left=self._left(loop)))
            if watched:
                self._print(watched_row(labels, watched))

    def compiling(self) -> None:
        """Print once that kernels are being compiled."""
        if self.said_compiling or not self.is_first:
            return
        self.said_compiling = True
        text = "compiling kernels (once, about half a minute)"
        self._print(text)
        if self.task is not None:
            self.bar.update(self.task, description=text, status="")

    def log(self, text: str, *, shown: bool = True) -> None:
        """Write a line to the log and, if `shown`, to the console."""
        if self.is_first:
            self.folder.log(text)
            if shown:
                self._print(text)

    def close(self) -> None:
        """Close TensorBoard's files."""
        if self.board is not None:
            self.board.close()

    def _print(self, text: str) -> None:
        """Print a line to the console, without markup."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _left(self, loop: StageLoop) -> str:
        """Return the time to the end of the stage, by its epochs or its time limit, whichever is nearer."""
        progress, n_steps = loop.progress, loop.n_epochs * loop.n_batches
        left = (n_steps - progress.step) * progress.seconds / max(progress.step, 1)
        if loop.stage.time_limit is not None:
            left = min(left, max(60 * loop.stage.time_limit - progress.seconds, 0.0))
        return _duration(left)

    def _speed(self, loop: StageLoop) -> float:
        """Return the number of atoms trained on per second since the run began or was resumed."""
        return loop.n_atoms_done / max(loop.progress.seconds - self.seconds_before, 1e-9)


def _errors(metrics: Mapping[str, float]) -> str:
    """Return loss and errors as text for the log."""
    shown = [
        f"{label.replace('_', ' ')} {metrics[f'{label}_rmse']:{style}} {ERROR_UNITS[label].ascii}"
        for label, style in _STYLES.items()
        if not math.isnan(metrics[f"{label}_rmse"])
    ]
    return f"loss {metrics['loss']:.3e}, {', '.join(shown)} (RMSE)"


def _duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds.

    >>> _duration(3725.4)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _summary_writer() -> Any:
    """Return TensorBoard's writer; ConfigurationError if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigurationError(
            "`tensorboard: true` needs the package tensorboard: install it with `pip install tensorboard`, or leave "
            "the key out; metrics.csv holds the same numbers"
        ) from error
    return SummaryWriter
