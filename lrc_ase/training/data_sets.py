"""Data sets of a training: their files read, labelled and divided into training and validation frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lrc_ase.dataset import DataReport, Label, LabelKeys, LabelledGraph, LabelRules, inspect_frames
from lrc_ase.files.counted import counted
from lrc_ase.training.configuration import DataSetConfiguration, TrainingConfiguration
from lrc_ase.training.division import divide
from lrc_ase.training.frames import Frames, read_cached, read_into_memory
from lrc_ase.training.partial_labels import (
    check_stage_labels,
    is_complete,
    partial_label_notes,
    required_labels,
    unweighted_label_notes,
)

__all__ = ["DataSet", "describe_data_sets", "inspect_data_sets", "label_rules", "read_data_sets"]


_LARGEST_FRACTION = 0.95
"""Largest part of the frames with all labels that is set aside for validation."""


@dataclass(frozen=True)
class DataSet:
    """Labelled frames of one data set, divided into training and validation frames, and their graphs."""

    train: Frames
    validation: Frames
    train_graphs: Sequence[LabelledGraph] = ()
    validation_graphs: Sequence[LabelledGraph] = ()
    n_skipped: int = 0
    """Number of frames left out for lack of labels."""
    division: str = ""
    """Description of the choice of validation frames."""


def read_data_sets(
    configuration: TrainingConfiguration, report_reading: Callable[[int, str], None] | None = None
) -> dict[str, DataSet]:
    """Read, label and divide the frames of each data set that a stage uses."""
    used = {name for stage in configuration.stages for name in configuration.sets_of(stage)}
    required = required_labels(configuration)
    cutoff, cache = configuration.model.cutoff, configuration.cache

    def read(files: Sequence[tuple[str, float]], keys: LabelKeys, weights: Mapping[str, float]) -> Frames:
        rules = label_rules(configuration, keys)
        if cache is None:
            return read_into_memory(files, rules, cutoff, weights)
        workers = configuration.n_workers
        return read_cached(files, rules, cutoff, cache, weights, n_workers=workers, report_progress=report_reading)

    data_sets = {
        name: _divided(data_set, read, required, configuration.seed)
        for name, data_set in configuration.data.items()
        if name in used
    }
    check_stage_labels(configuration, {name: data_set.train for name, data_set in data_sets.items()})
    return data_sets


def label_rules(configuration: TrainingConfiguration, keys: LabelKeys) -> LabelRules:
    """Return the rules by which frames are labelled: one of the labels that a stage weighs suffices."""
    return LabelRules(
        keys=keys,
        required=required_labels(configuration),
        partial=True,
        skip_unlabelled=configuration.skip_unlabelled,
    )


def inspect_data_sets(data_sets: Mapping[str, DataSet]) -> DataReport:
    """Report on the training and validation frames of each set."""
    parts = {name: data_set.train for name, data_set in data_sets.items()}
    return inspect_frames(parts | {f"{name}, validation": data_set.validation for name, data_set in data_sets.items()})


def describe_data_sets(configuration: TrainingConfiguration, data_sets: Mapping[str, DataSet]) -> Iterator[str]:
    """Yield lines on the sizes of the sets, the choice of validation frames and missing labels."""
    required = required_labels(configuration)
    for name, data_set in data_sets.items():
        sizes = [len(frame.atoms) for frame in data_set.train]
        smallest, largest = min(sizes), max(sizes)
        yield (
            f"data set '{name}': {counted(len(data_set.train), 'frame')} to train on, "
            f"{len(data_set.validation)} to validate; "
            + (counted(largest, "atom") if smallest == largest else f"{smallest} to {largest} atoms")
        )
        if len(data_set.validation):
            yield f"data set '{name}': validation frames: {data_set.division}"
        else:
            sign = "note" if configuration.data[name].validation_fraction == 0 else "warning"
            yield (
                f"{sign}: data set '{name}': no frames to validate on, so that the last weights are kept and nothing "
                "tells whether the model overfits; add frames, or name some to validate on"
            )
        if data_set.n_skipped:
            yield f"note: data set '{name}': {counted(data_set.n_skipped, 'frame')} without labels left out"
        for part, frames in (("", data_set.train), (", validation", data_set.validation)):
            for text in partial_label_notes(frames, required):
                yield f"note: data set '{name}'{part}: {text}"
    for text in unweighted_label_notes(configuration, {name: each.train for name, each in data_sets.items()}):
        yield f"note: {text}"


def _divided(
    configuration: DataSetConfiguration,
    read: Callable[[Sequence[tuple[str, float]], LabelKeys, Mapping[str, float]], Frames],
    required: Sequence[Label],
    seed: int,
) -> DataSet:
    """Read a data set and set aside validation frames among the frames that have all required labels."""
    keys = configuration.keys
    frames = read([(file.path, file.weight) for file in configuration.train], keys, configuration.config_type_weights)
    if configuration.validation:
        validation = read([(path, 1.0) for path in configuration.validation], keys, {})
        n_skipped = frames.n_skipped + validation.n_skipped
        return DataSet(frames, validation, n_skipped=n_skipped, division="all of the files named for it")
    # frames that lack a label, and single atoms, would leave the validation errors without that label
    complete = [index for index, frame in enumerate(frames) if is_complete(frame, required)] or list(range(len(frames)))
    fraction = min(configuration.validation_fraction * len(frames) / len(complete), _LARGEST_FRACTION)
    division = divide(frames.part(complete), fraction, seed)
    aside = [complete[index] for index in division.validation]
    train = sorted({*range(len(frames))} - {*complete} | {complete[index] for index in division.train})
    return DataSet(frames.part(train), frames.part(aside), n_skipped=frames.n_skipped, division=division.text)
