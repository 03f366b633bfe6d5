"""Pretraining: a model learns labels of a cheap method before it is trained on those of an expensive one."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lrc_ase.dataset import read_frames
from lrc_ase.learning.starts import read_starts
from lrc_ase.learning.teacher import TeacherError, TeacherSettings
from lrc_ase.learning.teacher_pool import Failure, TeacherPool
from lrc_ase.training import TrainingConfiguration
from lrc_ase.training.completion import default_batch_size
from lrc_ase.training.configuration import (
    ConfigurationError,
    DataSetConfiguration,
    LossConfiguration,
    StageConfiguration,
)
from lrc_ase.training.data_arguments import Paths, absolute_paths

__all__ = ["KEEPING_DIPOLES", "check_dipoles", "pretraining_configuration", "structures_to_sample"]

_DIPOLE_WEIGHT = 0.1
KEEPING_DIPOLES = {"keep_dipoles": True, "stages.loss.dipole": 0.02}
"""Changes of the second training, by dotted keys, with which it keeps the dipoles that the first one learned. With a
weight of 0.1 force errors of dipeptides were 8% larger than without."""

STEPS = 9000
"""Steps of the optimizer, see the section on pretraining in the accuracy notebook."""
_MOST_EPOCHS = 200
_VALIDATIONS = 20


def structures_to_sample(configuration: TrainingConfiguration) -> list[str]:
    """Return the files with the training frames of a configuration, from which a cheap method can sample others.

    Raises
    ------
    ConfigurationError
        The training starts from a potential, so that pretraining would be lost, or a data set gives the total charge a
        name that no teacher knows.
    """
    if configuration.start is not None:
        raise ConfigurationError(
            f"the training starts from {configuration.start}, which has learned already: leave pretraining out, or "
            "start from untrained weights"
        )
    for data_set in configuration.data.values():
        if data_set.keys.charge is not None:
            raise ConfigurationError(
                f"the total charges of the frames stand under '{data_set.keys.charge}', where a teacher does not look: "
                "rename the entry to total_charge"
            )
    return [file.path for data_set in configuration.data.values() for file in data_set.train]


def check_dipoles(starts: Sequence[str], teacher: TeacherSettings) -> None:
    """Label the smallest molecule of the files `starts` with the teacher, which must give a dipole.

    Raises
    ------
    ConfigurationError
        All structures are periodic, and periodic cells have no dipole.
    TeacherError
        The teacher cannot be built, fails, or gives no dipole.
    """
    molecules = [atoms for atoms in read_starts(starts) if len(atoms) > 1 and not atoms.pbc.any()]
    if not molecules:
        raise ConfigurationError(
            "no training frame is a molecule without periodic directions, and others have no dipole to learn from a "
            "cheap method: leave the dipoles out, or set pbc to False if the cell is nothing but a box around it"
        )
    with (
        tempfile.TemporaryDirectory(prefix="lrc-ase-teacher-") as scratch,
        TeacherPool(teacher.model_copy(update={"processes": 1, "check": False}), Path(scratch)) as pool,
    ):
        [result] = pool.label([min(molecules, key=len)])
    if isinstance(result, Failure):
        raise TeacherError(f"the teacher {teacher.calculator} fails on the smallest molecule: {result.reason}")
    if "dipole" not in result.atoms.calc.results:
        raise TeacherError(
            f"the teacher {teacher.calculator} gives no dipole: leave the dipoles out, or take a method that has "
            "them, such as GFN2-xTB"
        )


def pretraining_configuration(
    configuration: TrainingConfiguration, labelled: Paths, epochs: int | None = None, *, dipoles: bool = False
) -> TrainingConfiguration:
    """Return the configuration of the first of two trainings: the model of the second one on labels of a cheap method.

    The training has one stage, of a short-range model if the second training begins with one. Seed, ensemble, precision
    and device are those of the second training, and the time limit that of its first stage.

    Parameters
    ----------
    configuration
        The second training.
    labelled
        Files of frames that the cheap method labelled.
    epochs
        Passes over these frames. None: as many as make 9000 steps of the optimizer, at most 200.
    dipoles
        Train on the dipoles of molecules too. Energies and forces alone hardly fix charges within the cutoff.
    """
    paths = absolute_paths(labelled)
    if epochs is None:
        frames = read_frames(paths)
        size = default_batch_size(len(frames), sum(map(len, frames)) / len(frames))
        epochs = min(math.ceil(STEPS / math.ceil(len(frames) / size)), _MOST_EPOCHS)
    first = configuration.stages[0]
    stage = StageConfiguration(
        name="pretraining",
        model=first.model,
        epochs=epochs,
        validate_every=max(epochs // _VALIDATIONS, 1),
        time_limit=first.time_limit,
        loss=LossConfiguration(dipole=_DIPOLE_WEIGHT if dipoles else 0.0),
    )
    changes = {
        "data": {"cheap": DataSetConfiguration.model_validate({"train": paths})},
        "stages": (stage,),
        "references": "fit",
        "start": None,
        "watch": (),
        "test": (),
        "watch_keys": None,
        "cache": None,
    }
    return configuration.model_copy(update=changes)
