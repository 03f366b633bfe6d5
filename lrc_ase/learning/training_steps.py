"""Trainings of active learning: which frames are held out, and how long each training is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrc_ase.dataset import Atoms
from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.potential_file import Potential, load_potential, save_potential
from lrc_ase.learning.label_store import exact_extxyz
from lrc_ase.learning.settings import LearnSettings, with_keys
from lrc_ase.models.ensemble import members_of
from lrc_ase.training import TrainingConfiguration, train
from lrc_ase.training.completion import default_batch_size
from lrc_ase.training.progress import EpochRecord
from lrc_ase.training.run_folder import RunFolder

__all__ = [
    "FINAL_STEPS",
    "FIRST_STEPS",
    "LARGEST_FORCE",
    "STEPS",
    "configuration_of",
    "divided",
    "epochs_of",
    "first_member",
    "number_held_out",
    "single_members",
    "train_on",
]

LARGEST_FORCE = 50.0
"""Frames with a larger force label, eV/Angstrom, are not trained on: one such frame would outweigh all others."""
FIRST_STEPS, STEPS, FINAL_STEPS = 500, 400, 2000
"""Steps of the first training, of those of later iterations, and of the final one."""
FEWEST_EPOCHS, MOST_EPOCHS = 10, 200
"""Epochs of a training on many, and on few frames, whatever the number of steps."""
_VALIDATIONS = 20
"""Number of validations of a training."""


def number_held_out(count: int, every: int) -> int:
    """Return how many of `count` new frames are held out: one in `every`, at least one of several."""
    return max(round(count / every), 1) if count > 1 else 0


def divided(
    labelled: Sequence[Atoms], known: Sequence[Atoms], every: int
) -> tuple[list[Atoms], list[Atoms], list[Atoms]]:
    """Divide frames into those to train on, those held out, and those left out for their forces.

    A frame of the loop is held out if its entry `held_out` says so, and one in `every` of the known frames. A frame
    that was held out once always is: weights are handed from one training to the next.
    """
    train_frames: list[Atoms] = []
    held_out: list[Atoms] = []
    left_out: list[Atoms] = []
    for index, atoms in enumerate(known):
        (held_out if index % every == every // 2 else train_frames).append(atoms)
    for atoms in labelled:
        if not np.linalg.norm(atoms.get_forces(apply_constraint=False), axis=1).max(initial=0.0) < LARGEST_FORCE:
            left_out.append(atoms)
        else:
            (held_out if atoms.info.get("held_out") else train_frames).append(atoms)
    if not train_frames:  # the teacher failed on all others
        train_frames, held_out = held_out, []
    if not held_out and len(train_frames) > 1:
        held_out.append(train_frames.pop())
    return train_frames, held_out, left_out


def epochs_of(n_epochs: int | None, n_steps: int, frames: Sequence[Atoms], settings: LearnSettings) -> int:
    """Return `n_epochs`; where that is None the epochs that make `n_steps`, `FEWEST_EPOCHS` to `MOST_EPOCHS`."""
    if n_epochs is not None:
        return n_epochs
    n_atoms = sum(map(len, frames)) / len(frames)
    stage = with_keys("frames.extxyz", settings.training.settings).stages[0]
    size = stage.batch_size or default_batch_size(len(frames), n_atoms)
    return min(max(math.ceil(n_steps / math.ceil(len(frames) / size)), FEWEST_EPOCHS), MOST_EPOCHS)


def configuration_of(
    settings: LearnSettings,
    folder: Path,
    *,
    epochs: int,
    members: int,
    start: Path | None,
) -> TrainingConfiguration:
    """Return the configuration of a training on `train.extxyz` and `held-out.extxyz` of `folder`.

    The user's keys are on top of the defaults, and those of the loop on top of both.
    """
    # members differ by their initial weights already, and frames are few: each leaves out fewer than usual
    defaults = {"leave_out": 0.1, "stages.validate_every": max(epochs // _VALIDATIONS, 1)}
    changes: dict[str, Any] = {"ensemble": members, "seed": settings.seed, "stages.epochs": epochs}
    if settings.n_threads is not None:
        changes["n_threads"] = settings.n_threads
    if start is not None:
        changes |= {"start": str(start.resolve()), "stages.learning_rate": settings.training.warm_learning_rate}
    data: dict[str, Any] = {"train": str(folder / "train.extxyz"), "validation_fraction": 0.0}
    if (folder / "held-out.extxyz").stat().st_size:
        data["validation"] = str(folder / "held-out.extxyz")
    return with_keys({"frames": data}, {**defaults, **settings.training.settings, **changes})


def train_on(
    train_frames: Sequence[Atoms],
    held_out: Sequence[Atoms],
    settings: LearnSettings,
    folder: Path,
    *,
    epochs: int,
    members: int,
    start: Path | None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Path:
    """Train in `folder`, or go on with the training that was interrupted there, and return the potential."""
    folder = folder.resolve()  # the configuration is read again from its own folder
    run = RunFolder(folder)
    if run.configuration.exists():
        return train(None, folder, resume=True, quiet=True, on_epoch=on_epoch)
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames in (("train", train_frames), ("held-out", held_out)):
        write_atomically(folder / f"{name}.extxyz", "".join(map(exact_extxyz, frames)).encode())
    configuration = configuration_of(settings, folder, epochs=epochs, members=members, start=start)
    return train(configuration, folder, quiet=True, on_epoch=on_epoch)


def single_members(potential: Potential) -> list[Potential]:
    """Return the members of an ensemble as potentials of their own."""
    return [Potential(member, potential.references, potential.description) for member in members_of(potential.model)]


def first_member(source: Path, target: Path) -> Path:
    """Write the first member of an ensemble to `target`, a start for the training of a single model."""
    save_potential(target, single_members(load_potential(source))[0])
    return target
