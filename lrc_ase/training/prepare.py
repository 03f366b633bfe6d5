"""From a configuration to graphs: reads the data, fits references, fills in what the configuration leaves open."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_ase.dataset import (
    DataReport,
    Label,
    LabelKeys,
    LabelledFrame,
    LabelledGraph,
    elements_of,
    force_rms,
    inspect_frames,
    joined,
    sample,
    split_indices,
)
from lrc_ase.files.potential_file import Potential, load_potential
from lrc_ase.models.descriptors import descriptor_class
from lrc_ase.models.settings import ModelSettings
from lrc_ase.training.configuration import (
    ConfigurationError,
    DataSetConfiguration,
    StageConfiguration,
    TrainingConfiguration,
)
from lrc_ase.training.continuation import continued, with_cutoff_of
from lrc_ase.training.frames import Frames, read_cached, read_into_memory
from lrc_ase.training.references import fit_references, isolated_references
from lrc_ase.training.survey import survey

__all__ = ["DataSet", "Prepared", "describe", "inspect_data_sets", "model_settings", "prepare", "read_data_sets"]

DEFAULT_STEPS = 12_000
"""Steps of the optimizer in a stage whose epochs are not given: minutes for small frames, about ten for large ones."""
FEWEST_EPOCHS, MOST_EPOCHS = 20, 4000
SURVEYED = 2000
"""Graphs from which a descriptor derives its settings."""

ReportProgress = Callable[[int, int], None]
"""Called with the number of structures done and their total."""


@dataclass(frozen=True)
class DataSet:
    """A named set of labelled frames, divided, and their graphs."""

    train: Frames
    validation: Frames
    train_graphs: Sequence[LabelledGraph] = ()
    validation_graphs: Sequence[LabelledGraph] = ()


@dataclass(frozen=True)
class Prepared:
    """All that stages need besides a model."""

    configuration: TrainingConfiguration
    """With nothing left to be derived."""
    data_sets: dict[str, DataSet]
    references: Tensor
    """eV, float64 (n_elements,)."""
    force_scale: float
    """Root mean square of the training forces, eV/Angstrom."""
    fingerprint: str
    """Hash of the training frames and labels."""
    remarks: tuple[str, ...]
    """What the user should know."""
    domain: dict[str, Any]
    """What the training frames hold, see `lrc_ase.structures.domain`."""
    inspection: DataReport
    """What the data sets hold and what looks wrong about them."""
    watched: Sequence[LabelledGraph] = ()
    """Graphs whose errors are followed but not trained on."""


def read_data_sets(
    configuration: TrainingConfiguration, report_reading: Callable[[int, str], None] | None = None
) -> dict[str, DataSet]:
    """Read, label and divide the frames of each data set that a stage uses."""
    losses = [stage.loss for stage in configuration.stages]
    required: list[Label] = []
    if any(loss.energy for loss in losses):
        required.append("energy")
    if any(loss.forces for loss in losses):
        required.append("forces")
    used = {name for stage in configuration.stages for name in configuration.sets_of(stage)}
    cutoff, cache = configuration.model.cutoff, configuration.cache

    def read(files: Sequence[tuple[str, float]], keys: LabelKeys) -> Frames:
        if cache is None:
            return read_into_memory(files, keys, required, cutoff)
        workers = configuration.n_workers
        return read_cached(files, keys, required, cutoff, cache, n_workers=workers, report_progress=report_reading)

    return {
        name: _divided(data_set, read, configuration.seed)
        for name, data_set in configuration.data.items()
        if name in used
    }


def prepare(
    configuration: TrainingConfiguration,
    report_progress: ReportProgress | None = None,
    report_reading: Callable[[int, str], None] | None = None,
) -> Prepared:
    """Read the data and derive elements, references, neighbor count and energy scale where they are not given.

    `report_progress` is called with the number of graphs made and their total, `report_reading` with the number of
    frames put into the cache and their file.
    """
    start = None if configuration.start is None else load_potential(configuration.start)
    if start is not None:
        configuration = with_cutoff_of(configuration, start)
    data_sets = read_data_sets(configuration, report_reading)
    frames = joined([data_set.train.items for data_set in data_sets.values()])
    remarks: list[str] = []
    force_scale = _force_scale(frames, configuration)
    elements = configuration.model.elements or _elements(data_sets, remarks)
    if start is not None:
        configuration = continued(configuration, start, elements)
        elements = configuration.model.elements or ()
    references = _references(configuration, frames, elements, remarks, start)
    cutoff = configuration.model.cutoff
    total = sum(len(data_set.train) + len(data_set.validation) for data_set in data_sets.values())
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if report_progress is not None:
            report_progress(done, max(done, total))

    data_sets = {
        name: replace(
            data_set,
            train_graphs=data_set.train.graphs(elements, references, count),
            validation_graphs=data_set.validation.graphs(elements, references, count),
        )
        for name, data_set in data_sets.items()
    }
    graphs = joined([data_set.train_graphs for data_set in data_sets.values()])
    domain, average_neighbors = survey(graphs, elements)
    few = [each.graph for each in sample(graphs, SURVEYED)]
    own = configuration.model.descriptor
    model = configuration.model.model_copy(
        update={
            "elements": tuple(elements),
            "descriptor": descriptor_class(own).settings_from_data(own, few, cutoff=cutoff),
            "average_neighbors": configuration.model.average_neighbors or max(average_neighbors, 1.0),
            "energy_scale": configuration.model.energy_scale or force_scale,
        }
    )
    stages = tuple(
        _with_epochs(_with_stress_weight(stage, configuration, data_sets), configuration, data_sets)
        for stage in configuration.stages
    )
    resolved = configuration.model_copy(
        update={
            "model": model,
            "references": dict(zip(elements, references.tolist(), strict=True)),
            "stages": stages,
        }
    )
    return Prepared(
        resolved,
        data_sets,
        references,
        force_scale,
        _fingerprint(frames),
        tuple(remarks),
        domain,
        inspect_data_sets(data_sets),
        read_into_memory(
            [(path, 1.0) for path in configuration.watch], LabelKeys(), ("energy", "forces"), cutoff
        ).graphs(elements, references),
    )


def inspect_data_sets(data_sets: Mapping[str, DataSet]) -> DataReport:
    """Report on the training and validation frames of each set."""
    parts = {name: data_set.train for name, data_set in data_sets.items()}
    return inspect_frames(parts | {f"{name}, validation": data_set.validation for name, data_set in data_sets.items()})


def model_settings(configuration: TrainingConfiguration, *, full_range: bool) -> ModelSettings:
    """Settings of a stage's model from a resolved configuration."""
    values = configuration.model.model_dump()
    return ModelSettings.model_validate({**values, "long_range": values["long_range"] if full_range else None})


