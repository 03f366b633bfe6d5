"""Option --pretrain of ``lrc-ase train``: a training on labels of a cheap method before the training itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from lrc_ase.cli.console import say
from lrc_ase.cli.sampling import sample_visibly
from lrc_ase.learning import SampleSettings, TeacherSettings
from lrc_ase.learning.pretraining import (
    KEEPING_DIPOLES,
    check_dipoles,
    pretraining_configuration,
    structures_to_sample,
)
from lrc_ase.learning.teacher import names_teacher, parse_options
from lrc_ase.training import TrainingConfiguration, train
from lrc_ase.training.assignments import changed_configuration
from lrc_ase.training.prepare import describe, prepare
from lrc_ase.training.run_folder import RunFolder

__all__ = ["Pretraining"]


@dataclass(frozen=True)
class Pretraining:
    """Values of --pretrain and of the options that belong to it; ValueError where they contradict each other."""

    source: str
    """Name of a teacher, or frames that a cheap method labelled."""
    teacher_options: Sequence[str] = ()
    frames: int | None = None
    epochs: int | None = None
    dipoles: bool = False

    def __post_init__(self) -> None:
        if not self._is_teacher and (self.teacher_options or self.frames is not None):
            raise ValueError(
                f"--pretrain {self.source} names frames: --teacher-options and --pretrain-frames belong to a teacher, "
                "such as GFN2-xTB"
            )

    @property
    def _is_teacher(self) -> bool:
        return names_teacher(self.source)

    @property
    def keeping(self) -> dict[str, Any]:
        """Return changes of the training that follows, by dotted keys."""
        return KEEPING_DIPOLES if self.dipoles else {}

    def start(self, configuration: TrainingConfiguration, output: Path, *, quiet: bool, resume: bool) -> Path:
        """Train in the folder ``pretraining`` of a run, or go on there; return the potential to start from."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                "--pretrain runs in one process: train on frames of `lrc-ase sample` first, then start by --from"
            )
        starts = structures_to_sample(configuration)
        folder = output / "pretraining"
        run = RunFolder(folder / "run")
        changed_configuration(configuration, {"start": str(run.potential), **self.keeping})  # now, not after an hour
        if RunFolder(output).configuration.exists():
            if not resume:
                RunFolder(output).check_free()
            return run.potential
        has_begun = run.configuration.exists()
        teacher = self._teacher(configuration) if self._is_teacher else None
        if not has_begun:
            _check(configuration, quiet=quiet)
            if teacher is not None and self.dipoles:
                check_dipoles(starts, teacher)
        if not quiet:
            say(f"pretraining in {quote(str(folder))}; after an interruption the same command goes on")
        labelled = self.source
        if teacher is not None:
            labelled = str(folder / "sampled.extxyz")
            if not has_begun:  # frames of a training that has begun stay as they are
                self._sample(starts, teacher, Path(labelled), configuration, quiet=quiet)
        first = pretraining_configuration(configuration, labelled, self.epochs, dipoles=self.dipoles)
        return train(first, run.path, resume=has_begun, quiet=quiet)

    def _teacher(self, configuration: TrainingConfiguration) -> TeacherSettings:
        """Return the teacher in as many processes as the training has threads."""
        return TeacherSettings(
            calculator=self.source,
            options=parse_options(self.teacher_options),
            processes=configuration.n_threads or torch.get_num_threads(),
        )

    def _sample(
        self,
        starts: Sequence[str],
        teacher: TeacherSettings,
        output: Path,
        configuration: TrainingConfiguration,
        *,
        quiet: bool,
    ) -> None:
        """Sample at most as long as the first stage of the training may take."""
        minutes = configuration.stages[0].time_limit
        settings = SampleSettings(teacher=teacher, minutes=minutes, seed=configuration.seed)
        if self.frames is not None:
            settings = settings.model_copy(update={"count": self.frames})
        if not sample_visibly(starts, settings, output, quiet=quiet).n_frames:
            raise ValueError(
                f"no frame was labelled in {minutes:g} minutes: raise --time-limit, or take a faster teacher"
            )


def _check(configuration: TrainingConfiguration, *, quiet: bool) -> None:
    """Read all frames of the second training, whose mistakes would show only after the first; show warnings."""
    if not quiet:
        say("reading the frames of the training that follows")
    prepared = prepare(configuration)
    if not quiet:
        for line in describe(prepared):
            if line.startswith("warning: "):
                say(line)
