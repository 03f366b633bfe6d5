"""Frames from files in any format of ASE, each with a note of where it came from, and back to files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import ase.io
from ase import Atoms
from ase.io.formats import string2index

__all__ = ["SOURCE_KEY", "iterate_frames", "matching_files", "read_frames", "write_frames"]

SOURCE_KEY = "lrc_ase_source"
"""Where `read_frames` notes in `Atoms.info` which frame of which file an `Atoms` was, as ASE writes it: file@frame."""


def read_frames(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Atoms]:
    """Read structures from files in any format of ASE.

    A path may hold wildcards (``run*/frames.traj``) and end in ASE's slice (``frames.traj@::10``, ``@-1``); without a
    slice all frames are read. The origin of each frame is noted in ``atoms.info["lrc_ase_source"]``.
    """
    frames: list[Atoms] = []
    for entry in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        for path, index in matching_files(os.fspath(entry)):
            frames.extend(_read_file(path, index))
    return frames


def write_frames(path: str | os.PathLike[str], frames: Sequence[Atoms]) -> None:
    """Write frames to a file; its ending says which of ASE's formats."""
    ase.io.write(Path(path), list(frames))


def matching_files(entry: str) -> Iterator[tuple[str, str]]:
    """Files and slice that a path of the user stands for."""
    path, index = entry, ":"
    if not Path(entry).exists() and "@" in entry:
        path, _, index = entry.rpartition("@")
    matches = [path] if Path(path).is_file() else sorted(glob.glob(path, recursive=True))
    if not matches:
        raise FileNotFoundError(f"no file matches {path!r}")
    for match in matches:
        yield match, index


def iterate_frames(path: str, index: str) -> Iterator[Atoms]:
    """Structures of one file one after the other, without holding all of them where the format allows.

    `index` is ASE's slice as a text.
    """
    selection = string2index(index)
    if not isinstance(selection, slice) or not _counts_ahead(selection):
        yield from _read_file(path, index)
        return
    frames = ase.io.iread(path, selection, do_not_split_by_at_sign=True)
    number = selection.start or 0
    while True:
        try:
            atoms = next(frames, None)
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # readers of ASE raise whatever their parser meets
            raise ValueError(f"ASE cannot read {path}: {type(error).__name__}: {error}") from error
        if atoms is None:
            return
        atoms.info[SOURCE_KEY] = f"{path}@{number}"
        number += selection.step or 1
        yield atoms


def _counts_ahead(selection: slice) -> bool:
    """Whether a slice can be taken while reading on; from the end, or backwards, needs all frames first."""
    return min(selection.start or 0, selection.stop or 0, selection.step or 1) >= 0


def _read_file(path: str, index: str) -> list[Atoms]:
    selection = string2index(index)
    if isinstance(selection, int):
        selection = slice(selection, selection + 1 or None)
    ahead = isinstance(selection, slice) and _counts_ahead(selection)
    try:
        wanted = selection if ahead or isinstance(selection, str) else slice(None)
        frames = cast("list[Atoms]", ase.io.read(path, wanted, do_not_split_by_at_sign=True))
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # readers of ASE raise whatever their parser meets
        raise ValueError(f"ASE cannot read {path}: {type(error).__name__}: {error}") from error
    if isinstance(selection, str):  # a query to an ASE database
        numbers: Sequence[int] = range(len(frames))
    elif ahead:
        numbers = [(selection.start or 0) + (selection.step or 1) * position for position in range(len(frames))]
    else:
        numbers = range(len(frames))[selection]
        frames = frames[selection]
    if not frames:
        raise ValueError(f"{path}@{index} holds no frame")
    for number, atoms in zip(numbers, frames, strict=True):
        atoms.info[SOURCE_KEY] = f"{path}@{number}"
    return frames
