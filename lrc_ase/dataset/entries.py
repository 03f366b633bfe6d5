"""Entries of the dataset cache: flat arrays on disk, verified before use.

An entry is a folder with one file per array and a small JSON header:

- per frame: number in its file, numbers of atoms and pairs, cell as in the file and completed, boundary, charge,
  energy, stress, weight, kind (a place in a list in the header), checksums of its atoms and pairs;
- per atom: atomic number, position, force, number of neighbors, cell that it lies in;
- per pair: neighbor and lattice translation between the two atoms, both wrapped into the cell.

Energies are total ones and elements are atomic numbers, so that element references and models may change.

An entry may be damaged: by a full or failing disk, an interrupted copy, another program. The header holds the number
of frames and a checksum per array. Opening compares file lengths, the arrays of frames, and everything in an entry of
up to 1 GiB. Every later access reads the bytes of a frame into memory and compares their checksum again.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from pydantic import Field, ValidationError
from torch import Tensor

from lrc_ase.dataset.frame_weights import CONFIG_TYPE_KEY
from lrc_ase.dataset.label_values import Remark
from lrc_ase.dataset.labelled_graphs import LabelledGraph
from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.dataset.reading import SOURCE_KEY
from lrc_ase.models.settings import Settings
from lrc_ase.structures.graph import Graph

__all__ = [
    "FIELDS",
    "FORMAT_VERSION",
    "HEADER",
    "CachedFrames",
    "DamagedEntryError",
    "FrameKind",
    "Header",
    "frame_checksums",
]

FORMAT_VERSION: Final = 4
"""Version of the entries. Raise it with every change of the arrays or of the reading of labels."""
HEADER = "header.json"
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
}
"""Type and shape of the arrays: of frames, then of atoms, then of pairs."""
_ROW_BYTES = {name: math.prod(shape) * np.dtype(kind).itemsize for name, (kind, shape) in FIELDS.items()}
"""Bytes of each array per frame, atom or pair."""
_NAMES = list(FIELDS)
_OF_FRAME, _OF_ATOM, _OF_PAIR = _NAMES[:13], _NAMES[13:18], _NAMES[18:]
_ATOMS, _PAIRS = ("atomic_number", "position", "force"), ("n_neighbors", "image", "neighbor", "shift")
"""Arrays under the two checksums of a frame: those of the labelled frame, and the others that its graph needs."""
_VERIFIED_AT_ONCE = 2**30
"""Bytes of an entry up to which opening reads all arrays (about 0.6 s per GiB); larger ones are verified by frame."""
_BLOCK = 2**20
_LARGEST_DESCRIPTOR = 512
"""Half of the open files that most systems allow a process."""


class DamagedEntryError(ValueError):
    """Error of a cache entry whose files differ from what was written."""


class FrameKind(Settings):
    """Texts that many frames share, stored once in the header."""

    config_type: str | None
    """Entry `config_type` of `Atoms.info`."""
    remarks: tuple[Remark, ...]
    """Remarks on the reading of labels, as in `LabelledFrame`."""

    @classmethod
    def of(cls, frame: LabelledFrame) -> FrameKind:
        """Return the kind of a frame."""
        config_type = frame.atoms.info.get(CONFIG_TYPE_KEY)
        return cls(config_type=None if config_type is None else str(config_type), remarks=frame.remarks)


class Header(Settings):
    """Content of the file `header.json` of an entry."""

    format_version: Literal[4] = FORMAT_VERSION
    file: str
    """Name of the file that the frames were read from, for people who look into the folder."""
    n_frames: int = Field(ge=1)
    n_skipped: int = Field(0, ge=0)
    """Number of frames of the file that were left out for lack of labels."""
    cutoff: float
    """Cutoff of the neighbor lists, Angstrom."""
    kinds: tuple[FrameKind, ...]
    checksums: dict[str, int]
    """CRC-32 of each file of the entry."""
    digest: int = 0
    """CRC-32 of the header without this entry."""

    def with_digest(self) -> Header:
        """Return the header with its digest."""
        content = self.model_dump_json(exclude={"digest"}).encode()
        return self.model_copy(update={"digest": zlib.crc32(content)})


class _OpenFiles:
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


@dataclass(frozen=True)
class CachedFrames:
    """Entry of the cache: frames of one file, as labelled frames and as labelled graphs."""

    folder: Path
    source: str
    """File that the frames were read from."""
    cutoff: float
    """Angstrom."""
    arrays: Mapping[str, np.ndarray]
    """Arrays of frames, in memory. Those of atoms and pairs are read from `folder` for each access."""
    first_atom: np.ndarray
    first_pair: np.ndarray
    header: Header
    files: _OpenFiles

    @classmethod
    def open(cls, folder: Path, source: str, cutoff: float) -> CachedFrames:
        """Open the entry in `folder` and verify it.

        Raises
        ------
        DamagedEntryError
            A file is absent, of another length, or of other content than was written.
        """
        try:
            header = Header.model_validate_json((folder / HEADER).read_bytes())
            if header.with_digest() != header:
                raise DamagedEntryError(f"checksum of {HEADER} is wrong")
            if header.cutoff != cutoff or set(header.checksums) != set(FIELDS):
                raise DamagedEntryError(f"{HEADER} describes another entry")
            arrays = {name: _whole_array(folder, name, header) for name in _OF_FRAME}
            first_atom, first_pair = (_offsets(arrays[name]) for name in ("n_atoms", "n_pairs"))
            lengths = dict.fromkeys(_OF_ATOM, int(first_atom[-1])) | dict.fromkeys(_OF_PAIR, int(first_pair[-1]))
            for name, length in lengths.items():
                _check_length(folder, name, length)
            if sum(length * _ROW_BYTES[name] for name, length in lengths.items()) <= _VERIFIED_AT_ONCE:
                for name in lengths:
                    if _file_checksum(folder / name) != header.checksums[name]:
                        raise DamagedEntryError(f"checksum of '{name}' is wrong")
        except ValidationError as error:
            raise DamagedEntryError(f"{HEADER} cannot be read ({error.errors()[0]['msg']})") from error
        except OSError as error:
            raise DamagedEntryError(f"{error.filename and Path(error.filename).name}: {error.strerror}") from error
        return cls(folder, source, cutoff, arrays, first_atom, first_pair, header, _OpenFiles(folder))

    def __len__(self) -> int:
        return len(self.arrays["energy"])

    def frame(self, index: int, weight: float = 1.0) -> LabelledFrame:
        """Read labelled frame number `index`; `weight` is multiplied by the weight stored with the frame."""
        of_frame = {name: self.arrays[name][index] for name in _OF_FRAME}
        of_atom = self._read(index, _ATOMS, "atoms_checksum")
        atoms = Atoms(
            of_atom["atomic_number"], positions=of_atom["position"], cell=of_frame["cell"], pbc=of_frame["pbc"]
        )
        name = f"{self.source}@{of_frame['number']}"
        atoms.info = {SOURCE_KEY: name, "charge": float(of_frame["charge"])}
        kind = self.header.kinds[of_frame["kind"]]
        if kind.config_type is not None:
            atoms.info[CONFIG_TYPE_KEY] = kind.config_type
        energy, stress = float(of_frame["energy"]), np.array(of_frame["stress"])
        weight *= float(of_frame["weight"])
        return LabelledFrame(atoms, energy, of_atom["force"], stress, name, weight, kind.remarks)

    def graph(self, index: int, elements: Sequence[str], references: Tensor, weight: float = 1.0) -> LabelledGraph:
        """Read labelled graph number `index`, bit-equal to the result of `labelled_graph`."""
        of_frame = {name: self.arrays[name][index] for name in _OF_FRAME}
        of_atom = self._read(index, _ATOMS, "atoms_checksum")
        of_pair = self._read(index, _PAIRS, "pairs_checksum")
        counts, neighbor, image = of_pair["n_neighbors"], of_pair["neighbor"], of_pair["image"]
        n_atoms, width = len(counts), max(int(counts.max(initial=0)), 1)
        # compiled kernels do not check indices, so bounds are checked here whatever the checksum says
        if int(counts.min(initial=0)) < 0 or int(counts.sum()) != len(neighbor):
            raise self._damaged(index, "numbers of neighbors do not add up")
        if int(neighbor.min(initial=0)) < 0 or int(neighbor.max(initial=-1)) >= n_atoms:
            raise self._damaged(index, "a neighbor is not an atom of the frame")
        mask = np.arange(width) < counts[:, None]
        neighbors = np.repeat(np.arange(n_atoms), width).reshape(n_atoms, width)
        neighbors[mask] = neighbor
        shifts = np.zeros((n_atoms, width, 3))
        shifts[mask] = of_pair["shift"] + np.repeat(image, counts, axis=0) - image[neighbor]  # of unwrapped atoms
        species = _places(tuple(elements))[of_atom["atomic_number"]]
        if (species < 0).any():
            name = chemical_symbols[int(of_atom["atomic_number"][species < 0][0])]
            raise ValueError(
                f"{self.source}@{of_frame['number']}: unknown element {name}: this model knows {', '.join(elements)}"
            )
        graph = Graph(
            positions=torch.from_numpy(of_atom["position"]),
            species=torch.from_numpy(species),
            structure=torch.zeros(n_atoms, dtype=torch.int64),
            cell=torch.from_numpy(np.array(of_frame["complete_cell"]))[None],
            pbc=torch.from_numpy(np.array(of_frame["pbc"]))[None],
            charge=torch.tensor([of_frame["charge"]], dtype=torch.float64),
            neighbors=torch.from_numpy(neighbors),
            shifts=torch.from_numpy(shifts),
            neighbor_mask=torch.from_numpy(mask),
        )
        energy = torch.tensor([of_frame["energy"]], dtype=torch.float64)
        return LabelledGraph(
            graph,
            energy - references.to(torch.float64)[graph.species].sum(),
            torch.from_numpy(of_atom["force"]),
            torch.from_numpy(np.array(of_frame["stress"]))[None],
            torch.tensor([weight * of_frame["weight"]], dtype=torch.float64),
        )

    def _read(self, index: int, names: Iterable[str], checksum: str) -> dict[str, np.ndarray]:
        """Read arrays of one frame into memory; DamagedEntryError if their checksum is wrong."""
        content, computed = {}, 0
        for name in names:
            first = self.first_atom if name in _OF_ATOM else self.first_pair
            start, stop = int(first[index]), int(first[index + 1])
            n_bytes = (stop - start) * _ROW_BYTES[name]
            try:
                data = self.files.read(name, start * _ROW_BYTES[name], n_bytes)
            except OSError as error:
                raise self._damaged(index, f"'{name}': {error.strerror}") from error
            if len(data) != n_bytes:
                raise self._damaged(index, f"'{name}' is cut short")
            computed = zlib.crc32(data, computed)
            kind, shape = FIELDS[name]
            content[name] = np.frombuffer(data, kind).reshape(-1, *shape)
        if computed != self.arrays[checksum][index]:
            raise self._damaged(index, "wrong checksum")
        return content

    def _damaged(self, index: int, what: str) -> DamagedEntryError:
        return DamagedEntryError(
            f"{self.source}@{self.arrays['number'][index]} is damaged in the cache ({what}): delete the folder "
            f"{self.folder}, which is then made anew"
        )


def frame_checksums(arrays: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Compute the checksums `atoms_checksum` and `pairs_checksum` of the arrays of one frame."""
    sums = []
    for names in (_ATOMS, _PAIRS):
        checksum = 0
        for name in names:
            checksum = zlib.crc32(np.ascontiguousarray(arrays[name], FIELDS[name][0]).tobytes(), checksum)
        sums.append(checksum)
    return sums[0], sums[1]


