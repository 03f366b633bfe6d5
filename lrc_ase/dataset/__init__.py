"""Labelled structures: reading from files, checks, cache, graphs and batches."""

from __future__ import annotations

from ase import Atoms

from lrc_ase.dataset.cache import CachedFrames, cached_frames
from lrc_ase.dataset.consecutive import consecutive_runs
from lrc_ase.dataset.energy_scale import NEAREST_IMAGE, doubt_about_references, is_isolated_atom
from lrc_ase.dataset.frame_weights import CONFIG_TYPE_KEY
from lrc_ase.dataset.inspection import DataReport, inspect_frames
from lrc_ase.dataset.label_values import Label, Remark
from lrc_ase.dataset.labelled_graphs import (
    LabelledGraph,
    batch_indices,
    collate_labelled,
    elements_of,
    force_rms,
    labelled_graph,
    split_indices,
)
from lrc_ase.dataset.labels import (
    ELECTRIC_LABELS,
    LabelKeys,
    LabelledFrame,
    LabelRules,
    UnlabelledFrame,
    label_frame,
    labelled_atoms,
)
from lrc_ase.dataset.lazy import Lazy, joined, sample
from lrc_ase.dataset.reading import SOURCE_KEY, read_frames, write_frames

__all__ = [
    "CONFIG_TYPE_KEY",
    "ELECTRIC_LABELS",
    "NEAREST_IMAGE",
    "SOURCE_KEY",
    "Atoms",
    "CachedFrames",
    "DataReport",
    "Label",
    "LabelKeys",
    "LabelRules",
    "LabelledFrame",
    "LabelledGraph",
    "Lazy",
    "Remark",
    "UnlabelledFrame",
    "batch_indices",
    "cached_frames",
    "collate_labelled",
    "consecutive_runs",
    "doubt_about_references",
    "elements_of",
    "force_rms",
    "inspect_frames",
    "is_isolated_atom",
    "joined",
    "label_frame",
    "labelled_atoms",
    "labelled_graph",
    "read_frames",
    "sample",
    "split_indices",
    "write_frames",
]
