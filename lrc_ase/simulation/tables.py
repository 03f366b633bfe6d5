"""CSV tables of a run: they grow by one row at a time and are cut back to a step when the run is resumed."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np

from lrc_ase.files.atomic import writing

__all__ = ["RunTable", "naming"]

_LONGEST_NUMBER = 40
"""Largest number of characters of a number; Python writes at most 24."""


class RunTable:
    """CSV table of a run, one row per sample, flushed after each row."""

    kind: ClassVar[str]
    """Name of such a table in messages."""
    columns: ClassVar[tuple[str, ...]]
    """Names of the columns; the first two are ``step`` and ``time_ps``."""
    n_columns_before: ClassVar[int | None] = None
    """Number of columns of an earlier version of the table, whose rows are filled up by NaN."""

    digits: ClassVar[int | None] = None
    """Number of significant digits of the values; None keeps all, as a drift is a small difference of large numbers."""

    def __init__(self, path: Path, *, last_step: int | None = None) -> None:
        """Begin a new table, or keep the rows of an existing one up to `last_step`."""
        rows = [] if last_step is None or not path.exists() else self._rows_until(path, last_step)
        with writing(path, text=True) as file:
            csv.writer(file, lineterminator="\n").writerows([list(self.columns), *rows])
        self.path = path
        self.last_step = int(rows[-1][0]) if rows else None
        """Step of the last row that was kept, None for a table without rows."""
        self._file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        self._writer = csv.writer(self._file, lineterminator="\n")

    @classmethod
    def _rows_until(cls, path: Path, last_step: int | None) -> list[list[str]]:
        """Return the rows of the table at `path` up to `last_step`; ValueError for a foreign or damaged one."""
        text = path.read_bytes().decode("utf-8", errors="replace")
        header, *rows = [line.split(",") for line in text.splitlines()] or [[]]
        if tuple(header) not in (cls.columns, cls.columns[: cls.n_columns_before]):
            raise ValueError(f"{path} is not a {cls.kind} of lrc-ase, so the run cannot continue it")
        kept = []
        for line, row in enumerate(rows, start=2):
            if len(row) != len(header) and line == len(rows) + 1:  # cut short by a kill
                continue
            if len(row) != len(header) or not row[0].isdecimal() or not all(map(_is_number, row)):
                text = ",".join(row)
                raise ValueError(f"{path}, line {line}: expected {len(header)} numbers, got {text[:60]!r}")
            if last_step is None or int(row[0]) <= last_step:
                kept.append(row + ["nan"] * (len(cls.columns) - len(row)))
        return kept

    @classmethod
    def read(cls, path: Path) -> dict[str, np.ndarray]:
        """Return the columns of the table at `path` by name, each (n_rows,); ValueError for a foreign one."""
        values = np.array(cls._rows_until(path, None), dtype=float).reshape(-1, len(cls.columns))
        return dict(zip(cls.columns, values.T, strict=True))

    def append(self, step: int, time: float, values: Sequence[float]) -> None:
        """Append a row; `time` in ps."""
        texts = [repr(float(value)) if self.digits is None else f"{value:.{self.digits}g}" for value in values]
        with naming(self.path):
            self._writer.writerow([step, f"{time:.10g}", *texts])
            self._file.flush()

    def warn_of_a_gap(self, step: int, every: object) -> None:
        """Warn if rows before a restart at `step` have been lost; `every` is the number of steps between rows."""
        if not isinstance(every, int) or every < 1:
            return
        if self.last_step is None or self.last_step < step - step % every:
            kept = "has no rows" if self.last_step is None else f"ends at step {self.last_step}"
            warnings.warn(
                f"{self.path} {kept}, the run goes on from step {step}: the rows between are lost", stacklevel=3
            )

    def close(self) -> None:
        """Close the file."""
        with naming(self.path):
            self._file.close()


def _is_number(text: str) -> bool:
    """Return True for the text of a number that is no longer than Python writes it."""
    try:
        float(text)
    except ValueError:
        return False
    return len(text) < _LONGEST_NUMBER


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of a file to an OSError that lacks one, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error
