"""Folder of a training run: configuration, log, table of metrics, checkpoint and potentials."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.lock import exclusive_use

__all__ = ["METRIC_COLUMNS", "RunFolder", "RunFolderError"]

_ERRORS = ("loss", *(f"{label}_{mean}" for label in ERROR_UNITS for mean in ("mae", "rmse")))
METRIC_COLUMNS = (
    "stage",
    "epoch",
    "learning_rate",
    "seconds",
    *(f"train_{name}" for name in _ERRORS),
    *(f"validation_{name}" for name in _ERRORS),
    *(f"watched_{name}" for name in _ERRORS[1:]),
)
"""Columns of metrics.csv, errors in the units of `ERROR_UNITS`; seconds since the stage began, without those of
compiling kernels. Training errors are those of the batches as they were trained on, validation errors and those of
watched frames belong to the mean weights. Empty where there are none: stress and Born effective charges have errors
where the stage trains on them."""


class RunFolderError(ValueError):
    """Error about a folder that cannot hold a new run, or holds no run to resume."""


class RunFolder:
    """Paths of the files of a run, and methods that write them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.configuration = self.path / "configuration.yaml"
        self.log_file = self.path / "log.txt"
        self.metrics = self.path / "metrics.csv"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.potential = self.path / "potential.safetensors"

    def stage_potential(self, stage_name: str) -> Path:
        """Return the path of the potential of a stage before the last."""
        return self.path / f"potential-{stage_name}.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other processes; InUseError names a process that holds the lock.

        A folder that was created for the lock is removed if it stays empty.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path} is a file, not a folder")
        absent = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.callback(_remove_empty, absent)
                stack.enter_context(exclusive_use(self.path / ".lock", f"the run folder {self.path}"))
            except OSError as error:
                raise RunFolderError(f"cannot write to {self.path}: {error.strerror}") from error
            yield

    def check_free(self) -> None:
        """Raise RunFolderError if the folder already holds a run."""
        if self.configuration.exists() or self.checkpoint.exists():
            raise RunFolderError(
                f"{self.path} already holds a run: choose another folder, or go on with that run by --resume"
            )

    def check_run(self) -> None:
        """Raise RunFolderError if the folder holds no run to resume."""
        if not self.configuration.exists():
            raise RunFolderError(f"{self.path} holds no run to resume: it has no {self.configuration.name}")

    def create(self) -> None:
        """Create the folder, remove leftovers of interrupted writes, and check that the log can be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for file in ("*.safetensors", self.configuration.name, self.metrics.name):
                for leftover in self.path.glob(f".{file}.*"):  # of a write that was killed
                    leftover.unlink()
            with self.log_file.open("a+b") as log:
                log.seek(max(log.tell() - 1, 0))
                if log.read() not in (b"", b"\n"):
                    log.write(b"\n")  # after a line that a kill or a full disk cut off
        except OSError as error:
            raise RunFolderError(f"cannot write to {self.path}: {error.strerror}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Convert errors of the disk to RunFolderError with a remedy."""
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"cannot write to {self.path}: {error.strerror}; the last checkpoint is kept: make room and go on with "
                "--resume"
            ) from error

    def log(self, text: str) -> None:
        """Append a line to log.txt, with the time."""
        with self._writing(), self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def add_metrics(self, row: Mapping[str, object]) -> None:
        """Append a row to metrics.csv."""
        is_empty = not self.metrics.exists() or self.metrics.stat().st_size == 0
        with self._writing(), self.metrics.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, METRIC_COLUMNS, lineterminator="\n")
            if is_empty:
                writer.writeheader()
            writer.writerow(row)

    def forget_metrics_after(self, finished_stages: tuple[str, ...], stage: str, epoch: int) -> None:
        """Remove rows of epochs after the checkpoint, and rows that a kill or a full disk cut off."""
        if not self.metrics.exists():
            return
        text = self.metrics.read_bytes().decode("utf-8", errors="replace").replace("\0", "")
        whole_lines = text[: text.rfind("\n") + 1]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, METRIC_COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        rows = csv.DictReader(whole_lines.splitlines(), quoting=csv.QUOTE_NONE)
        if not {"stage", "epoch"} <= {*(rows.fieldnames or ("stage", "epoch"))}:
            raise RunFolderError(f"{self.metrics} does not begin with the names of its columns: move it away to resume")
        for row in rows:
            if None in row.values() or not (row.get("epoch") or "").isdecimal():
                continue
            if row["stage"] in finished_stages or (row["stage"] == stage and int(row["epoch"]) <= epoch):
                writer.writerow(row)
        write_atomically(self.metrics, buffer.getvalue().encode())


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that are empty, innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
