"""Files of an entry of the cache: flat arrays by name, read in pieces, their lengths and checksums."""

from __future__ import annotations

import math
import os
import zlib
from pathlib import Path

import numpy as np

__all__ = [
    "FIELDS",
    "ROW_BYTES",
    "DamagedEntryError",
    "OpenFiles",
    "check_length",
    "file_checksum",
    "offsets",
    "whole_array",
]

FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "number": ("<i8", ()),
    "n_atoms": ("<i8", ()),
    "n_pairs": ("<i8", ()),
    "cell": ("<f8", (3, 3)),
    "complete_cell": ("<f8", (3, 3)),
    "pbc": ("?", (3,)),
    "charge": ("<f8", ()),
    "energy": ("<f8", ()),
    "stress": ("<f8", (3, 3)),
    "dipole": ("<f8", (3,)),
    "polarizability": ("<f8", (3, 3)),
    "n_born_charges": ("<i8", ()),
    "weight": ("<f8", ()),
    "kind": ("<i4", ()),
    "atoms_checksum": ("<u4", ()),
    "pairs_checksum": ("<u4", ()),
    "atomic_number": ("<u1", ()),
    "position": ("<f8", (3,)),
    "force": ("<f8", (3,)),
    "n_neighbors": ("<i4", ()),
    "image": ("<i8", (3,)),
    "neighbor": ("<i4", ()),
    "shift": ("<i2", (3,)),
    "born_charge": ("<f8", (3, 3)),
}
"""Type and shape of the arrays: of frames, then of atoms, of pairs, and of atoms of frames with Born charges."""
ROW_BYTES = {name: math.prod(shape) * np.dtype(kind).itemsize for name, (kind, shape) in FIELDS.items()}
"""Bytes of each array per frame, atom or pair."""
_BLOCK = 2**20
_LARGEST_DESCRIPTOR = 512
"""Half of the open files that most systems allow a process."""


class DamagedEntryError(ValueError):
    """Error of a cache entry whose files differ from what was written."""


class OpenFiles:
    """Reader of pieces of the files of a folder.

    Files are not mapped into memory: a mapped file that is cut short ends the process by SIGBUS. Files stay open,
    because opening takes longer than reading a frame, unless the process may run out of open files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descriptors: dict[str, int] = {}

    def read(self, name: str, start: int, n_bytes: int) -> bytearray:
        """Read up to `n_bytes` from byte `start` on; fewer at the end of the file."""
        if not hasattr(os, "pread"):  # Windows
            with (self.folder / name).open("rb") as file:
                file.seek(start)
                return bytearray(file.read(n_bytes))
        descriptor = self.descriptors.get(name)
        if descriptor is not None:
            return bytearray(os.pread(descriptor, n_bytes, start))  # without a position, which threads would share
        descriptor = os.open(self.folder / name, os.O_RDONLY)
        try:
            return bytearray(os.pread(descriptor, n_bytes, start))
        finally:
            # descriptors are numbered from below; if another thread came first, its descriptor is the one that is kept
            if descriptor > _LARGEST_DESCRIPTOR or self.descriptors.setdefault(name, descriptor) != descriptor:
                os.close(descriptor)

    def __del__(self) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)


def check_length(folder: Path, name: str, length: int) -> None:
    """Raise DamagedEntryError unless the file of an array has `length` rows."""
    n_bytes = (folder / name).stat().st_size
    if n_bytes != length * ROW_BYTES[name]:
        raise DamagedEntryError(f"'{name}' holds {n_bytes} bytes instead of {length * ROW_BYTES[name]}")


def whole_array(folder: Path, name: str, length: int, checksum: int) -> np.ndarray:
    """Read an array of frames and verify its checksum."""
    check_length(folder, name, length)
    data = (folder / name).read_bytes()
    if zlib.crc32(data) != checksum:
        raise DamagedEntryError(f"checksum of '{name}' is wrong")
    kind, shape = FIELDS[name]
    return np.frombuffer(data, kind).reshape(-1, *shape)


def file_checksum(path: Path) -> int:
    """Compute the CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def offsets(counts: np.ndarray) -> np.ndarray:
    """Return the index of the first atom or pair of each frame, and the total number as the last item."""
    if (counts < 0).any():
        raise DamagedEntryError("a number of atoms or pairs is negative")
    return np.concatenate([[0], np.cumsum(counts)])
