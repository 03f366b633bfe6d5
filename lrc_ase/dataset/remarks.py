"""Summary of the remarks about the labels of many frames."""

from __future__ import annotations

from collections.abc import Iterable

from lrc_ase.dataset.label_values import Remark
from lrc_ase.dataset.labels import LabelledFrame

__all__ = ["counted_remarks"]


def counted_remarks(frames: Iterable[LabelledFrame]) -> list[Remark]:
    """Return each remark once, with the number of frames that have it and the name of the first of them."""
    n_frames = 0
    counts: dict[Remark, int] = {}
    first: dict[Remark, str] = {}
    for frame in frames:
        n_frames += 1
        for remark in frame.remarks:
            counts[remark] = counts.get(remark, 0) + 1
            first.setdefault(remark, frame.name)
    return [
        Remark(f"{remark.text} ({count} of {n_frames} frames, first {first[remark]})", remark.is_warning)
        for remark, count in counts.items()
    ]