def describe(prepared: Prepared) -> list[str]:
    """What was found in the data, line by line."""
    lines = []
    for name, data_set in prepared.data_sets.items():
        sizes = sorted(len(frame.atoms) for frame in data_set.train)
        lines.append(
            f"data set '{name}': {len(data_set.train)} frames to train on, {len(data_set.validation)} to validate; "
            f"{sizes[0]} to {sizes[-1]} atoms"
        )
    model = prepared.configuration.model
    energies = zip(model.elements or (), prepared.references.tolist(), strict=True)
    lines.append("element references in eV: " + ", ".join(f"{element} {energy:.4f}" for element, energy in energies))
    lines.append(
        f"root mean square force {prepared.force_scale:.4f} eV/Angstrom, "
        f"{model.average_neighbors:.1f} neighbors per atom"
    )
    lines += [f"note: {note}" for note in prepared.inspection.notes]
    lines += [f"warning: {warning}" for warning in prepared.inspection.warnings]
    return lines + [f"note: {remark}" for remark in prepared.remarks]


def _divided(
    configuration: DataSetConfiguration, read: Callable[[Sequence[tuple[str, float]], LabelKeys], Frames], seed: int
) -> DataSet:
    frames = read([(file.path, file.weight) for file in configuration.train], configuration.keys)
    if configuration.validation:
        return DataSet(frames, read([(path, 1.0) for path in configuration.validation], configuration.keys))
    train, aside = split_indices(len(frames), configuration.validation_fraction, seed)
    return DataSet(frames.part(train), frames.part(aside))


