"""Expansion of paths of the user: wildcards, ASE's slices, and names that look like either."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lrc_ase.dataset.deepmd import is_deepmd_folder

__all__ = ["matching_files"]

_SLICE = re.compile(r"-?\d*(:-?\d*){0,2}$")
_DATABASES = (".db", ".json")
"""Endings of files whose part after '@' may be a query of ASE's database."""


def matching_files(entry: str) -> Iterator[tuple[str, str]]:
    """Yield each file that a path stands for, with its slice.

    A path may hold wildcards and end in a slice (``run*/frames.traj@::10``). Names of folders and files that exist are
    taken literally, so that ``@`` and ``[2]`` in them are no slice and no wildcard.
    """
    matches = _expanded(entry)
    index = ":"
    if not matches and "@" in entry:
        path, _, index = entry.rpartition("@")
        if _SLICE.match(index) or path.endswith(_DATABASES):
            matches = _expanded(path)
        else:
            index = ":"
    if not matches:
        if Path(entry).is_dir():
            example = f"{entry.rstrip('/')}/*{_most_frequent_suffix(entry)}"
            raise ValueError(
                f"{entry} is a folder: name files in it, such as {example}. A folder of DeePMD-kit must hold type.raw"
            )
        raise FileNotFoundError(f"no file matches {entry!r}")
    for match in matches:
        yield match, index


def _most_frequent_suffix(folder: str) -> str:
    """Return the suffix of most files in a folder, .extxyz for a folder without any."""
    suffixes = Counter(path.suffix for path in Path(folder).iterdir() if path.is_file() and path.suffix)
    return suffixes.most_common(1)[0][0] if suffixes else ".extxyz"


def _expanded(pattern: str) -> list[str]:
    """Return the files, and folders of DeePMD-kit, that a pattern matches."""
    if _is_source(pattern):
        return [pattern]
    return sorted(path for path in glob.glob(_with_literal_folders(pattern), recursive=True) if _is_source(path))


def _is_source(path: str) -> bool:
    """Return True for a file or a folder of DeePMD-kit."""
    return Path(path).is_file() or is_deepmd_folder(path)


def _with_literal_folders(pattern: str) -> str:
    """Escape the leading folders that exist under their exact names, such as ``run[2]`` in ``run[2]/*.traj``."""
    parts = Path(pattern).parts
    literal = Path()
    for depth, part in enumerate(parts):
        if not (literal / part).is_dir():
            return str(Path(glob.escape(str(literal)), *parts[depth:])) if depth else pattern
        literal /= part
    return glob.escape(pattern)
