"""Labelled frames of a data set and their graphs, in memory or in a cache on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
from torch import Tensor

from lrc_ase.dataset import (
    CachedFrames,
    Label,
    LabelKeys,
    LabelledFrame,
    LabelledGraph,
    Lazy,
    cached_frames,
    joined,
    label_frame,
    labelled_graph,
    read_frames,
)

__all__ = ["Frames", "read_cached", "read_into_memory"]

MakeGraph = Callable[[int, Sequence[str], Tensor], LabelledGraph]
"""Graph of the frame at a place, from the elements of a model and their references in eV."""


class Frames(Sequence[LabelledFrame]):
    """Frames that know how their graphs are made."""

    def __init__(self, items: Sequence[LabelledFrame], make_graph: MakeGraph) -> None:
        self.items = items
        """In memory, or `Lazy`."""
        self.make_graph = make_graph

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> LabelledFrame: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[LabelledFrame]: ...

    def __getitem__(self, index: int | slice) -> LabelledFrame | Sequence[LabelledFrame]:
        return self.items[index]

    def part(self, places: Sequence[int]) -> Frames:
        """Frames at some places, in that order."""
        items: Sequence[LabelledFrame]
        if isinstance(self.items, Lazy):
            kept = np.asarray(places)
            items = Lazy(len(kept), lambda place: self.items[int(kept[place])])
        else:
            items = [self.items[place] for place in places]
        return Frames(items, lambda place, *model: self.make_graph(int(places[place]), *model))

    def graphs(
        self, elements: Sequence[str], references: Tensor, made: Callable[[], None] = lambda: None
    ) -> Sequence[LabelledGraph]:
        """Graph of every frame; `made` is called for each one, unless they stay on disk."""
        if isinstance(self.items, Lazy):
            return Lazy(len(self), lambda place: self.make_graph(place, elements, references))
        graphs = []
        for place in range(len(self)):
            graphs.append(self.make_graph(place, elements, references))
            made()
        return tuple(graphs)


def read_into_memory(
    files: Sequence[tuple[str, float]], keys: LabelKeys, required: Sequence[Label], cutoff: float
) -> Frames:
    """Frames of files with their weights, all in memory."""
    frames = [
        label_frame(atoms, keys, required=required, weight=weight)
        for path, weight in files
        for atoms in read_frames(path)
    ]
    return Frames(
        frames, lambda place, elements, references: labelled_graph(frames[place], elements, cutoff, references)
    )


def read_cached(
    files: Sequence[tuple[str, float]],
    keys: LabelKeys,
    required: Sequence[Label],
    cutoff: float,
    cache: str,
    *,
    n_workers: int | None = None,
    report_progress: Callable[[int, str], None] | None = None,
) -> Frames:
    """Frames of files with their weights, in the cache, where they are put if they are not there yet."""
    entries = [
        (entry, weight)
        for path, weight in files
        for entry in cached_frames(
            path, cache, cutoff, keys, required, n_workers=n_workers, report_progress=report_progress
        )
    ]
    ends = np.cumsum([len(entry) for entry, _ in entries])

    def make_graph(place: int, elements: Sequence[str], references: Tensor) -> LabelledGraph:
        number = int(np.searchsorted(ends, place, side="right"))
        entry, weight = entries[number]
        return entry.graph(place - int(ends[number]) + len(entry), elements, references, weight)

    return Frames(joined([_frames_of(entry, weight) for entry, weight in entries]), make_graph)


def _frames_of(entry: CachedFrames, weight: float) -> Lazy[LabelledFrame]:
    return Lazy(len(entry), lambda place: entry.frame(place, weight))
