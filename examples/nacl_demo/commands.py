"""Run `lrc-ase` commands, one or several at a time, with a progress bar fed by the files that they write."""

from __future__ import annotations

import csv
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(highlight=False)


@dataclass(frozen=True)
class Command:
    """A command line of `lrc-ase`."""

    name: str
    arguments: Sequence[str | Path | float]
    progress: Callable[[], tuple[float, str]] | None = None
    """How far it is, from 0 to 1, and a word about it."""

    @property
    def line(self) -> str:
        """As a user would type it."""
        return shlex.join(["lrc-ase", *map(str, self.arguments)])


def run(commands: Sequence[Command], logs: Path) -> None:
    """Run the commands side by side, one thread each; what they print goes to a log each."""
    logs.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    for command in commands:
        console.print(f"[bold]$[/bold] {command.line}", soft_wrap=True)
    processes = []
    try:
        with bar:
            for command in commands:
                log = (logs / f"{command.name}.txt").open("w", encoding="utf-8")
                arguments = [sys.executable, "-m", "lrc_ase.cli", *map(str, command.arguments)]
                process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=environment)
                task = bar.add_task(command.name, total=1.0 if command.progress else None, status="")
                processes.append((command, process, task, log))
            while any(process.poll() is None for _, process, _, _ in processes):
                for command, _, task, _ in processes:
                    if command.progress is not None:
                        done, status = command.progress()
                        bar.update(task, completed=done, status=status)
                time.sleep(0.3)
    finally:
        for _, process, _, log in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()
            log.close()
    for command, process, _, log in processes:
        if process.returncode:
            raise SystemExit(f"`{command.line}` failed:\n{Path(log.name).read_text(encoding='utf-8')}")


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV table that may not be there yet, or be in the middle of a line."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def epochs_done(metrics: Path, n_epochs: int) -> Callable[[], tuple[float, str]]:
    """Progress of a training run from its table of metrics."""

    def progress() -> tuple[float, str]:
        rows = rows_of(metrics)
        status = (
            f"{rows[-1]['stage']}, force error {float(rows[-1]['validation_forces_rmse']):.1f} meV/A" if rows else ""
        )
        return len(rows) / n_epochs, status

    return progress


def steps_done(log: Path, n_steps: int) -> Callable[[], tuple[float, str]]:
    """Progress of a molecular-dynamics run from its log."""

    def progress() -> tuple[float, str]:
        rows = rows_of(log)
        return (int(rows[-1]["step"]) / n_steps, f"{float(rows[-1]['temperature_K']):.0f} K") if rows else (0.0, "")

    return progress
