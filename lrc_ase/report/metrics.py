"""Table of the errors of each epoch of a training, as its run folder holds it."""

from __future__ import annotations

import csv
from pathlib import Path

__all__ = ["read_metrics"]


def read_metrics(path: str | Path) -> dict[str, list[str]]:
    """Return the columns of a CSV table by name, absent values as ``"nan"``."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path} holds no rows: nothing to plot")
    return {name: [row[name] or "nan" for row in rows] for name in rows[0]}
