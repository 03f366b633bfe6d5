"""Short names of files in tables and plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

__all__ = ["distinct_names"]


def distinct_names(paths: Iterable[str]) -> dict[str, str]:
    """Return a name for each path: its file name, with as many folders as tell it from the other paths.

    >>> distinct_names(["/calc/run1/OUTCAR", "/calc/run2/OUTCAR", "/calc/test.extxyz"])
    {'/calc/run1/OUTCAR': 'run1/OUTCAR', '/calc/run2/OUTCAR': 'run2/OUTCAR', '/calc/test.extxyz': 'test.extxyz'}
    """
    parts = {path: PurePath(path).parts or (path,) for path in paths}
    lengths = dict.fromkeys(parts, 1)
    while True:
        names = {path: str(PurePath(*each[-lengths[path] :])) for path, each in parts.items()}
        counts = Counter(names.values())
        ambiguous = [path for path, each in parts.items() if counts[names[path]] > 1 and lengths[path] < len(each)]
        if not ambiguous:
            return names
        for path in ambiguous:
            lengths[path] += 1
