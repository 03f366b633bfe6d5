"""Check that the energies of a set have one zero: frames of two levels of theory differ by a constant per atom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from lrc_ase.dataset.check import Check
from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.dataset.near_frames import near_pairs
from lrc_ase.files.counted import counted

__all__ = ["check_level", "warn_of_levels"]

_FEWEST_PAIRS = 5
_TIMES_ERROR = 5.0
"""A change of the energy that differs from the work of the forces by more times the error of the work is a jump."""
_SMALLEST_JUMP = 1e-3
"""eV per atom."""
_SCATTER = 0.1
"""Median deviation of the jumps of one constant, relative to it. Jumps by noise or by wrong forces scatter more."""
_SAMPLE = 50
"""Frames of a set that are compared with those of another one."""
_REASON = (
    "as if some of the labels were of another level of theory (functional, energy cutoff, k-points, pseudopotentials) "
    "or magnetic state. A potential fits one of them only"
)


def check_level(frames: Sequence[LabelledFrame]) -> Check:
    """Look for jumps of the energy that the forces do not explain, all of one size, between near frames of a set."""
    subject = "one level of theory"
    rows = near_pairs(frames)
    if len(rows) < _FEWEST_PAIRS:
        return Check(subject, obstacle=f"{counted(len(rows), 'pair of near frames')}, {_FEWEST_PAIRS} are needed")
    basis = counted(len(rows), "pair of near frames")
    jumps = _jumps(rows)
    if len(jumps) < _FEWEST_PAIRS:
        return Check(subject, basis)
    jump = float(np.median(jumps))
    if np.median(np.abs(jumps - jump)) > _SCATTER * jump:
        return Check(subject, obstacle=f"energies do not follow forces in {len(jumps)} of the {basis}")
    text = (
        f"energies jump by {1e3 * jump:.3g} meV/atom in {len(jumps)} of {basis} while forces explain none of it, "
        f"{_REASON}"
    )
    return Check(subject, basis, warning=text)


def warn_of_levels(sets: Mapping[str, Sequence[LabelledFrame]]) -> list[str]:
    """Return a sentence for each two sets whose energies differ by a constant that the forces do not explain."""
    warnings = []
    for one, two in combinations(sets, 2):
        parts = [sets[name][:: max(len(sets[name]) // _SAMPLE, 1)] for name in (one, two)]
        if any(_jumps(near_pairs(part)).size >= _FEWEST_PAIRS for part in parts):
            continue  # the check of that set says so
        jumps = _jumps(near_pairs([*parts[0], *parts[1]]))
        jump = float(np.median(jumps)) if jumps.size else 0.0
        if len(jumps) >= _FEWEST_PAIRS and np.median(np.abs(jumps - jump)) <= _SCATTER * jump:
            warnings.append(
                f"energies jump by {1e3 * jump:.3g} meV/atom between near frames of {one} and {two} while forces "
                f"explain none of it, {_REASON}"
            )
    return warnings


def _jumps(rows: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Return the sizes of changes of the energy that are far from the work of the forces, eV per atom.

    Jumps to and from the frame with most of them count only if others remain: one wrong energy is no level of theory.
    """
    if not rows:
        return np.empty(0)
    change, work, error, n_atoms, _, one, two = np.array(rows).T
    residual = np.abs(change - work)
    jumps = residual > _TIMES_ERROR * error + _SMALLEST_JUMP * n_atoms
    if jumps.any():
        worst = np.bincount(np.concatenate([one[jumps], two[jumps]]).astype(int)).argmax()
        if not (jumps & (one != worst) & (two != worst)).any():
            return np.empty(0)
    return np.asarray((residual / n_atoms)[jumps])
