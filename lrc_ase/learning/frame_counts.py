"""Numbers of frames that follow from the size of the structures.

A frame of a molecule holds less to learn than one of a large cell, and costs less: counts that the settings leave open
are numbers of atoms, within bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lrc_ase.dataset import Atoms
from lrc_ase.learning.settings import LearnSettings

__all__ = ["with_counts"]

ATOMS_PER_ITERATION = 1024
"""Number of atoms in the frames of an iteration: 16 frames of 64 atoms."""
FEWEST_FRAMES, MOST_FRAMES = 16, 64
"""Bounds of the number of frames."""
FEWEST_SNAPSHOTS, CHOICE = 20, 4
"""Snapshots of a run of a walker, and snapshots of all walkers for each frame of an iteration."""
ITERATIONS = 12.5
"""Calls of the teacher as a number of iterations: 200 for the smallest number of frames."""


def with_counts(settings: LearnSettings, starts: Sequence[Atoms], n_known: int) -> LearnSettings:
    """Return settings in which numbers of frames, snapshots and calls that are None are filled in.

    Frames of an iteration and first frames hold about `ATOMS_PER_ITERATION` atoms. There are no first frames where
    there are as many known ones as an iteration labels.
    """
    n_atoms = sum(map(len, starts)) / len(starts)
    usual = min(max(round(ATOMS_PER_ITERATION / n_atoms), FEWEST_FRAMES), MOST_FRAMES)
    frames = usual if settings.frames_per_iteration is None else settings.frames_per_iteration
    calls = settings.budget.teacher_calls
    if calls is None:
        calls = round(ITERATIONS * usual)
    first = settings.first.count
    if first is None:
        first = 0 if n_known >= frames else usual
    snapshots = settings.exploration.snapshots
    if snapshots is None:
        n_walkers = max(settings.exploration.walkers, len(starts))
        snapshots = max(FEWEST_SNAPSHOTS, math.ceil(CHOICE * frames / n_walkers))
    return settings.model_copy(
        update={
            "exploration": settings.exploration.model_copy(update={"snapshots": snapshots}),
            "frames_per_iteration": frames,
            "budget": settings.budget.model_copy(update={"teacher_calls": calls}),
            "first": settings.first.model_copy(update={"count": first}),
        }
    )
