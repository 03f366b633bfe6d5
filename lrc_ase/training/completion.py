"""Numbers that a configuration leaves open: stress weights, batch sizes, lengths of stages, and those of baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lrc_ase.dataset import joined, sample
from lrc_ase.models.baselines import damping_parameters, ranges_from_data
from lrc_ase.models.settings import BaselineSettings, ZBLSettings
from lrc_ase.training.configuration import ModelConfiguration, StageConfiguration, TrainingConfiguration
from lrc_ase.training.data_sets import DataSet

__all__ = ["complete_baselines", "complete_stages", "default_batch_size", "default_patience"]

DEFAULT_STEPS, FEWEST_STEPS = 24_000, 12_000
"""Number of steps of the optimizer in a stage without `epochs`, for batches of up to `ATOMS_PER_STEP` atoms: some
minutes of training. Larger batches take fewer steps, so that the atoms of all steps are as many, down to the second
number, which a training takes that starts from a potential."""
FEWEST_EPOCHS, MOST_EPOCHS = 20, 4000
PATIENCE, FEWEST_VALIDATION_FRAMES = 0.3, 10
"""A stage without `epochs` ends after this part of them without a lower validation loss, if it has so many validation
frames. Trainings that end with their lowest loss went without a lower one for 0.16 of their epochs at most, where they
had more frames than that; in those that overfit, the loss does not come back."""
ATOMS_PER_STEP = 256
"""Number of atoms in a batch of a stage without `batch_size`."""
FEWEST_FRAMES, MOST_FRAMES = 4, 32
FEWEST_BATCHES = 8
"""Smallest number of batches in an epoch, as far as `FEWEST_FRAMES` allows: small sets train better with noise."""
_MEASURED = 2000
"""Largest number of frames from which the mean number of atoms is taken."""


def complete_stages(
    configuration: TrainingConfiguration, data_sets: Mapping[str, DataSet]
) -> tuple[StageConfiguration, ...]:
    """Return the stages with a stress weight, a batch size, a number of epochs and, where one is due, a patience."""
    return tuple(
        _with_length(_with_stress_weight(stage, configuration, data_sets), configuration, data_sets)
        for stage in configuration.stages
    )


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
    """Return the stage with batch size, epochs and patience, by `ATOMS_PER_STEP`, `DEFAULT_STEPS` and `PATIENCE`."""
    if stage.batch_size is not None and stage.epochs is not None:
        return stage  # without reading frames
    frames = joined([data_sets[name].train.items for name in configuration.sets_of(stage)])
    few = list(sample(frames, _MEASURED))
    n_atoms = sum(len(frame.atoms) for frame in few) / len(few)
    size = stage.batch_size
    if size is None:
        size = default_batch_size(len(frames), n_atoms)
    epochs, patience = stage.epochs, stage.patience
    if epochs is None:
        n_steps: float = FEWEST_STEPS
        if configuration.start is None:
            n_steps = max(DEFAULT_STEPS * min(ATOMS_PER_STEP / (size * n_atoms), 1), n_steps)
        epochs = min(max(math.ceil(n_steps / math.ceil(len(frames) / size)), FEWEST_EPOCHS), MOST_EPOCHS)
        n_validation = sum(len(data_sets[name].validation) for name in configuration.sets_of(stage))
        if patience is None and n_validation >= FEWEST_VALIDATION_FRAMES:
            patience = default_patience(epochs, stage.validate_every)
    return stage.model_copy(update={"batch_size": size, "epochs": epochs, "patience": patience})


def default_patience(n_epochs: int, validate_every: int) -> int:
    """Return the patience of a stage without `epochs` and `patience`, in validations."""
    return math.ceil(PATIENCE * n_epochs / validate_every)


def default_batch_size(n_frames: int, n_atoms: float) -> int:
    """Return the frames per step of a stage without `batch_size`, for frames of `n_atoms` atoms on average."""
    most = max(min(n_frames // FEWEST_BATCHES, MOST_FRAMES), FEWEST_FRAMES)
    return min(max(round(ATOMS_PER_STEP / n_atoms), FEWEST_FRAMES), most)


def complete_baselines(
    model: ModelConfiguration, elements: Sequence[str], shortest: Mapping[str, float]
) -> tuple[BaselineSettings, ...]:
    """Return the baselines of a model with ranges of all pairs and parameters of the functional.

    `shortest` holds the shortest distances in the training frames, Angstrom, by pairs as ``"Na-Cl"``.
    """
    complete: list[BaselineSettings] = []
    for each in model.baseline:
        if isinstance(each, ZBLSettings):
            ranges = ranges_from_data(each.ranges, elements, shortest, model.cutoff)
            complete.append(each.model_copy(update={"ranges": ranges}))
        else:
            parameters = each.parameters
            if parameters is None:
                parameters = damping_parameters(each.functional, each.damping, three_body=each.three_body)
            complete.append(each.model_copy(update={"parameters": parameters}))
    return tuple(complete)
