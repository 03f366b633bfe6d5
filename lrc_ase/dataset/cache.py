"""Large sets of frames on disk: read, checked and searched for neighbors once, then memory-mapped.

An entry is a folder named after the content of a file of frames, the slice of it, the label keys and the cutoff, so
that it is found again by any run and never stale. It holds flat arrays and a small JSON header:

- per frame: number in its file, numbers of atoms and pairs, cell as given and completed, boundary, charge, energy,
  stress;
- per atom: atomic number, position, force, number of neighbors;
- per pair: neighbor and lattice translation.

Energies are total ones and elements are atomic numbers, so that element references and models may change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor

from lrc_ase.dataset.labelled_graphs import LabelledGraph, elements_of
from lrc_ase.dataset.labels import Label, LabelKeys, LabelledFrame, label_frame
from lrc_ase.dataset.reading import SOURCE_KEY, iterate_frames, matching_files
from lrc_ase.structures.charge import total_charge
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.neighbors import neighbor_graph

__all__ = ["CachedFrames", "cached_frames"]

FORMAT_VERSION = 2
_CHUNK = 100
"""Frames that a worker process takes at a time."""
_FEWEST_FOR_WORKERS = 400
"""Frames below which starting processes would take longer than the work."""
_FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "number": ("<i8", ()),
    "n_atoms": ("<i8", ()),
    "n_pairs": ("<i8", ()),
    "cell": ("<f8", (3, 3)),
    "complete_cell": ("<f8", (3, 3)),
    "pbc": ("?", (3,)),
    "charge": ("<f8", ()),
    "energy": ("<f8", ()),
    "stress": ("<f8", (3, 3)),
    "atomic_number": ("<u1", ()),
    "position": ("<f8", (3,)),
    "force": ("<f8", (3,)),
    "n_neighbors": ("<i4", ()),
    "neighbor": ("<i4", ()),
    "shift": ("<i2", (3,)),
}
"""Type and shape of the arrays: of frames, then of atoms, then of pairs."""
_NAMES = list(_FIELDS)
_OF_FRAME, _OF_ATOM, _OF_PAIR = _NAMES[:9], _NAMES[9:13], _NAMES[13:]


@dataclass(frozen=True)
class CachedFrames:
    """One entry of the cache: frames of one file, as labelled frames and as labelled graphs."""

    folder: Path
    source: str
    """File that the frames were read from."""
    cutoff: float
    """Angstrom."""
    arrays: dict[str, np.ndarray]
    first_atom: np.ndarray
    first_pair: np.ndarray

    @classmethod
    def open(cls, folder: Path, source: str, cutoff: float) -> CachedFrames:
        """Map the arrays of an entry into memory; nothing is read yet."""
        arrays = {}
        for name, (kind, shape) in _FIELDS.items():
            path = folder / name
            row = int(np.prod(shape, dtype=int)) * np.dtype(kind).itemsize
            length = path.stat().st_size // row
            if length:  # as a plain array: slices of a memmap are slow
                arrays[name] = np.memmap(path, kind, "r", shape=(length, *shape)).view(np.ndarray)
            else:  # an empty file cannot be mapped
                arrays[name] = np.empty((0, *shape), kind)
        first_atom, first_pair = (np.concatenate([[0], np.cumsum(arrays[name])]) for name in ("n_atoms", "n_pairs"))
        return cls(folder, source, cutoff, arrays, first_atom, first_pair)

    def __len__(self) -> int:
        return len(self.arrays["energy"])

    def frame(self, index: int, weight: float = 1.0) -> LabelledFrame:
        """Labelled frame number `index`."""
        of_frame, of_atom, _ = self._slices(index)
        atoms = Atoms(
            of_atom["atomic_number"], positions=of_atom["position"], cell=of_frame["cell"], pbc=of_frame["pbc"]
        )
        name = f"{self.source}@{of_frame['number']}"
        atoms.info = {SOURCE_KEY: name, "charge": float(of_frame["charge"])}
        return LabelledFrame(
            atoms, float(of_frame["energy"]), np.array(of_atom["force"]), np.array(of_frame["stress"]), name, weight
        )

    def graph(self, index: int, elements: Sequence[str], references: Tensor, weight: float = 1.0) -> LabelledGraph:
        """Labelled graph number `index`, equal to that of `labelled_graph` to the last bit."""
        of_frame, of_atom, of_pair = self._slices(index)
        counts = of_atom["n_neighbors"]
        n_atoms, width = len(counts), max(int(counts.max(initial=0)), 1)
        mask = np.arange(width) < counts[:, None]
        neighbors = np.repeat(np.arange(n_atoms), width).reshape(n_atoms, width)
        neighbors[mask] = of_pair["neighbor"]
        shifts = np.zeros((n_atoms, width, 3))
        shifts[mask] = of_pair["shift"]
        species = _places(tuple(elements))[of_atom["atomic_number"]]
        if (species < 0).any():
            name = chemical_symbols[int(of_atom["atomic_number"][species < 0][0])]
            raise ValueError(
                f"{self.source}@{of_frame['number']}: unknown element {name}: this model knows {', '.join(elements)}"
            )
        graph = Graph(
            positions=torch.from_numpy(np.array(of_atom["position"])),
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
            torch.from_numpy(np.array(of_atom["force"])),
            torch.from_numpy(np.array(of_frame["stress"]))[None],
            torch.tensor([weight], dtype=torch.float64),
        )

    def _slices(self, index: int) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
        atoms = slice(int(self.first_atom[index]), int(self.first_atom[index + 1]))
        pairs = slice(int(self.first_pair[index]), int(self.first_pair[index + 1]))
        of_frame = {name: self.arrays[name][index] for name in _OF_FRAME}
        of_atom = {name: self.arrays[name][atoms] for name in _OF_ATOM}
        return of_frame, of_atom, {name: self.arrays[name][pairs] for name in _OF_PAIR}


@lru_cache(maxsize=16)
def _places(elements: tuple[str, ...]) -> np.ndarray:
    """Place of each atomic number among `elements`, -1 where it is not."""
    places = np.full(len(chemical_symbols), -1)
    places[[chemical_symbols.index(symbol) for symbol in elements]] = np.arange(len(elements))
    return places


def cached_frames(
    path: str,
    cache: str | os.PathLike[str],
    cutoff: float,
    keys: LabelKeys,
    required: Sequence[Label],
    *,
    n_workers: int | None = None,
    report_progress: Callable[[int, str], None] | None = None,
) -> list[CachedFrames]:
    """Entries of the cache for a path of the user (wildcards, ``@`` slices), made where they are absent.

    Parameters
    ----------
    cache
        Folder of all entries, made if absent.
    cutoff
        Angstrom.
    keys, required
        As in `label_frame`.
    n_workers
        Processes that label frames and search neighbors; None: one for each core.
    report_progress
        Called with the number of frames done and the file.
    """
    entries = []
    for file, selection in matching_files(path):
        folder = Path(cache) / _key(file, selection, cutoff, keys, required)
        if not (folder / "header.json").exists():
            _make(folder, file, selection, cutoff, keys, required, n_workers or os.cpu_count() or 1, report_progress)
        entries.append(CachedFrames.open(folder, file, cutoff))
    return entries


def _key(file: str, selection: str, cutoff: float, keys: LabelKeys, required: Sequence[Label]) -> str:
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256") if hasattr(hashlib, "file_digest") else _digest(content)
    asked = [FORMAT_VERSION, selection, float(cutoff), keys.model_dump(mode="json"), sorted(required)]
    digest.update(json.dumps(asked).encode())
    return digest.hexdigest()[:32]


def _digest(content: Any) -> Any:
    """SHA-256 of an open file (Python 3.10 has no `hashlib.file_digest`)."""
    digest = hashlib.sha256()
    while block := content.read(1 << 20):
        digest.update(block)
    return digest


def _make(
    folder: Path,
    file: str,
    selection: str,
    cutoff: float,
    keys: LabelKeys,
    required: Sequence[Label],
    n_workers: int,
    report_progress: Callable[[int, str], None] | None,
) -> None:
    """Write an entry; it gets its name when it is complete, so that an interruption leaves none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    n_frames = 0
    try:
        files = {name: (unfinished / name).open("wb") for name in _FIELDS}
        try:
            for arrays in _prepared(_chunks(file, selection), cutoff, keys, tuple(required), n_workers):
                for name, values in arrays.items():
                    files[name].write(values.tobytes())
                n_frames += len(arrays["energy"])
                if report_progress is not None:
                    report_progress(n_frames, file)
        finally:
            for opened in files.values():
                opened.close()
        if n_frames == 0:
            raise ValueError(f"{file}@{selection} holds no frame")
        header = {"format_version": FORMAT_VERSION, "file": Path(file).name, "n_frames": n_frames, "cutoff": cutoff}
        (unfinished / "header.json").write_text(json.dumps(header) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.chmod(0o755)  # as other folders, to be shared
        os.replace(unfinished, folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:  # a write, such as to a full disk
            raise OSError(error.errno, error.strerror, str(folder.parent)) from error
        raise


def _chunks(file: str, selection: str) -> Iterator[list[Atoms]]:
    chunk: list[Atoms] = []
    for atoms in iterate_frames(file, selection):
        chunk.append(atoms)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _prepared(
    chunks: Iterator[list[Atoms]], cutoff: float, keys: LabelKeys, required: tuple[Label, ...], n_workers: int
) -> Iterator[dict[str, np.ndarray]]:
    """Arrays of each chunk, in order; by worker processes from a certain number of frames on."""
    first: list[list[Atoms]] = []
    for chunk in chunks:
        first.append(chunk)
        if len(first) * _CHUNK >= _FEWEST_FOR_WORKERS:
            break
    else:
        n_workers = 1
    if n_workers == 1:
        for part in (first, chunks):
            for chunk in part:
                yield _arrays(chunk, cutoff, keys, required)
        return
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        pending: deque[Future[dict[str, np.ndarray]]] = deque()
        for part in (first, chunks):
            for chunk in part:
                pending.append(pool.submit(_arrays, chunk, cutoff, keys, required))
                if len(pending) > 2 * n_workers:
                    yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _arrays(
    frames: Sequence[Atoms], cutoff: float, keys: LabelKeys, required: tuple[Label, ...]
) -> dict[str, np.ndarray]:
    """Label frames and search their neighbors."""
    collected: dict[str, list[Any]] = {name: [] for name in _FIELDS}
    for atoms in frames:
        frame = label_frame(atoms, keys, required=required)
        try:
            graph = neighbor_graph(frame.atoms, elements_of([atoms]), cutoff)
        except ValueError as error:
            raise ValueError(f"{frame.name}: {error}") from error
        mask = graph.neighbor_mask.numpy()
        number = int(frame.name.rpartition("@")[2])
        values = {
            "number": [number],
            "n_atoms": [len(atoms)],
            "n_pairs": [int(mask.sum())],
            "cell": [atoms.cell.array],
            "complete_cell": [graph.cell[0].numpy()],
            "pbc": [atoms.pbc],
            "charge": [total_charge(frame.atoms)],
            "energy": [frame.energy],
            "stress": [frame.stress],
            "atomic_number": atoms.numbers,
            "position": atoms.positions,
            "force": frame.forces,
            "n_neighbors": mask.sum(axis=1),
            "neighbor": graph.neighbors.numpy()[mask],
            "shift": graph.shifts.numpy()[mask],
        }
        for name, value in values.items():
            collected[name].append(np.asarray(value))
    return {
        name: np.concatenate(collected[name]).astype(kind).reshape(-1, *shape)
        for name, (kind, shape) in _FIELDS.items()
    }
