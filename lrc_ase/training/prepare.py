"""Preparation of a training: data, references, graphs, and values that the configuration leaves open."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
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
from lrc_ase.models.settings import LongRangeSettings, ModelSettings
from lrc_ase.structures.charge import total_charge
from lrc_ase.structures.graph import Graph
from lrc_ase.training.advice import pretraining_advice
from lrc_ase.training.completion import complete_baselines, complete_stages
from lrc_ase.training.configuration import ConfigurationError, TrainingConfiguration
from lrc_ase.training.continuation import continued, with_cutoff_of
from lrc_ase.training.data_sets import DataSet, describe_data_sets, inspect_data_sets, label_rules, read_data_sets
from lrc_ase.training.fragments import SHIFTED_REMARK, charge_scheme
from lrc_ase.training.frames import read_into_memory
from lrc_ase.training.kept_dipoles import with_kept_dipoles
from lrc_ase.training.level_of_theory import shifted_references
from lrc_ase.training.partial_labels import keys_of_watched
from lrc_ase.training.references import charged_compositions, fit_references, isolated_references
from lrc_ase.training.survey import survey

__all__ = ["Prepared", "describe", "model_settings", "prepare"]

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
    energies = dict(zip(elements, references.tolist(), strict=True))
    # references of another level of theory leave large energies to be learned
    if doubt := doubt_about_references(sample(frames, _DOUBTED), energies):
        remarks.append(doubt)
    data_sets = _with_graphs(data_sets, elements, references, report_progress)
    if configuration.keep_dipoles:
        assert start is not None  # the configuration demands it
        data_sets = {name: _keeping_dipoles(data_set, start) for name, data_set in data_sets.items()}
    graphs = joined([data_set.train_graphs for data_set in data_sets.values()])
    domain, average_neighbors = survey(graphs, elements)
    model, few = configuration.model, [each.graph for each in sample(graphs, SURVEYED)]
    kind = descriptor_class(model.descriptor.name)
    resolved = configuration.model_copy(
        update={
            "model": model.model_copy(
                update={
                    "elements": tuple(elements),
                    "descriptor": kind.settings_from_data(model.descriptor, few, cutoff=model.cutoff),
                    "long_range": _with_charges(model.long_range, frames, few, elements, remarks)
                    if start is None and _is_full_range(configuration)
                    else model.long_range,
                    "baseline": complete_baselines(model, elements, domain["shortest_distances"]),
                    "average_neighbors": model.average_neighbors or max(average_neighbors, 1.0),
                    "energy_scale": model.energy_scale or force_scale,
                }
            ),
            "references": energies,
            "stages": complete_stages(configuration, data_sets),
            "remarks": tuple(dict.fromkeys(remarks)),
        }
    )

    def followed(paths: Sequence[str]) -> Sequence[LabelledGraph]:
        """Read watched or test files into graphs."""
        rules = label_rules(configuration, keys_of_watched(configuration))
        return read_into_memory([(path, 1.0) for path in paths], rules, model.cutoff).graphs(elements, references)

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


def _keeping_dipoles(data_set: DataSet, start: Potential) -> DataSet:
    """Return a data set whose graphs have dipoles of the potential `start` where they lack them."""
    return replace(
        data_set,
        train_graphs=with_kept_dipoles(data_set.train_graphs, start),
        validation_graphs=with_kept_dipoles(data_set.validation_graphs, start),
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
    long_range = model.long_range if _is_full_range(prepared.configuration) else None
    if long_range is not None and long_range.compositions and long_range.charges != "shifted":
        charges = long_range.compositions.items()
        sums = ", ".join(f"{formula} {charge:+g}" if charge else f"{formula} 0" for formula, charge in charges)
        lines.append(f"total charge of each composition in e: {sums}")
    lines += [f"checked: {line}" for line in prepared.inspection.checked]
    lines += [f"not checked: {line}" for line in prepared.inspection.unchecked]
    lines += [f"note: {note}" for note in prepared.inspection.notes]
    lines += [f"warning: {warning}" for warning in prepared.inspection.warnings]
    lines += [f"note: {remark}" for remark in prepared.remarks]
    frames = joined([data_set.train.items for data_set in prepared.data_sets.values()])
    if prepared.configuration.start is None and (advice := pretraining_advice(frames)):
        lines.append(f"hint: {advice}")
    return lines


def _is_full_range(configuration: TrainingConfiguration) -> bool:
    """Return True if a stage trains a model with a long-range part."""
    return any(stage.model == "full-range" for stage in configuration.stages)


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


def _with_graphs(
    data_sets: Mapping[str, DataSet],
    elements: Sequence[str],
    references: Tensor,
    report_progress: ReportProgress | None,
) -> dict[str, DataSet]:
    """Return the data sets with the graphs of their frames; `report_progress` as in `prepare`."""
    total = sum(len(data_set.train) + len(data_set.validation) for data_set in data_sets.values())
    numbers = count(1)

    def on_graph() -> None:
        if report_progress is not None:
            report_progress(next(numbers), total)

    return {
        name: replace(
            data_set,
            train_graphs=data_set.train.graphs(elements, references, on_graph),
            validation_graphs=data_set.validation.graphs(elements, references, on_graph),
        )
        for name, data_set in data_sets.items()
    }


def _with_charges(
    long_range: LongRangeSettings | None,
    frames: Sequence[LabelledFrame],
    graphs: Sequence[Graph],
    elements: Sequence[str],
    remarks: list[str],
) -> LongRangeSettings | None:
    """Return the long-range settings with the compositions of the frames and the scheme of charges that suits them.

    `graphs` are those from which the scheme follows. Adds a remark if charges are shifted unasked.
    """
    if long_range is None:
        return None
    if long_range.compositions is None:
        long_range = long_range.model_copy(update={"compositions": charged_compositions(frames, elements)})
    if not long_range.electrostatics:
        return long_range
    scheme = charge_scheme(long_range, graphs, elements)
    if scheme == "shifted" != long_range.charges:
        remarks.append(SHIFTED_REMARK)
    return long_range.model_copy(update={"charges": scheme})


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
    """Return a digest of structures, labels and weights.

    Frames without charge that are periodic in all directions, or without a cell, count as in older versions.
    """
    digest = hashlib.sha256()
    for frame in frames:
        if charge := total_charge(frame.atoms):
            digest.update(f"charge {charge}".encode())
        if frame.atoms.cell.any() and not frame.atoms.pbc.all():
            digest.update(frame.atoms.pbc.tobytes())
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
