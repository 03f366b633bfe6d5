"""Training frames of which some lack energies or forces: labels that stages require, and notes for the user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from lrc_ase.dataset import Label, LabelKeys, LabelledFrame, Lazy, joined, label_frame
from lrc_ase.training.configuration import ConfigurationError, LossConfiguration, TrainingConfiguration
from lrc_ase.training.frames import Frames

__all__ = [
    "check_stage_labels",
    "is_complete",
    "keys_of_watched",
    "partial_label_notes",
    "required_labels",
    "unweighted_label_notes",
]

TRAINED_ELECTRIC_LABELS: tuple[Label, ...] = ("dipole", "born_effective_charges")
"""Labels of the response to electric fields that a loss can weigh."""
_WEIGHTS: dict[Label, str] = {"dipole": "0.1", "born_effective_charges": "1"}
"""Weights to begin with."""
_PLURALS: dict[Label, str] = {"dipole": "dipoles", "born_effective_charges": "Born effective charges"}


def required_labels(configuration: TrainingConfiguration) -> tuple[Label, ...]:
    """Return the labels of which a frame must have at least one: all but stress, if a stage weighs them."""
    labels = [_required(stage.loss, configuration) for stage in configuration.stages]
    return tuple(dict.fromkeys(chain.from_iterable(labels)))


def _required(loss: LossConfiguration, configuration: TrainingConfiguration) -> list[Label]:
    """Return the labels that a loss weighs, but for stress and for dipoles that the potential to start from brings."""
    labels: tuple[Label, ...] = ("energy", "forces", *TRAINED_ELECTRIC_LABELS)
    kept = ("dipole",) if configuration.keep_dipoles else ()
    return [label for label in labels if getattr(loss, label) and label not in kept]


def check_stage_labels(configuration: TrainingConfiguration, frames: Mapping[str, Frames]) -> None:
    """Raise ConfigurationError if a stage weighs a label that none of its training frames has.

    `frames` holds the training frames by the name of their data set.
    """
    for stage in configuration.stages:
        names = configuration.sets_of(stage)
        for label in _required(stage.loss, configuration):
            every = joined([frames[name].items for name in names])
            if any(frame.has(label) for frame in every):  # one at a time: cached frames need not fit into memory
                continue
            if not any(isinstance(frames[name].items, Lazy) for name in names):
                _raise_missing(every, label, configuration.data[names[0]].keys)
            raise ConfigurationError(
                f"stage '{stage.name}' trains on {label}, but no frame of {list(names)} has a label of it, such as "
                f"{every[0].name}: name it by `keys: {{{label}: ...}}`, or set the weight `loss: {{{label}: 0}}`"
            )


def is_complete(frame: LabelledFrame, required: Sequence[Label]) -> bool:
    """Return True for a frame of several atoms that has all required labels."""
    return len(frame.atoms) > 1 and all(frame.has(label) for label in required)


def unweighted_label_notes(configuration: TrainingConfiguration, frames: Mapping[str, Frames]) -> Iterator[str]:
    """Yield a sentence for each electric label that training frames have and no loss weighs.

    `frames` holds the training frames by the name of their data set.
    """
    for label in TRAINED_ELECTRIC_LABELS:
        if any(getattr(stage.loss, label) for stage in configuration.stages):
            continue
        for name, each in frames.items():
            n_labelled = sum(frame.has(label) for frame in each)
            if n_labelled:
                yield (
                    f"data set '{name}': {n_labelled} of {len(each)} frames have {_PLURALS[label]}, which the loss "
                    f"does not weigh: `--set stages.loss.{label}={_WEIGHTS[label]}` trains on them"
                )


def partial_label_notes(frames: Sequence[LabelledFrame], required: Sequence[Label]) -> Iterator[str]:
    """Yield a sentence for each required label that some frames lack; single atoms need no forces."""
    for label in required:
        lacking = [
            frame.name for frame in frames if not frame.has(label) and not (label == "forces" and len(frame.atoms) == 1)
        ]
        if lacking:
            yield (
                f"{len(lacking)} of {len(frames)} frames have no {label}, first {lacking[0]}: "
                f"they count in the other parts of the loss"
            )


def keys_of_watched(configuration: TrainingConfiguration) -> LabelKeys:
    """Return the label keys of watched and test frames: `watch_keys`, or those on which all data sets agree."""
    if configuration.watch_keys is not None:
        return configuration.watch_keys
    keys = [data_set.keys for data_set in configuration.data.values()]
    if (configuration.watch or configuration.test) and any(other != keys[0] for other in keys):
        raise ConfigurationError(
            "the data sets name their labels differently: say by `watch_keys` which names watched and test frames have"
        )
    return keys[0]


def _raise_missing(frames: Sequence[LabelledFrame], label: Label, keys: LabelKeys) -> None:
    """Raise the error of a frame without the label, which lists the entries of the frame."""
    for frame in frames:
        label_frame(frame.atoms, keys.model_copy(update={"charge": None}), required=(label,), name=frame.name)
