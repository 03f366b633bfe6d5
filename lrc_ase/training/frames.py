"""Labelled frames of a data set and their graphs, in memory or in a cache on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import overload

import numpy as np
from torch import Tensor

from lrc_ase.dataset import (
    CONFIG_TYPE_KEY,
    CachedFrames,
    LabelledFrame,
    LabelledGraph,
    LabelRules,
    Lazy,
    cached_frames,
    joined,
    labelled_graph,
    read_frames,
)

__all__ = ["Frames", "read_cached", "read_into_memory"]

MakeGraph = Callable[[int, Sequence[str], Tensor], LabelledGraph]
"""Function that returns the graph of frame `index` from the elements of a model and their references in eV."""


class Frames(Sequence[LabelledFrame]):
    """Sequence of labelled frames that can build their graphs."""

    def __init__(self, items: Sequence[LabelledFrame], make_graph: MakeGraph, n_skipped: int = 0) -> None:
        self.items = items
        """Frames in memory, or `Lazy`."""
        self.make_graph = make_graph
        self.n_skipped = n_skipped
        """Number of frames of the files that were left out for lack of labels."""

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> LabelledFrame: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[LabelledFrame]: ...

    def __getitem__(self, index: int | slice) -> LabelledFrame | Sequence[LabelledFrame]:
        return self.items[index]

    def part(self, indices: Sequence[int]) -> Frames:
        """Return the frames at `indices`, in that order."""
        items: Sequence[LabelledFrame]
        if isinstance(self.items, Lazy):
            kept = np.asarray(indices)
            items = Lazy(len(kept), lambda number: self.items[int(kept[number])])
        else:
            items = [self.items[index] for index in indices]
        return Frames(items, lambda number, *model: self.make_graph(int(indices[number]), *model))

    def graphs(
        self, elements: Sequence[str], references: Tensor, on_graph: Callable[[], None] = lambda: None
    ) -> Sequence[LabelledGraph]:
        """Return the graph of every frame; `on_graph` is called for each graph built in memory, not for lazy ones."""
        if isinstance(self.items, Lazy):
            return Lazy(len(self), lambda index: self.make_graph(index, elements, references))
        graphs = []
        for index in range(len(self)):
            graphs.append(self.make_graph(index, elements, references))
            on_graph()
        return tuple(graphs)


def read_into_memory(
    files: Sequence[tuple[str, float]],
    rules: LabelRules,
    cutoff: float,
    config_type_weights: Mapping[str, float] | None = None,
) -> Frames:
    """Read the frames of files with their weights into memory.

    `config_type_weights` holds factors of the weights of frames by ``info["config_type"]``.

    Raises
    ------
    ValueError
        No frame has a label, or no frame has a type that `config_type_weights` names.
    """
    by_type = config_type_weights or {}
    frames: list[LabelledFrame] = []
    n_skipped = 0
    types: set[str] = set()
    for path, weight in files:
        for atoms in read_frames(path):
            kind = str(atoms.info.get(CONFIG_TYPE_KEY))
            types.add(kind)
            frame = rules.label(atoms, weight=weight * by_type.get(kind, 1.0))
            if frame is None:
                n_skipped += 1
            else:
                frames.append(frame)
    if files and not frames:
        raise ValueError(f"{files[0][0]}: none of {n_skipped} frames has a label")
    _check_types(by_type, types, files)
    return Frames(
        frames,
        lambda index, elements, references: labelled_graph(frames[index], elements, cutoff, references),
        n_skipped,
    )


def read_cached(
    files: Sequence[tuple[str, float]],
    rules: LabelRules,
    cutoff: float,
    cache: str,
    config_type_weights: Mapping[str, float] | None = None,
    *,
    n_workers: int | None = None,
    report_progress: Callable[[int, str], None] | None = None,
) -> Frames:
    """Read the frames of files with their weights through the cache, which is filled with files that it lacks.

    `config_type_weights`: see `read_into_memory`.
    """
    by_type = config_type_weights or {}
    entries = [
        (entry, weight)
        for path, weight in files
        for entry in cached_frames(
            path,
            cache,
            cutoff,
            rules.keys,
            rules.required,
            partial=rules.partial,
            skip_unlabelled=rules.skip_unlabelled,
            n_workers=n_workers,
            report_progress=report_progress,
        )
    ]
    _check_types(by_type, {str(kind.config_type) for entry, _ in entries for kind in entry.header.kinds}, files)
    ends = np.cumsum([len(entry) for entry, _ in entries])

    def weight_of(entry: CachedFrames, index: int) -> float:
        return by_type.get(str(entry.header.kinds[entry.arrays["kind"][index]].config_type), 1.0)

    def frames_of(entry: CachedFrames, weight: float) -> Lazy[LabelledFrame]:
        return Lazy(len(entry), lambda index: entry.frame(index, weight * weight_of(entry, index)))

    def make_graph(index: int, elements: Sequence[str], references: Tensor) -> LabelledGraph:
        number = int(np.searchsorted(ends, index, side="right"))
        entry, weight = entries[number]
        inside = index - int(ends[number]) + len(entry)  # counted from the first frame of the entry
        return entry.graph(inside, elements, references, weight * weight_of(entry, inside))

    n_skipped = sum(entry.header.n_skipped for entry, _ in entries)
    return Frames(joined([frames_of(entry, weight) for entry, weight in entries]), make_graph, n_skipped)


def _check_types(weights: Mapping[str, float], types: set[str], files: Sequence[tuple[str, float]]) -> None:
    """Raise ValueError for a weight of a type that no frame has."""
    if unknown := sorted(set(weights) - types):
        raise ValueError(
            f"`config_type_weights` names {unknown}, but the frames of {files[0][0]} are of the types {sorted(types)}"
        )
