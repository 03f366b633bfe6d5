"""Preparation of a training: data, references, graphs, and values that the configuration leaves open."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_ase.dataset import (
    ELECTRIC_LABELS,
    DataReport,
    LabelledFrame,
    LabelledGraph,
    doubt_about_references,
    elements_of,
    force_rms,
    joined,
    sample,
)
from lrc_ase.files.potential_file import Potential, load_potential
from lrc_ase.models.registry import descriptor_class
from lrc_ase.models.settings import ModelSettings
from lrc_ase.training.complete_baselines import complete_baselines
from lrc_ase.training.configuration import (
    ConfigurationError,
    StageConfiguration,
    TrainingConfiguration,
)
from lrc_ase.training.continuation import continued, with_cutoff_of
from lrc_ase.training.data_sets import DataSet, describe_data_sets, inspect_data_sets, label_rules, read_data_sets
from lrc_ase.training.fragments import SHIFTED_REMARK, charge_scheme
from lrc_ase.training.frames import read_into_memory
from lrc_ase.training.level_of_theory import shifted_references
from lrc_ase.training.partial_labels import keys_of_watched
from lrc_ase.training.references import charged_compositions, fit_references, isolated_references
from lrc_ase.training.survey import survey

__all__ = ["Prepared", "describe", "model_settings", "prepare"]

DEFAULT_STEPS, FEWEST_STEPS = 24_000, 12_000
"""Number of steps of the optimizer in a stage without `epochs`, for batches of up to `ATOMS_PER_STEP` atoms: some
minutes of training. Larger batches take fewer steps, so that the atoms of all steps are as many, down to the second
number."""
FEWEST_EPOCHS, MOST_EPOCHS = 20, 4000
ATOMS_PER_STEP = 256
"""Number of atoms in a batch of a stage without `batch_size`."""
FEWEST_FRAMES, MOST_FRAMES = 4, 32
FEWEST_BATCHES = 8
"""Smallest number of batches in an epoch, as far as `FEWEST_FRAMES` allows: small sets train better with noise."""
SURVEYED = 2000
"""Largest number of graphs from which a descriptor derives its settings."""
_DOUBTED = 200
"""Largest number of frames whose energies are compared with the element references."""

ReportProgress = Callable[[int, int], None]
"""Function that is called with the number of structures done and their total."""


@dataclass(frozen=True)
class Prepared:
    """Input of the stages besides the model: data, references, scales and remarks."""

    configuration: TrainingConfiguration
    """Configuration with all derived values filled in."""
    data_sets: dict[str, DataSet]
    references: Tensor
    """Energy of each element, eV, float64 (n_elements,)."""
    force_scale: float
    """Root mean square of the training forces, eV/Angstrom."""
    fingerprint: str
    """Hash of the training frames and labels."""
    remarks: tuple[str, ...]
    """Sentences for the user about derived values and doubts."""
    domain: dict[str, Any]
    """Domain of the training frames, see `lrc_ase.structures.domain`."""
    inspection: DataReport
    """Report on the data sets."""
    watched: Sequence[LabelledGraph] = ()
    """Graphs that are not trained on, and whose errors are followed."""
    tests: Mapping[str, Sequence[LabelledGraph]] = field(default_factory=dict)
    """Graphs of each test file, whose errors are reported at the end."""


def prepare(
    configuration: TrainingConfiguration,
    report_progress: ReportProgress | None = None,
    report_reading: Callable[[int, str], None] | None = None,
) -> Prepared:
    """Read the data and derive the elements, references, neighbor count and energy scale that are not configured.

    `report_progress` is called with the number of graphs built and their total, `report_reading` with the number of
    frames written to the cache and their file.
    """
    start = None if configuration.start is None else load_potential(configuration.start)
    if start is not None:
        configuration = with_cutoff_of(configuration, start)
    data_sets = read_data_sets(configuration, report_reading)
    frames = joined([data_set.train.items for data_set in data_sets.values()])
    remarks = list(configuration.remarks)
    force_scale = _force_scale(frames, configuration)
    elements = configuration.model.elements or _elements(data_sets, remarks)
    if start is not None:
        configuration = continued(configuration, start, elements)
        elements = configuration.model.elements or ()
    references = _references(configuration, data_sets, elements, remarks, start)
    # references of another level of theory leave large energies to be learned
    energies = dict(zip(elements, references.tolist(), strict=True))
    if doubt := doubt_about_references(sample(frames, _DOUBTED), energies):
        remarks.append(doubt)
    cutoff = configuration.model.cutoff
    total = sum(len(data_set.train) + len(data_set.validation) for data_set in data_sets.values())
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if report_progress is not None:
            report_progress(done, max(done, total))

    def followed(paths: Sequence[str]) -> Sequence[LabelledGraph]:
        """Read watched or test files into graphs."""
        rules = label_rules(configuration, keys_of_watched(configuration))
        return read_into_memory([(path, 1.0) for path in paths], rules, cutoff).graphs(elements, references)

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
    long_range = configuration.model.long_range
    if long_range is not None and long_range.compositions is None and start is None:
        long_range = long_range.model_copy(update={"compositions": charged_compositions(frames, elements)})
    few = [each.graph for each in sample(graphs, SURVEYED)]
    if long_range is not None and long_range.electrostatics and start is None:
        scheme = charge_scheme(long_range, few, elements)
        if scheme == "shifted" != long_range.charges:
            remarks.append(SHIFTED_REMARK)
        long_range = long_range.model_copy(update={"charges": scheme})
    descriptor = configuration.model.descriptor
    model = configuration.model.model_copy(
        update={
            "elements": tuple(elements),
            "descriptor": descriptor_class(descriptor.name).settings_from_data(descriptor, few, cutoff=cutoff),
            "long_range": long_range,
            "baseline": complete_baselines(configuration.model, elements, domain["shortest_distances"]),
            "average_neighbors": configuration.model.average_neighbors or max(average_neighbors, 1.0),
            "energy_scale": configuration.model.energy_scale or force_scale,
        }
    )
    stages = tuple(
        _with_length(_with_stress_weight(stage, configuration, data_sets), configuration, data_sets)
        for stage in configuration.stages
    )
    resolved = configuration.model_copy(
        update={
            "model": model,
            "references": dict(zip(elements, references.tolist(), strict=True)),
            "stages": stages,
            "remarks": tuple(dict.fromkeys(remarks)),
        }
    )
    return Prepared(
        resolved,
        data_sets,
        references,
        force_scale,
        _fingerprint(frames),
        resolved.remarks,
        domain,
        inspect_data_sets(data_sets),
        followed(configuration.watch),
        {path: followed([path]) for path in configuration.test},
    )


def model_settings(configuration: TrainingConfiguration, *, full_range: bool) -> ModelSettings:
    """Return the settings of a stage's model from a resolved configuration."""
    values = configuration.model.model_dump()
    return ModelSettings.model_validate({**values, "long_range": values["long_range"] if full_range else None})