@lru_cache(maxsize=16)
def _places(elements: tuple[str, ...]) -> np.ndarray:
    """Return the index of each atomic number in `elements`, -1 for other elements."""
    places = np.full(256, -1)  # all that an atomic number on disk can hold
    places[[chemical_symbols.index(symbol) for symbol in elements]] = np.arange(len(elements))
    return places


def _check_length(folder: Path, name: str, length: int) -> None:
    n_bytes = (folder / name).stat().st_size
    if n_bytes != length * _ROW_BYTES[name]:
        raise DamagedEntryError(f"'{name}' holds {n_bytes} bytes instead of {length * _ROW_BYTES[name]}")


def _whole_array(folder: Path, name: str, header: Header) -> np.ndarray:
    """Read an array of frames and verify its checksum."""
    _check_length(folder, name, header.n_frames)
    data = (folder / name).read_bytes()
    if zlib.crc32(data) != header.checksums[name]:
        raise DamagedEntryError(f"checksum of '{name}' is wrong")
    kind, shape = FIELDS[name]
    return np.frombuffer(data, kind).reshape(-1, *shape)


def _file_checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _offsets(counts: np.ndarray) -> np.ndarray:
    """Return the index of the first atom or pair of each frame, and the total number as the last item."""
    if (counts < 0).any():
        raise DamagedEntryError("a number of atoms or pairs is negative")
    return np.concatenate([[0], np.cumsum(counts)])
