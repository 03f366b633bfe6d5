"""Cache of large sets of frames on disk: read, checked and searched for neighbors once.

An entry of the cache is a folder. Its name is a digest of the content of a file of frames, the slice, the rules of
labels and the cutoff. Every run with the same input finds it, and it is never stale. `lrc_ase.dataset.entries`
describes the files of an entry.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from ase import Atoms

from lrc_ase.dataset.entries import FORMAT_VERSION, HEADER, CachedFrames, FrameKind, Header, frame_checksums
from lrc_ase.dataset.entry_files import FIELDS, DamagedEntryError
from lrc_ase.dataset.labelled_graphs import elements_of
from lrc_ase.dataset.labels import Label, LabelKeys, LabelRules
from lrc_ase.dataset.paths import matching_files
from lrc_ase.dataset.reading import iterate_frames, source_files
from lrc_ase.files.hardware import available_cores
from lrc_ase.files.lock import exclusive_use
from lrc_ase.files.workers import end_with_parent
from lrc_ase.structures.charge import total_charge
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.neighbors import neighbor_graph

__all__ = ["CachedFrames", "cached_frames"]

_CHUNK = 100
"""Number of frames that a worker process takes at a time."""
_FEWEST_FOR_WORKERS = 400
"""Smallest number of frames for worker processes; starting them takes longer than the work on fewer frames."""
Chunk = tuple[dict[str, np.ndarray], list[FrameKind], int]
"""Arrays of some frames, the kinds of frames to which their array `kind` refers, and the number of frames left out."""
_BLOCK = 1 << 20
"""Number of bytes of a file that are read at once."""
_UNFINISHED = ".unfinished-"
"""Prefix of folders that are being filled; beside each lies its lock, named FOLDER.lock."""


def cached_frames(
    path: str,
    cache: str | os.PathLike[str],
    cutoff: float,
    keys: LabelKeys | None = None,
    required: Sequence[Label] = ("energy", "forces"),
    *,
    partial: bool = False,
    skip_unlabelled: bool = False,
    n_workers: int | None = None,
    report_progress: Callable[[int, str], None] | None = None,
) -> list[CachedFrames]:
    """Return the cache entries for a path of the user (wildcards, ``@`` slices), after creating those that are absent.

    Entries are verified when they are opened. A damaged entry is created anew, with one warning.

    Parameters
    ----------
    cache
        Folder of all entries, created if absent. Unfinished entries of processes that were killed are removed.
    cutoff
        Cutoff of the neighbor lists, Angstrom.
    keys, required, partial, skip_unlabelled
        Rules by which the frames are labelled; see `LabelRules`.
    n_workers
        Number of processes that label frames and search neighbors; None starts one for each core that may be used.
    report_progress
        Called with the number of frames done and the file.
    """
    rules = LabelRules(
        keys=keys or LabelKeys(), required=tuple(required), partial=partial, skip_unlabelled=skip_unlabelled
    )
    entries = []
    for file, selection in matching_files(path):
        folder = Path(cache) / _key(file, selection, cutoff, rules)
        try:
            if folder.exists():
                entries.append(CachedFrames.open(folder, file, cutoff))
                continue
        except DamagedEntryError as error:
            warnings.warn(f"the cache entry {folder} is damaged ({error}): it is made anew", stacklevel=2)
            shutil.rmtree(folder)
        _make(folder, file, selection, cutoff, rules, n_workers or available_cores(), report_progress)
        entries.append(CachedFrames.open(folder, file, cutoff))
    return entries


def _key(file: str, selection: str, cutoff: float, rules: LabelRules) -> str:
    """Return the name of an entry: a digest of the content of its files, the slice, the cutoff and the rules."""
    digest = hashlib.sha256()
    for path in source_files(file):
        digest.update(f"{path.relative_to(file)} {path.stat().st_size}\n".encode())
        with path.open("rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
    request = [FORMAT_VERSION, selection, float(cutoff), rules.model_dump(mode="json")]
    digest.update(json.dumps(request).encode())
    return digest.hexdigest()[:32]


def _make(
    folder: Path,
    file: str,
    selection: str,
    cutoff: float,
    rules: LabelRules,
    n_workers: int,
    report_progress: Callable[[int, str], None] | None,
) -> None:
    """Write an entry under a temporary name and rename it when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    unfinished = folder.parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
    try:
        with exclusive_use(f"{unfinished}.lock", str(unfinished)):
            unfinished.mkdir()
            try:
                chunks = _prepared(_chunks(file, selection), cutoff, rules, n_workers)
                header = _write(unfinished, chunks, file, selection, cutoff, report_progress)
                (unfinished / HEADER).write_text(header.model_dump_json() + "\n", encoding="utf-8")
                try:
                    unfinished.rename(folder)
                except OSError:
                    if not folder.exists():  # else another process was faster
                        raise
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        if error.filename is None:  # a write, such as to a full disk
            raise OSError(error.errno, error.strerror, str(folder.parent)) from error
        raise


