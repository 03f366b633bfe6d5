"""Entries of the dataset cache: flat arrays on disk, verified before use.

An entry is a folder with one file per array and a small JSON header:

- per frame: number in its file, numbers of atoms and pairs, cell as in the file and completed, boundary, charge,
  energy, stress, dipole, polarizability, weight, kind (a place in a list in the header), checksums of its atoms and
  pairs, number of Born effective charges (of all atoms or none);
- per atom: atomic number, position, force, number of neighbors, cell that it lies in;
- per pair: neighbor and lattice translation between the two atoms, both wrapped into the cell;
- per atom of frames that have them: Born effective charge.

Energies are total ones and elements are atomic numbers, so that element references and models may change.

An entry may be damaged: by a full or failing disk, an interrupted copy, another program. The header holds the number
of frames and a checksum per array. Opening compares file lengths, the arrays of frames, and everything in an entry of
up to 1 GiB. Every later access reads the bytes of a frame into memory and compares their checksum again.
"""

from __future__ import annotations

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

from lrc_ase.dataset.entry_files import (
    FIELDS,
    ROW_BYTES,
    DamagedEntryError,
    OpenFiles,
    check_length,
    file_checksum,
    offsets,
    whole_array,
)
from lrc_ase.dataset.frame_weights import CONFIG_TYPE_KEY
from lrc_ase.dataset.label_values import Remark
from lrc_ase.dataset.labelled_graphs import LabelledGraph, electric_tensors
from lrc_ase.dataset.labels import Label, LabelledFrame
from lrc_ase.dataset.reading import SOURCE_KEY
from lrc_ase.models.settings import Settings
from lrc_ase.structures.graph import Graph

__all__ = [
    "FORMAT_VERSION",
    "HEADER",
    "CachedFrames",
    "FrameKind",
    "Header",
    "frame_checksums",
]

FORMAT_VERSION: Final = 5
"""Version of the entries. Raise it with every change of the arrays or of the reading of labels."""
HEADER = "header.json"
_NAMES = list(FIELDS)
_OF_FRAME, _OF_ATOM, _OF_PAIR, _OF_BORN = _NAMES[:16], _NAMES[16:21], _NAMES[21:23], _NAMES[23:]
_ATOMS = ("atomic_number", "position", "force", "born_charge")
_PAIRS = ("n_neighbors", "image", "neighbor", "shift")
"""Arrays under the two checksums of a frame: those of the labelled frame, and the others that its graph needs."""
_VERIFIED_AT_ONCE = 2**30
"""Bytes of an entry up to which opening reads all arrays (about 0.6 s per GiB); larger ones are verified by frame."""


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

    format_version: Literal[5] = FORMAT_VERSION
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
    first_born_charge: np.ndarray
    header: Header
    files: OpenFiles

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
            arrays = {name: whole_array(folder, name, header.n_frames, header.checksums[name]) for name in _OF_FRAME}
            n_born_charges = arrays["n_born_charges"]
            if (n_born_charges * (arrays["n_atoms"] - n_born_charges)).any():
                raise DamagedEntryError("a frame has Born effective charges of some atoms alone")
            first_atom, first_pair = (offsets(arrays[name]) for name in ("n_atoms", "n_pairs"))
            first_born_charge = offsets(n_born_charges)
            lengths = dict.fromkeys(_OF_ATOM, int(first_atom[-1])) | dict.fromkeys(_OF_PAIR, int(first_pair[-1]))
            lengths |= dict.fromkeys(_OF_BORN, int(first_born_charge[-1]))
            for name, length in lengths.items():
                check_length(folder, name, length)
            if sum(length * ROW_BYTES[name] for name, length in lengths.items()) <= _VERIFIED_AT_ONCE:
                for name in lengths:
                    if file_checksum(folder / name) != header.checksums[name]:
                        raise DamagedEntryError(f"checksum of '{name}' is wrong")
        except ValidationError as error:
            raise DamagedEntryError(f"{HEADER} cannot be read ({error.errors()[0]['msg']})") from error
        except OSError as error:
            raise DamagedEntryError(f"{error.filename and Path(error.filename).name}: {error.strerror}") from error
        files = OpenFiles(folder)
        return cls(folder, source, cutoff, arrays, first_atom, first_pair, first_born_charge, header, files)

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
        electric = _electric_labels(of_frame, of_atom)
        return LabelledFrame(atoms, energy, of_atom["force"], stress, name, weight, kind.remarks, **electric)

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
            **electric_tensors(_electric_labels(of_frame, of_atom)),
        )

    def _read(self, index: int, names: Iterable[str], checksum: str) -> dict[str, np.ndarray]:
        """Read arrays of one frame into memory; DamagedEntryError if their checksum is wrong."""
        content, computed = {}, 0
        for name in names:
            first = self._first(name)
            start, stop = int(first[index]), int(first[index + 1])
            n_bytes = (stop - start) * ROW_BYTES[name]
            try:
                data = self.files.read(name, start * ROW_BYTES[name], n_bytes)
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

    def _first(self, name: str) -> np.ndarray:
        """Return the first row of each frame in an array."""
        if name in _OF_ATOM:
            return self.first_atom
        return self.first_pair if name in _OF_PAIR else self.first_born_charge

    def _damaged(self, index: int, what: str) -> DamagedEntryError:
        return DamagedEntryError(
            f"{self.source}@{self.arrays['number'][index]} is damaged in the cache ({what}): delete the folder "
            f"{self.folder}, which is then made anew"
        )


def _electric_labels(of_frame: Mapping[str, np.ndarray], of_atom: Mapping[str, np.ndarray]) -> dict[Label, np.ndarray]:
    """Return those of dipole, Born effective charges and polarizability that are not NaN."""
    values: dict[Label, np.ndarray] = {
        "dipole": of_frame["dipole"],
        "born_effective_charges": of_atom["born_charge"],
        "polarizability": of_frame["polarizability"],
    }
    return {label: np.array(value) for label, value in values.items() if np.isfinite(value).any()}


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
