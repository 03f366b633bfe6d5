"""Settings of active learning, and the YAML file that holds them."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from lrc_ase.dataset import LabelKeys
from lrc_ase.files.atomic import write_atomically
from lrc_ase.learning.teacher import TeacherSettings
from lrc_ase.models.settings import Settings
from lrc_ase.training.assignments import changed_configuration
from lrc_ase.training.configuration import ConfigurationError, TrainingConfiguration, parse_configuration
from lrc_ase.training.configuration_errors import describe_errors
from lrc_ase.training.configuration_keys import template_of
from lrc_ase.training.yaml_reading import read_yaml

__all__ = [
    "BudgetSettings",
    "ExplorationSettings",
    "FirstFramesSettings",
    "LearnSettings",
    "LearnTrainingSettings",
    "load_settings",
    "parse_settings",
    "read_content",
    "settings_template",
    "with_keys",
    "write_settings",
]


def _several(value: Any) -> Any:
    """Return a single item as a list of one."""
    return [value] if isinstance(value, (str, os.PathLike, int, float)) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(_several)]


class FirstFramesSettings(Settings):
    """Structures that are labelled before there is a potential."""

    count: int | None = Field(None, ge=0)
    """Number of frames: copies of the starts, rattled and strained at random. Null: as many as hold 1024 atoms, 16 to
    64, or none if there are at least `frames_per_iteration` known frames."""
    rattle: float = Field(0.08, ge=0, le=0.5)
    """Largest standard deviation of the displacements, as a part of the shortest distance between two atoms."""
    strain: float = Field(0.05, ge=0, le=0.5)
    """Largest strain of periodic directions; those of fully periodic cells may grow by twice as much on top."""


class ExplorationSettings(Settings):
    """Molecular dynamics with the potential of the present iteration, in search of structures that it does not know."""

    temperatures: Annotated[tuple[Annotated[float, Field(gt=0, le=20000)], ...], BeforeValidator(_several)] = Field(
        (300.0,), min_length=1
    )
    """Temperatures, K. Between the lowest and the highest, walkers are heated and cooled."""
    pressure: float | None = None
    """Pressure, GPa, of structures with three periodic directions. Null: cells do not change."""
    length: float = Field(5.0, gt=0)
    """Length of the run of a walker in one iteration, ps."""
    timestep: float | None = Field(None, gt=0, le=10)
    """Length of a step, fs. Null: 0.5 times the root of the lightest mass in amu, at most 4."""
    friction: float = Field(0.01, gt=0)
    """Friction of the thermostat, 1/fs."""
    walkers: int = Field(4, ge=1, le=1000)
    """Number of runs, shared by the starts; at least one for each start."""
    tolerance: float = Field(3.0, gt=0)
    """Factor of the threshold at which a walker stops, in units of the potential's force error on held-out frames, or
    of `budget.target_error` where that is larger."""
    threshold: float | None = Field(None, gt=0)
    """Deviation of the force on an atom at which a walker stops, eV/Angstrom per component. Null: by `tolerance`."""
    relative_threshold: float = Field(1.0, ge=0)
    """Part of the root mean square force of the present frame below which a deviation never stops a walker: hot
    structures have larger forces and bear larger deviations."""
    snapshots: int | None = Field(None, ge=1)
    """Frames of a full run of a walker from which frames to label are chosen. Null: 20, or as many as make four times
    `frames_per_iteration` over all walkers."""
    check_every: int = Field(10, ge=1)
    """Steps between evaluations of the deviation. One member of the ensemble moves a walker in between, which costs
    less than all of them."""
    dtype: str = Field("float32", pattern="^float(32|64)$")
    """Precision of the dynamics, float32 or float64."""


class LearnTrainingSettings(Settings):
    """Trainings of the iterations and of the final potential."""

    ensemble: int = Field(2, ge=2, le=16)
    """Members of the ensembles of the iterations, whose disagreement finds unknown structures."""
    first_epochs: int | None = Field(None, ge=1)
    """Epochs of the first training, which starts from nothing. Null: as many as make 500 steps, 10 to 200."""
    epochs: int | None = Field(None, ge=1)
    """Epochs of the trainings of later iterations, each of which starts from the potential before it. Null: as many as
    make 400 steps, 10 to 200."""
    final_epochs: int | None = Field(None, ge=1)
    """Epochs of the last training, on all frames. Null: as many as make 2000 steps, 10 to 200. More make a potential
    more accurate, by a tenth for twice as many; this time does not come back where the teacher is fast."""
    final_members: int = Field(1, ge=1, le=16)
    """Members of the final potential. 1: a single model. More: an ensemble, which gives uncertainties."""
    warm_learning_rate: float = Field(2e-3, gt=0)
    """Largest step size of trainings that start from a potential."""
    held_out: int = Field(8, ge=3)
    """One frame in this many is never trained on: it chooses the best epoch and calibrates deviations."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Any key of `lrc-ase train` by its dotted name, such as `{model.cutoff: 6, model.preset: accurate}`."""

    @field_validator("settings")
    @classmethod
    def _check_keys(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Raise ValueError for a key or a value that a training does not take, or that the loop sets."""
        taken = {
            "data": "known",
            "start": "known",
            "ensemble": "training.ensemble",
            "seed": "seed",
            "stages.epochs": "training.epochs",
            "stages.learning_rate": "training.warm_learning_rate",
        }
        for key in settings:
            parts = re.findall(r"[^.\[\]]+", key) or [key]
            # a stage may be named between: stages[0].epochs, stages.full-range.epochs
            if (name := f"stages.{parts[-1]}" if parts[0] == "stages" else parts[0]) in taken:
                raise ValueError(f"'{key:.80}' is set by the loop; the key for it is '{taken[name]}'")
        with_keys("frames.extxyz", settings)
        return settings


class BudgetSettings(Settings):
    """Limits; the loop ends when the first one is met."""

    teacher_calls: int | None = Field(None, ge=1)
    """Largest number of calculations of the teacher, failed ones included. Null: 200, and up to 800 where structures
    have less than 64 atoms."""
    minutes: float | None = Field(None, gt=0)
    """Wall time in minutes after which no new frames are labelled; the final training follows. Null: no limit."""
    iterations: int = Field(50, ge=1)
    """Largest number of iterations."""
    target_error: float | None = Field(None, gt=0)
    """Force error on fresh labels, root mean square in meV/Angstrom, that is good enough. Null: the loop goes on until
    explorations raise no alarm."""


class LearnSettings(Settings):
    """Active learning: from structures and a reference method to a potential."""

    starts: Paths = ()
    """Files with structures to start from, in any format of ASE: molecules, crystals, slabs, several compositions."""
    known: Paths = ()
    """Files with labelled frames to begin with."""
    keys: LabelKeys = LabelKeys()
    """Names of the labels in known frames and in frames that are labelled by hand."""
    teacher: TeacherSettings | None
    """Reference method. Null: frames to label are written to files, and labelled by hand or on a cluster."""
    first: FirstFramesSettings = FirstFramesSettings()
    """Frames of the first iteration."""
    exploration: ExplorationSettings = ExplorationSettings()
    """Dynamics that finds new frames."""
    training: LearnTrainingSettings = LearnTrainingSettings()
    """Trainings."""
    budget: BudgetSettings = BudgetSettings()
    """Limits."""
    frames_per_iteration: int | None = Field(None, ge=1)
    """Frames that are labelled in an iteration after the first. Null: as many as hold 1024 atoms, 16 to 64."""
    random_fraction: float = Field(0.25, ge=0, le=1)
    """Part of these frames that is drawn at random from the explored ones, whatever the ensemble says of them. Their
    error is that of dynamics with the potential, as the others are chosen for being hard."""
    seed: int = Field(0, ge=0)
    """Seed of frames, walkers and trainings."""
    n_threads: int | None = Field(None, ge=1)
    """Threads of torch in training and exploration. Null: torch's own choice."""

    @model_validator(mode="after")
    def _check_frames(self) -> LearnSettings:
        """Raise ValueError if there is nothing to begin with."""
        if not self.starts:
            raise ValueError("`starts` must name at least one structure to explore from, got none")
        return self


def with_keys(data: Any, keys: Mapping[str, Any]) -> TrainingConfiguration:
    """Return the configuration of a training with `keys` on top of the defaults; a model may lack the long-range part.

    Raises
    ------
    ConfigurationError
        A key is unknown, or a value is not valid.
    """
    model = keys.get("model")
    inner = model if isinstance(model, Mapping) else {}
    is_short = keys.get("model.long_range", inner.get("long_range", "")) is None
    stages = [{"model": "short-range" if is_short else "full-range"}]
    return changed_configuration(
        parse_configuration({"data": data, "stages": stages}), keys, source="training.settings"
    )


def load_settings(path: str | os.PathLike[str]) -> LearnSettings:
    """Read a YAML file; relative paths start from its folder.

    Raises
    ------
    ConfigurationError
        The file is missing or no YAML, a key is unknown, or a value is not valid.
    """
    return parse_settings(read_content(path), folder=Path(path).resolve().parent, source=str(path))


def read_content(path: str | os.PathLike[str]) -> Any:
    """Return the content of a YAML file as it stands there; ConfigurationError if it cannot be read."""
    try:
        return read_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the settings {path}: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def settings_template() -> str:
    """Return a YAML file that holds every key with its meaning and default."""
    head = (
        "Settings of `lrc-ase learn`. Every key but `starts` and `teacher` may be left out: the values here are the "
        "defaults. null: derived, or switched off, as the comment says."
    )
    teacher = {"calculator": "tblite.ase:TBLite", "options": {"method": "GFN1-xTB"}}
    return template_of(LearnSettings, {"starts": ["start.cif"], "teacher": teacher}, head)


def parse_settings(
    content: Any, *, folder: str | os.PathLike[str] = os.curdir, source: str = "settings"
) -> LearnSettings:
    """Validate settings; relative paths of structures, frames and a teacher's file start from `folder`."""
    if not isinstance(content, Mapping):
        raise ConfigurationError(
            f"{source}: expected keys such as 'starts' and 'teacher', got {type(content).__name__}"
        )
    base = os.path.abspath(folder)
    anchored = copy.deepcopy(dict(content))
    for name in ("starts", "known"):
        if isinstance(paths := _several(anchored.get(name, ())), (list, tuple)):
            anchored[name] = [
                os.path.join(base, path) if isinstance(path, (str, os.PathLike)) else path for path in paths
            ]
    teacher = anchored.get("teacher")
    if isinstance(teacher, str):
        teacher = anchored["teacher"] = {"calculator": teacher}
    if isinstance(teacher, dict) and str(teacher.get("calculator", "")).endswith(".py"):
        teacher["calculator"] = os.path.join(base, teacher["calculator"])
    try:
        return LearnSettings.model_validate(anchored)
    except ValidationError as error:
        raise ConfigurationError(describe_errors(error, LearnSettings, source, anchored)) from None


def write_settings(path: str | os.PathLike[str], settings: LearnSettings) -> None:
    """Write a YAML file that `load_settings` reads to the same settings."""
    content = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(path, f"# Settings of `lrc-ase learn`, which takes this file.\n{content}".encode())
