"""Recognition of frames that follow each other in a trajectory.

Consecutive frames resemble each other more than frames further apart. A validation set that is drawn from between its
training frames therefore looks better than it is, and has to be split off in blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from ase import Atoms
from scipy.linalg import orthogonal_procrustes
from scipy.special import bdtrc

from lrc_ase.dataset.labels import LabelledFrame

__all__ = ["consecutive_runs", "displacements"]

_LAGS = (2, 3, 5, 8, 13)
"""Lags at which frames count as far apart, without common divisor: no vibration returns at all of them."""
_NEAR = 0.7
"""Share of the distance between far frames below which a step is a small one. Frames in random order have 1 on average;
a harmonic vibration has 0.7 where its autocorrelation has fallen to one half."""
_WINDOW = 5
"""Steps over which the median is taken, so that one large step of a trajectory does not end a run."""
_SIGNIFICANCE = 0.001
"""Expected number of runs per set that frames in random order would show."""


def consecutive_runs(frames: Sequence[LabelledFrame]) -> list[range]:
    """Return the ranges of indices whose frames are consecutive pieces of a trajectory.

    Two neighbors in the sequence belong to one run if they hold the same atoms in the same order, and if the step
    between them is small against steps to frames two to thirteen places away. Rattled, shuffled or unrelated structures
    have steps of the same length at any distance and form no runs. Runs that chance would produce are left out. To
    stand out, a run needs about seven frames, and fifteen of a diatomic molecule.

    A step is the root mean square displacement to the nearest periodic image, without drift. Of three or more atoms in
    open space the rotation is removed too. Frames may be `Lazy`: each is read once, and fourteen are held at a time.

    Returns
    -------
    runs
        Ranges in ascending order, without overlap, each of two frames or more.
        An empty list if the order of the frames carries no information.
    """
    runs = []
    for segment, steps in _segments(frames):
        ratios, chance = _ratios(steps)
        for start, stop in _true_stretches(_links(ratios)):
            # probability that random order gives at least as many small steps, times the places where a run may begin
            n_near = int((ratios[start:stop] < _NEAR).sum())
            if bdtrc(n_near - 1, stop - start, chance) * len(frames) < _SIGNIFICANCE:
                runs.append(range(segment + start, segment + stop + 1))
    return runs


def displacements(one: Atoms, two: Atoms) -> np.ndarray:
    """Compute the displacements (n_atoms, 3) from `one` to `two` in Angstrom, to the nearest periodic image.

    Positions are compared in fractional coordinates along periodic directions, so that the strain between two cells
    does not count as displacement. Correct for displacements below half a cell.
    """
    if not one.pbc.any():
        return np.asarray(two.positions - one.positions)
    cell = one.cell.complete().array
    step = two.positions @ np.linalg.inv(two.cell.complete().array) - one.positions @ np.linalg.inv(cell)
    step[:, one.pbc] -= np.round(step[:, one.pbc])
    return np.asarray(step @ cell)


def _segments(frames: Sequence[LabelledFrame]) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
    """Yield the first index of each stretch of frames with the same atoms, and the lengths of its steps by lag.

    Step i of lag k leads from frame i to frame i + k of the stretch.
    """
    lags = (1, *_LAGS)
    recent: deque[Atoms] = deque(maxlen=max(lags) + 1)  # most recent frame last
    steps: dict[int, list[float]] = {lag: [] for lag in lags}
    first = 0
    for index in range(len(frames)):
        atoms = frames[index].atoms
        if recent and not _comparable(recent[-1], atoms):
            yield first, {lag: np.array(lengths) for lag, lengths in steps.items()}
            recent.clear()
            steps = {lag: [] for lag in lags}
            first = index
        recent.append(atoms)
        for lag in lags:
            if lag < len(recent):
                steps[lag].append(_step_length(recent[-1 - lag], atoms))
    yield first, {lag: np.array(lengths) for lag, lengths in steps.items()}


def _comparable(one: Atoms, two: Atoms) -> bool:
    """Return True for the same elements in the same order under the same boundaries."""
    return np.array_equal(one.numbers, two.numbers) and np.array_equal(one.pbc, two.pbc)


def _step_length(one: Atoms, two: Atoms) -> float:
    """Return the root mean square displacement without drift and turns, Angstrom; infinite unless it is finite."""
    if not len(one):
        return 0.0
    try:
        step = displacements(one, two)
        if not one.pbc.any() and len(one) > 2:
            before, after = (atoms.positions - atoms.positions.mean(axis=0) for atoms in (one, two))
            # a free molecule turns slowly even where its shapes are unlike; mirror images have the same energy
            step = after @ orthogonal_procrustes(after, before)[0] - before
    except (np.linalg.LinAlgError, ValueError):  # a cell without volume, or positions that are not finite
        return float("inf")  # unknown: no link
    length = float(np.sqrt(np.mean(np.sum((step - step.mean(axis=0)) ** 2, axis=1))))
    return length if np.isfinite(length) else float("inf")


def _ratios(steps: dict[int, np.ndarray]) -> tuple[np.ndarray, float]:
    """Return the length of each step relative to the median step to farther frames, and the chance of small ratios.

    The chance is the share of ratios below `_NEAR` among the steps of lag 3 and above. Steps of lag 1 would have the
    same share if the order carried no information.
    """
    n_frames = len(steps[1]) + 1
    far = np.full((n_frames, 2 * len(_LAGS)), np.nan)  # of each frame: steps forwards and backwards
    for column, lag in enumerate(_LAGS):
        lengths = steps[lag]
        far[: len(lengths), 2 * column] = lengths
        far[n_frames - len(lengths) :, 2 * column + 1] = lengths
    if n_frames < 3:
        return np.full(n_frames - 1, np.inf), 1.0
    known = np.isfinite(far).any(axis=1)
    reference = np.full(n_frames, np.nan)
    reference[known] = np.nanmedian(far[known], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # equal frames: 0 / 0 is a ratio of 0
        ratios = steps[1] / np.fmax(reference[:-1], reference[1:])
        distant = np.concatenate([steps[lag] / reference[: len(steps[lag])] for lag in _LAGS[1:]])
    ratios = np.where(steps[1] == 0, 0.0, np.nan_to_num(ratios, nan=np.inf))
    distant = distant[np.isfinite(distant)]
    return ratios, (1 + int((distant < _NEAR).sum())) / (1 + len(distant))


def _links(ratios: np.ndarray) -> np.ndarray:
    """Return a mask of the steps that link two frames: small in the median of a window, and no jump themselves."""
    half = _WINDOW // 2
    jumps = ratios > 1
    smooth = np.empty(len(ratios))
    for step in range(len(ratios)):
        low, high = max(step - half, 0), min(step + half + 1, len(ratios))
        near = ratios[low:high][~jumps[low:high]]  # a jump between two trajectories is not the step of either
        smooth[step] = np.median(near) if len(near) else np.inf
    return np.asarray((smooth < _NEAR) & ~jumps)


def _true_stretches(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return begin and end of each stretch of True.

    >>> _true_stretches(np.array([False, True, True, False, True]))
    [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(int(start), int(stop)) for start, stop in pairwise(edges)][::2]