def _force_scale(frames: Sequence[LabelledFrame], configuration: TrainingConfiguration) -> float:
    if any(stage.loss.stress for stage in configuration.stages) and not any(
        np.isfinite(frame.stress).all() for frame in frames
    ):
        raise ConfigurationError("a stage has a stress weight but no training frame has a stress label")
    scale = force_rms(frames)
    if scale == 0 and any(stage.loss.forces for stage in configuration.stages):
        raise ValueError(
            "the forces of all training frames are exactly zero: they were filled in, not computed; "
            "name the right key by `keys.forces`"
        )
    return scale or 1.0


def _with_stress_weight(
    stage: StageConfiguration, configuration: TrainingConfiguration, data_sets: Mapping[str, DataSet]
) -> StageConfiguration:
    """Stage with its stress weight decided by what its training frames hold."""
    if stage.loss.stress is not None:
        return stage
    frames = [frame for name in configuration.sets_of(stage) for frame in data_sets[name].train]
    has_stress = any(np.isfinite(frame.stress).all() for frame in frames)
    # the paper trains on forces alone: who switches energies off wants no stress either
    weight = 1.0 if has_stress and stage.loss.energy else 0.0
    return stage.model_copy(update={"loss": stage.loss.model_copy(update={"stress": weight})})


def _with_epochs(
    stage: StageConfiguration, configuration: TrainingConfiguration, data_sets: Mapping[str, DataSet]
) -> StageConfiguration:
    """Stage with its epochs decided by the number of its training frames."""
    if stage.epochs is not None:
        return stage
    n_frames = sum(len(data_sets[name].train) for name in configuration.sets_of(stage))
    n_batches = math.ceil(n_frames / stage.batch_size)
    epochs = min(max(math.ceil(DEFAULT_STEPS / n_batches), FEWEST_EPOCHS), MOST_EPOCHS)
    return stage.model_copy(update={"epochs": epochs})


def _elements(data_sets: Mapping[str, DataSet], remarks: list[str]) -> tuple[str, ...]:
    """Elements of all frames; a rare one may have come to the validation frames alone."""
    train = elements_of(frame.atoms for data_set in data_sets.values() for frame in data_set.train)
    every = elements_of(
        frame.atoms
        for data_set in data_sets.values()
        for frames in (data_set.train, data_set.validation)
        for frame in frames
    )
    if untrained := sorted(set(every) - set(train)):
        remarks.append(
            f"{', '.join(untrained)} only occurs in validation frames: the model learns nothing about it; "
            "add training frames, or lower `validation_fraction`"
        )
    return every


def _references(
    configuration: TrainingConfiguration,
    frames: Sequence[LabelledFrame],
    elements: Sequence[str],
    remarks: list[str],
    start: Potential | None,
) -> Tensor:
    given = configuration.references
    if isinstance(given, dict):
        if missing := [element for element in elements if element not in given]:
            raise ConfigurationError(f"`references` lacks the energies of {missing}")
        return torch.tensor([given[element] for element in elements], dtype=torch.float64)
    if given == "isolated-atoms":
        return isolated_references(frames, elements).values
    known = {} if start is None else dict(zip(start.settings.elements, start.references.tolist(), strict=True))
    fitted = fit_references(frames, elements, known)
    if fitted.rank_deficient:
        remarks.append(
            f"the compositions of the training frames determine {fitted.rank} of {len(elements)} element references; "
            "those of minimum norm are used, so energies of other compositions mean nothing"
        )
    return fitted.values


def _fingerprint(frames: Sequence[LabelledFrame]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        for array in (frame.atoms.numbers, frame.atoms.positions, frame.atoms.cell.array, frame.energy, frame.forces):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