def _write(
    folder: Path,
    chunks: Iterator[Chunk],
    file: str,
    selection: str,
    cutoff: float,
    report_progress: Callable[[int, str], None] | None,
) -> Header:
    """Append the arrays of all chunks to the files in `folder`; return the header that describes them."""
    checksums = dict.fromkeys(FIELDS, 0)
    kinds: dict[FrameKind, int] = {}
    n_frames = n_skipped = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in FIELDS}
        for arrays, chunk_kinds, n_chunk_skipped in chunks:
            places = np.array([kinds.setdefault(kind, len(kinds)) for kind in chunk_kinds], dtype=np.intp)
            arrays["kind"] = places[arrays["kind"]].astype(FIELDS["kind"][0])
            for name, values in arrays.items():
                data = values.tobytes()
                files[name].write(data)
                checksums[name] = zlib.crc32(data, checksums[name])
            n_frames += len(arrays["energy"])
            n_skipped += n_chunk_skipped
            if report_progress is not None:
                report_progress(n_frames, file)
    if n_frames == 0:
        raise ValueError(f"{file}: none of {n_skipped} frames has a label")
    return Header(
        file=Path(file).name,
        n_frames=n_frames,
        n_skipped=n_skipped,
        cutoff=cutoff,
        kinds=tuple(kinds),
        checksums=checksums,
    ).with_digest()


def _sweep(cache: Path) -> None:
    """Remove unfinished entries of processes that were killed; the kernel has released the locks of such processes."""
    for name in sorted({path.name.removesuffix(".lock") for path in cache.glob(f"{_UNFINISHED}*")}):
        lock = filelock.FileLock(cache / f"{name}.lock", timeout=0)
        try:
            lock.acquire()
        except (filelock.Timeout, OSError):  # in use, or on a file system where nobody can tell
            continue
        try:
            shutil.rmtree(cache / name, ignore_errors=True)
            (cache / f"{name}.lock").unlink(missing_ok=True)
        finally:
            lock.release()


