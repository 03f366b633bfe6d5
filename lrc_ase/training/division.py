"""Choice of validation frames: at random, or in blocks where frames follow each other in a trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrc_ase.dataset import LabelledFrame, consecutive_runs, split_indices
from lrc_ase.files.counted import counted

__all__ = ["Division", "divide"]

_FEWEST_IN_A_BLOCK = 5
"""Smallest number of frames of a validation block in a run that is long enough for several blocks."""
_MOST_BLOCKS = 5
"""Largest number of blocks in one run of consecutive frames."""
_GAP = 0.2
"""Number of frames left out on either side of a block, as a fraction of its length."""


@dataclass(frozen=True)
class Division:
    """Indices of the frames to train on and of the frames to validate on."""

    train: list[int]
    validation: list[int]
    text: str
    """Description of the choice."""


def divide(frames: Sequence[LabelledFrame], fraction: float, seed: int) -> Division:
    """Set `fraction` of the frames aside for validation.

    Neighbors in a trajectory are alike, so that a frame between two training frames is no test of the model.
    Consecutive frames are therefore divided by contiguous blocks at random places. The frames of a gap on either side
    of a block are used for neither. All other frames are divided at random.
    """
    runs = consecutive_runs(frames) if fraction > 0 and len(frames) > 1 else []
    generator = np.random.default_rng([seed, 0xB10C])
    role = np.zeros(len(frames), dtype=int)  # 0: training, 1: validation, 2: left out
    n_blocks = 0
    short = [run for run in runs if round(fraction * len(run)) < _FEWEST_IN_A_BLOCK]
    if fraction * len(short) >= 1:  # enough of them to set whole runs aside
        for index in generator.permutation(len(short))[: round(fraction * len(short))]:
            role[list(short[index])] = 1
            n_blocks += 1
        runs_to_cut = [run for run in runs if run not in short]
    else:
        runs_to_cut = runs
    for run in runs_to_cut:
        for start, stop in _blocks(len(run), fraction, generator):
            gap = max(round(_GAP * (stop - start)), 1)
            low, high = run.start + start, run.start + stop
            role[low:high] = 1
            around = role[max(low - gap, run.start) : min(high + gap, run.stop)]
            around[around == 0] = 2  # a gap ends where the next block begins
            n_blocks += 1
    rest = np.setdiff1d(np.arange(len(frames)), np.concatenate([np.arange(0), *runs]).astype(int))
    if len(rest):
        chosen = split_indices(len(rest), fraction, seed)[1] if len(rest) > 1 or not runs else []
        role[rest[chosen]] = 1
    train, validation, between = (np.flatnonzero(role == part).tolist() for part in range(3))
    if not train or not validation:
        train, validation = split_indices(len(frames), fraction, seed)
        return Division(train, validation, "chosen at random among all" if validation else "none")
    parts = []
    if n_blocks:
        in_runs = sum(len(run) for run in runs)
        parts.append(
            f"{in_runs} frames are consecutive: {counted(n_blocks, 'block')} of them to validate on, "
            f"{len(between)} frames beside the blocks left out"
        )
    if len(rest):
        parts.append(f"chosen at random among {'the others' if n_blocks else 'all'}")
    return Division(train, validation, "; ".join(parts))


def _blocks(length: int, fraction: float, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Return begin and end of the validation blocks in a run of consecutive frames, one block in each equal part."""
    n_validation = max(round(fraction * length), 1)
    n_blocks = min(max(n_validation // _FEWEST_IN_A_BLOCK, 1), _MOST_BLOCKS)
    edges = np.linspace(0, length, n_blocks + 1).round().astype(int)
    sizes = np.diff(np.linspace(0, n_validation, n_blocks + 1).round().astype(int))
    starts = [
        int(generator.integers(low, max(high - size, low) + 1))
        for low, high, size in zip(edges[:-1], edges[1:], sizes, strict=True)
    ]
    return [(start, start + int(size)) for start, size in zip(starts, sizes, strict=True)]