def describe(prepared: Prepared) -> list[str]:
    """Return lines about the data, the derived values and the checks of the data."""
    lines = list(describe_data_sets(prepared.configuration, prepared.data_sets))
    model = prepared.configuration.model
    energies = zip(model.elements or (), prepared.references.tolist(), strict=True)
    lines.append("element references in eV: " + ", ".join(f"{element} {energy:.4f}" for element, energy in energies))
    lines.append(
        f"root mean square force {prepared.force_scale:.4f} eV/Angstrom, "
        f"{model.average_neighbors:.1f} neighbors per atom"
    )
    if model.long_range is not None and model.long_range.compositions and model.long_range.charges != "shifted":
        charges = model.long_range.compositions.items()
        sums = ", ".join(f"{formula} {charge:+g}" if charge else f"{formula} 0" for formula, charge in charges)
        lines.append(f"total charge of each composition in e: {sums}")
    lines += [f"checked: {line}" for line in prepared.inspection.checked]
    lines += [f"not checked: {line}" for line in prepared.inspection.unchecked]
    lines += [f"note: {note}" for note in prepared.inspection.notes]
    lines += [f"warning: {warning}" for warning in prepared.inspection.warnings]
    return lines + [f"note: {remark}" for remark in prepared.remarks]


def _force_scale(frames: Sequence[LabelledFrame], configuration: TrainingConfiguration) -> float:
    """Return the root mean square of the training forces, eV/Angstrom; 1 without forces."""
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
    """Return the stage with a stress weight: 1 if its training frames have stresses and energies are trained on."""
    if stage.loss.stress is not None:
        return stage
    frames = [frame for name in configuration.sets_of(stage) for frame in data_sets[name].train]
    has_stress = any(np.isfinite(frame.stress).all() for frame in frames)
    # the paper trains on forces alone: a stage without energies is meant to be like the paper's
    weight = 1.0 if has_stress and stage.loss.energy else 0.0
    return stage.model_copy(update={"loss": stage.loss.model_copy(update={"stress": weight})})


