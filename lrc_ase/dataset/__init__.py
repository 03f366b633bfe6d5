"""Labelled structures: from files that ASE reads to batches that a model learns from."""

from __future__ import annotations

from ase import Atoms

from .graphs import (
    LabelledGraph,
    batch_indices,
    collate_labelled,
    elements_of,
    force_rms,
    labelled_graph,
    split_indices,
)
from .inspection import DataReport, inspect_frames
from .labels import Label, LabelKeys, LabelledFrame, label_frame
from .reading import SOURCE_KEY, read_frames

__all__ = [
    "SOURCE_KEY",
    "Atoms",
    "DataReport",
    "Label",
    "LabelKeys",
    "LabelledFrame",
    "LabelledGraph",
    "batch_indices",
    "collate_labelled",
    "elements_of",
    "force_rms",
    "inspect_frames",
    "label_frame",
    "labelled_graph",
    "read_frames",
    "split_indices",
]
