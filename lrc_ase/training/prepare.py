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
    LabelledFrame,
    LabelledGraph,
    elements_of,
    force_rms,
    inspect_frames,
    label_frame,
    labelled_graph,
    read_frames,
    split_indices,
)
from lrc_ase.descriptors import descriptor_class
from lrc_ase.domain import summarize
from lrc_ase.potential_file import Potential, load_potential
from lrc_ase.settings import ModelSettings
from lrc_ase.training.configuration import (
    ConfigurationError,
    DataSetConfiguration,
    StageConfiguration,
    TrainingConfiguration,
)
from lrc_ase.training.continuation import continued
from lrc_ase.training.references import fit_references, isolated_references

__all__ = ["DataSet", "Prepared", "describe", "inspect_data_sets", "model_settings", "prepare", "read_data_sets"]

DEFAULT_STEPS = 12_000
"""Steps of the optimizer in a stage whose epochs are not given: minutes for small frames, about ten for large ones."""
FEWEST_EPOCHS, MOST_EPOCHS = 20, 4000

ReportProgress = Callable[[int, int], None]
"""Called with the number of structures done and their total."""


@dataclass(frozen=True)
class DataSet:
    """A named set of labelled frames, divided, and their graphs."""

    train: list[LabelledFrame]
    validation: list[LabelledFrame]
    train_graphs: tuple[LabelledGraph, ...] = ()
    validation_graphs: tuple[LabelledGraph, ...] = ()


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
    """What the training frames hold, see `lrc_ase.domain`."""
    inspection: DataReport
    """What the data sets hold and what looks wrong about them."""
    watched: tuple[LabelledGraph, ...] = ()
    """Graphs whose errors are followed but not trained on."""


def read_data_sets(configuration: TrainingConfiguration) -> dict[str, DataSet]:
    """Read, label and divide the frames of each data set that a stage uses."""
    losses = [stage.loss for stage in configuration.stages]
    required: list[Label] = []
    if any(loss.energy for loss in losses):
        required.append("energy")
    if any(loss.forces for loss in losses):
        required.append("forces")
    used = {name for stage in configuration.stages for name in configuration.sets_of(stage)}
    return {
        name: _read_data_set(data_set, required, configuration.seed)
        for name, data_set in configuration.data.items()
        if name in used
    }


def prepare(configuration: TrainingConfiguration, report_progress: ReportProgress | None = None) -> Prepared:
    """Read the data and derive elements, references, neighbor count and energy scale where they are not given."""
    data_sets = read_data_sets(configuration)
    frames = [frame for data_set in data_sets.values() for frame in data_set.train]
    remarks: list[str] = []
    force_scale = _force_scale(frames, configuration)
    start = None if configuration.start is None else load_potential(configuration.start)
    elements = configuration.model.elements or _elements(data_sets, remarks)
    if start is not None:
        configuration = continued(configuration, start, elements)
        elements = configuration.model.elements or ()
    references = _references(configuration, frames, elements, remarks, start)
    cutoff = configuration.model.cutoff
    total = sum(len(data_set.train) + len(data_set.validation) for data_set in data_sets.values())
    done = 0

    def graphs_of(frames: Sequence[LabelledFrame]) -> tuple[LabelledGraph, ...]:
        nonlocal done
        graphs = []
        for frame in frames:
            graphs.append(labelled_graph(frame, elements, cutoff, references))
            done += 1
            if report_progress is not None:
                report_progress(done, max(done, total))
        return tuple(graphs)

    data_sets = {
        name: replace(
            data_set,
            train_graphs=graphs_of(data_set.train),
            validation_graphs=graphs_of(data_set.validation),
        )
        for name, data_set in data_sets.items()
    }
    graphs = [graph for data_set in data_sets.values() for graph in data_set.train_graphs]
    n_neighbors = sum(int(graph.graph.neighbor_mask.sum()) for graph in graphs)
    n_atoms = sum(graph.graph.n_atoms for graph in graphs)
    own = configuration.model.descriptor
    model = configuration.model.model_copy(
        update={
            "elements": tuple(elements),
            "descriptor": descriptor_class(own).settings_from_data(own, [each.graph for each in graphs], cutoff=cutoff),
            "average_neighbors": configuration.model.average_neighbors or max(n_neighbors / n_atoms, 1.0),
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
    domain = summarize([graph.graph for graph in graphs], elements, [graph.forces for graph in graphs])
    return Prepared(
        resolved,
        data_sets,
        references,
        force_scale,
        _fingerprint(frames),
        tuple(remarks),
        domain,
        inspect_data_sets(data_sets),
        graphs_of([label_frame(atoms) for atoms in read_frames(configuration.watch)]),
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
    lines += [f"warning: {warning}" for warning in prepared.inspection.warnings]
    return lines + [f"note: {remark}" for remark in prepared.remarks]


def _read_data_set(configuration: DataSetConfiguration, required: Sequence[Label], seed: int) -> DataSet:
    frames = [
        label_frame(atoms, configuration.keys, required=required, weight=file.weight)
        for file in configuration.train
        for atoms in read_frames(file.path)
    ]
    if configuration.validation:
        validation = [
            label_frame(atoms, configuration.keys, required=required) for atoms in read_frames(configuration.validation)
        ]
        return DataSet(frames, validation)
    train, aside = split_indices(len(frames), configuration.validation_fraction, seed)
    return DataSet([frames[index] for index in train], [frames[index] for index in aside])


def _force_scale(frames: Sequence[LabelledFrame], configuration: TrainingConfiguration) -> float:
    if any(stage.loss.stress for stage in configuration.stages) and not any(
        np.isfinite(frame.stress).all() for frame in frames
    ):
        raise ConfigurationError("a stage has a stress weight but no training frame has a stress label")
    scale = force_rms(frames)
    if scale == 0 and any(stage.loss.forces for stage in configuration.stages):
        raise ValueError(
            "the forces of all training frames are exactly zero: the files hold placeholders, not labels; "
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
    train = elements_of([frame.atoms for data_set in data_sets.values() for frame in data_set.train])
    every = elements_of(
        [frame.atoms for data_set in data_sets.values() for frame in (*data_set.train, *data_set.validation)]
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