def _with_length(
    stage: StageConfiguration, configuration: TrainingConfiguration, data_sets: Mapping[str, DataSet]
) -> StageConfiguration:
    """Return the stage with batch size and number of epochs, by default `ATOMS_PER_STEP` and `DEFAULT_STEPS`."""
    if stage.batch_size is not None and stage.epochs is not None:
        return stage  # without reading frames
    frames = joined([data_sets[name].train.items for name in configuration.sets_of(stage)])
    few = list(sample(frames, SURVEYED))
    n_atoms = sum(len(frame.atoms) for frame in few) / len(few)
    size = stage.batch_size
    if size is None:
        size = default_batch_size(len(frames), n_atoms)
    epochs = stage.epochs
    if epochs is None:
        n_steps = max(DEFAULT_STEPS * min(ATOMS_PER_STEP / (size * n_atoms), 1), FEWEST_STEPS)
        epochs = min(max(math.ceil(n_steps / math.ceil(len(frames) / size)), FEWEST_EPOCHS), MOST_EPOCHS)
    return stage.model_copy(update={"batch_size": size, "epochs": epochs})


def default_batch_size(n_frames: int, n_atoms: float) -> int:
    """Return the frames per step of a stage without `batch_size`, for frames of `n_atoms` atoms on average."""
    most = max(min(n_frames // FEWEST_BATCHES, MOST_FRAMES), FEWEST_FRAMES)
    return min(max(round(ATOMS_PER_STEP / n_atoms), FEWEST_FRAMES), most)


def _elements(data_sets: Mapping[str, DataSet], remarks: list[str]) -> tuple[str, ...]:
    """Return the elements of all frames; add a remark about elements that only validation frames hold."""
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
    data_sets: Mapping[str, DataSet],
    elements: Sequence[str],
    remarks: list[str],
    start: Potential | None,
) -> Tensor:
    """Return the energies of the elements in eV: configured, of isolated atoms, or fitted."""
    frames = joined([data_set.train.items for data_set in data_sets.values()])
    choice = configuration.references
    if isinstance(choice, dict):
        if missing := [element for element in elements if element not in choice]:
            raise ConfigurationError(f"`references` lacks the energies of {missing}")
        return torch.tensor([choice[element] for element in elements], dtype=torch.float64)
    if choice == "isolated-atoms":
        # the random split may have put an isolated atom among the validation frames
        every_frame = joined([part.items for each in data_sets.values() for part in (each.train, each.validation)])
        return isolated_references(every_frame, elements).values
    known = {} if start is None else dict(zip(start.settings.elements, start.references.tolist(), strict=True))
    fitted = fit_references(frames, elements, known)
    if fitted.rank_deficient:
        remarks.append(
            f"the compositions of the training frames determine {fitted.rank} of {len(elements)} element references; "
            "those of minimum norm are used, so energies of other compositions mean nothing unless frames of isolated "
            "atoms are added and references=isolated-atoms is set"
        )
    if start is None:
        return fitted.values
    references, remark = shifted_references(start, frames, elements, fitted.values)
    remarks += [] if remark is None else [remark]
    return references


def _fingerprint(frames: Sequence[LabelledFrame]) -> str:
    """Return a digest of structures, labels and weights."""
    digest = hashlib.sha256()
    for frame in frames:
        for array in (
            frame.atoms.numbers,
            frame.atoms.positions,
            frame.atoms.cell.array,
            frame.energy,
            frame.forces,
            frame.stress,
            frame.weight,
            *(value for label in ELECTRIC_LABELS if (value := getattr(frame, label)) is not None),
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