def _chunks(file: str, selection: str) -> Iterator[list[Atoms]]:
    """Yield the frames of a file in lists of `_CHUNK`."""
    chunk: list[Atoms] = []
    for atoms in iterate_frames(file, selection):
        chunk.append(atoms)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _prepared(chunks: Iterator[list[Atoms]], cutoff: float, rules: LabelRules, n_workers: int) -> Iterator[Chunk]:
    """Yield the arrays of each chunk in order, computed by worker processes from `_FEWEST_FOR_WORKERS` frames on."""
    # the number of frames of a file is unknown until it is read: the first chunks decide whether workers start
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
                yield _arrays(chunk, cutoff, rules)
        return
    with ProcessPoolExecutor(n_workers, get_context("spawn"), end_with_parent) as pool:
        pending: deque[Future[Chunk]] = deque()
        for part in (first, chunks):
            for chunk in part:
                pending.append(pool.submit(_arrays, chunk, cutoff, rules))
                if len(pending) > 2 * n_workers:  # a limit on the chunks that wait in memory
                    yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _wrapped_shifts(graph: Graph, name: str) -> tuple[np.ndarray, np.ndarray]:
    r"""Split the shifts of neighbors into the cells of the atoms and shifts between wrapped atoms.

    With :math:`k_i` the cell that atom i lies in, :math:`S_{ij} = s_{ij} + k_i - k_j`. Positions of an unwrapped
    trajectory may lie any number of cells away, while s stays small and fits two bytes.

    Returns
    -------
    image : int64, (n_atoms, 3)
    shift : int16, (n_pairs, 3)
    """
    mask = graph.neighbor_mask.numpy()
    fractional = graph.positions.numpy() @ np.linalg.inv(graph.cell[0].numpy())
    image = np.where(graph.pbc[0].numpy(), np.floor(fractional), 0.0)
    shift = (
        graph.shifts.numpy()[mask] - np.repeat(image, mask.sum(axis=1), axis=0) + image[graph.neighbors.numpy()[mask]]
    )
    if np.abs(shift).max(initial=0.0) > np.iinfo(np.int16).max or np.abs(image).max(initial=0.0) > 2.0**52:
        raise ValueError(
            f"{name}: an atom lies {np.abs(image).max():.3g} cells from the origin, or the cutoff spans "
            "more than 32,767 cells: wrap the positions (`atoms.wrap()`)"
        )
    return image.astype(np.int64), shift.astype(np.int16)


def _or_nan(label: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return a label, or NaN of a shape for none."""
    return np.full(shape, np.nan) if label is None else label


def _arrays(frames: Sequence[Atoms], cutoff: float, rules: LabelRules) -> Chunk:
    """Label frames and search their neighbors; return the arrays of an entry and the kinds of frames."""
    collected: dict[str, list[Any]] = {name: [] for name in FIELDS}
    kinds: dict[FrameKind, int] = {}
    for atoms in frames:
        frame = rules.label(atoms)
        if frame is None:
            continue
        try:
            graph = neighbor_graph(frame.atoms, elements_of([atoms]), cutoff)
        except ValueError as error:
            raise ValueError(f"{frame.name}: {error}") from error
        mask = graph.neighbor_mask.numpy()
        image, shift = _wrapped_shifts(graph, frame.name)
        values: dict[str, Any] = {
            "number": [int(frame.name.rpartition("@")[2])],
            "n_atoms": [len(atoms)],
            "n_pairs": [int(mask.sum())],
            "cell": [atoms.cell.array],
            "complete_cell": [graph.cell[0].numpy()],
            "pbc": [atoms.pbc],
            "charge": [total_charge(frame.atoms)],
            "energy": [frame.energy],
            "stress": [frame.stress],
            "dipole": [_or_nan(frame.dipole, (3,))],
            "polarizability": [_or_nan(frame.polarizability, (3, 3))],
            "n_born_charges": [0 if frame.born_effective_charges is None else len(atoms)],
            "weight": [frame.weight],
            "kind": [kinds.setdefault(FrameKind.of(frame), len(kinds))],
            "atomic_number": atoms.numbers,
            "position": atoms.positions,
            "force": frame.forces,
            "n_neighbors": mask.sum(axis=1),
            "image": image,
            "neighbor": graph.neighbors.numpy()[mask],
            "shift": shift,
            "born_charge": _or_nan(frame.born_effective_charges, (0, 3, 3)),
        }
        atoms_checksum, pairs_checksum = frame_checksums(values)
        values |= {"atoms_checksum": [atoms_checksum], "pairs_checksum": [pairs_checksum]}
        for name, value in values.items():
            collected[name].append(np.asarray(value))
    arrays = {
        name: np.concatenate(collected[name] or [np.empty((0, *shape))]).astype(kind).reshape(-1, *shape)
        for name, (kind, shape) in FIELDS.items()
    }
    return arrays, list(kinds), len(frames) - len(collected["number"])
