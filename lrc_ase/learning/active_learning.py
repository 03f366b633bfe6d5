"""Active learning: from structures and a reference method to a potential, in a folder that survives interruptions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc_ase.files.potential_file import load_potential
from lrc_ase.learning.fresh_errors import errors_by_origin
from lrc_ase.learning.label_store import LabelStore
from lrc_ase.learning.loop import Loop
from lrc_ase.learning.progress import Observer
from lrc_ase.learning.settings import LearnSettings, load_settings, parse_settings
from lrc_ase.learning.state import FreshErrors, IterationRecord, LearnFolder
from lrc_ase.training.machine import threads

__all__ = ["LearnSummary", "learn"]

FREE_ON_RESUME = ("teacher", "budget", "n_threads")
"""Settings that may differ between a run and its continuation."""


@dataclass(frozen=True)
class LearnSummary:
    """Result of active learning."""

    potential: Path
    """The final potential."""
    converged: bool
    """True if the last exploration raised no alarm and its errors were those that were predicted."""
    end: str
    """Sentence on why the loop ended."""
    teacher_calls: int
    fresh: FreshErrors | None
    """Errors of the last ensemble on labels that it had not seen: random frames of its dynamics if there are any."""
    held_out: FreshErrors | None
    """Errors of the final potential on frames that were never trained on; they chose its best epoch."""
    seconds: float
    teacher_seconds: float
    """Sum of the time of the teacher's calculations."""
    records: tuple[IterationRecord, ...]


def learn(
    settings: LearnSettings | Mapping[str, Any] | str | os.PathLike[str] | None,
    run_folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    labels: Sequence[str | os.PathLike[str]] = (),
    observer: Observer | None = None,
) -> LearnSummary:
    """Learn a potential from structures and a reference method.

    Parameters
    ----------
    settings
        Settings, their content, or a YAML file; None goes on with those of the run (with `resume`).
    run_folder
        Folder of the run, created if absent. Labels are in ``labels.extxyz``, the result is ``potential.safetensors``.
    resume
        Continue the run in the folder. Budget, teacher and threads may differ from before.
    labels
        Files with labels of the frames that the run waits for, where it has no teacher.
    observer
        Told about progress.

    Returns
    -------
    LearnSummary
        The potential and how good it is.

    Raises
    ------
    ConfigurationError
        A setting is not valid.
    LabelsNeeded
        The settings name no teacher, and frames wait for labels.
    TeacherError
        The teacher cannot be built, or its labels cannot be trusted.
    ValueError
        The folder holds a run already, or none to resume; no frame could be labelled.
    """
    if isinstance(settings, (str, os.PathLike)):
        settings = load_settings(settings)
    elif settings is not None and not isinstance(settings, LearnSettings):
        settings = parse_settings(settings)
    folder = LearnFolder(run_folder)
    if settings is None and not resume:
        raise ValueError("`settings` may be None only with resume=True")
    if resume and not folder.state_file.exists():
        raise ValueError(f"{folder.path} holds no run of `lrc-ase learn` to resume")
    if labels and not resume:
        raise ValueError("`labels` are those that an existing run waits for: give them with `resume`")
    with folder.locked():
        if resume:
            settings = _same_settings(load_settings(folder.settings), settings)
        elif folder.state_file.exists():
            raise ValueError(f"{folder.path} already holds a run: choose another folder, or go on with it by --resume")
        assert settings is not None
        if labels and settings.teacher is not None:
            raise ValueError("`labels` are for runs without a teacher; this run has one")
        with LabelStore(folder.labels) as store, threads(settings.n_threads):
            loop = Loop(settings, folder, store, observer or Observer(), [os.fspath(path) for path in labels])
            loop.run(resume=resume)
            return _summary(loop)


def _same_settings(before: LearnSettings, now: LearnSettings | None) -> LearnSettings:
    """Return the settings of a continuation; ValueError names a setting that must not differ."""
    if now is None:
        return before
    for name in LearnSettings.model_fields:
        if name not in FREE_ON_RESUME and getattr(before, name) != getattr(now, name):
            raise ValueError(
                f"the run has another `{name}`: with --resume only {', '.join(FREE_ON_RESUME)} may change; leave the "
                "settings out to go on as before, or begin a new run with these frames as `known`"
            )
    return now


def _summary(loop: Loop) -> LearnSummary:
    """Return the result of a finished run."""
    state = loop.state
    last = next((record.fresh for record in reversed(state.records) if record.fresh), {})
    return LearnSummary(
        loop.folder.potential,
        state.converged,
        state.end,
        state.calls,
        last.get("random", last.get("all")),
        errors_by_origin(load_potential(loop.folder.potential), loop.held_out()).get("all"),
        state.seconds,
        sum(record.teacher_seconds for record in state.records),
        state.records,
    )
