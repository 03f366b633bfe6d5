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
"""Graph of the frame at a place, from the elements of a model and their references in eV."""


class Frames(Sequence[LabelledFrame]):
    """Frames that know how their graphs are made."""

    def __init__(self, items: Sequence[LabelledFrame], make_graph: MakeGraph, n_skipped: int = 0) -> None:
        self.items = items
        """In memory, or `Lazy`."""
        self.make_graph = make_graph
        self.n_skipped = n_skipped
        """Frames of the files that were left out for want of labels."""

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
    files: Sequence[tuple[str, float]],
    rules: LabelRules,
    cutoff: float,
    config_type_weights: Mapping[str, float] | None = None,
) -> Frames:
    """Read the frames of files with their weights into memory.

    `config_type_weights` multiply the weights of frames by their ``info["config_type"]``; a type that does not occur
    is an error.
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
        lambda place, elements, references: labelled_graph(frames[place], elements, cutoff, references),
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
    """Read the frames of files with their weights from the cache, where they are put if they are not there yet.

    `config_type_weights`: as in `read_into_memory`.
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

    def make_graph(place: int, elements: Sequence[str], references: Tensor) -> LabelledGraph:
        number = int(np.searchsorted(ends, place, side="right"))
        entry, weight = entries[number]
        index = place - int(ends[number]) + len(entry)
        return entry.graph(index, elements, references, weight * weight_of(entry, index))

    n_skipped = sum(entry.header.n_skipped for entry, _ in entries)
    return Frames(joined([frames_of(entry, weight) for entry, weight in entries]), make_graph, n_skipped)


def _check_types(weights: Mapping[str, float], types: set[str], files: Sequence[tuple[str, float]]) -> None:
    if unknown := sorted(set(weights) - types):
        raise ValueError(
            f"`config_type_weights` names {unknown}, but the frames of {files[0][0]} are of the types {sorted(types)}"
        )
