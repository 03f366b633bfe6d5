"""Checks for frames that stand out from their set: outlying forces and energies, net forces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrc_ase.dataset.check import Check
from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.dataset.theory_levels import check_level
from lrc_ase.files.counted import counted

__all__ = ["check_outliers", "far_from_others", "force_noise", "net_forces"]

_SHOWN = 4
"""Number of frames that a message names."""
_FEWEST = 4
"""Smallest number of frames (of one composition) among which an outlier can be detected."""


def check_outliers(frames: Sequence[LabelledFrame]) -> list[Check]:
    """Look for frames with outlying forces or energies, for net forces, two levels of theory and equal energies."""
    checks = [_outlying_forces(frames), _outlying_energies(frames), _net(frames), check_level(frames)]
    energies = np.array([frame.energy for frame in frames])
    if len(frames) > 2 and np.isfinite(energies).all() and np.ptp(energies) == 0:
        text = "all energies are the same: they were filled in, not computed"
        checks.append(Check("filled-in energies", counted(len(frames), "frame"), warning=text))
    return checks


def far_from_others(values: np.ndarray) -> np.ndarray:
    """Return a mask of the non-negative values that lie far beyond all others.

    Up to a fifth of the values count as far if the smallest of them exceeds ten times the median and 3 + 100 / n times
    the 95% quantile of the rest. The quantile of the rest, not of all n, keeps an outlier of a small set from hiding
    itself; the factor grows because a quantile of few values says little about their tail.

    >>> far_from_others(np.array([1.0, 2.0, 1.5, 90.0, 1.0]))
    array([False, False, False,  True, False])
    """
    order = np.argsort(-values)
    factor = 3 + 100 / max(len(values), 1)
    n_far = 0
    for count in range(1, max(len(values) // 5, 1) + 1):
        rest = values[order[count:]]
        if len(rest) + 1 < _FEWEST:
            break
        middle, high = np.quantile(rest, [0.5, 0.95])
        if values[order[count - 1]] > max(10 * middle, factor * high, 1e-6):
            n_far = count
        elif count > 50:  # far values of large sets come before the bulk, not inside it
            break
    far = np.zeros(len(values), dtype=bool)
    far[order[:n_far]] = True
    return far


def net_forces(frames: Sequence[LabelledFrame]) -> np.ndarray:
    """Return the norm of the summed forces of each frame, eV/Angstrom; NaN where an atom has no label."""
    return np.array([np.linalg.norm(frame.forces.sum(axis=0)) for frame in frames])


def force_noise(frames: Sequence[LabelledFrame]) -> float:
    r"""Return the noise of the force components, eV/Angstrom, that net forces reveal; NaN without frames that tell.

    .. math:: \sigma^2 = \tfrac13 \sum_s \Big|\sum_{i \in s} F_i\Big|^2 \Big/ \sum_s N_s

    over frames s of more than one atom with all labels. If atoms err independently of each other, this is the mean
    square error of the components, whichever atoms it sits on. The forces of a model sum to zero: against these
    labels its root mean square error is no smaller.
    """
    known = [frame for frame in frames if len(frame.atoms) > 1 and np.isfinite(frame.forces).all()]
    if not known:
        return float("nan")
    return float(np.sqrt(np.mean(net_forces(known) ** 2) / 3 / np.mean([len(frame.atoms) for frame in known])))


def _outlying_forces(frames: Sequence[LabelledFrame]) -> Check:
    """Compare the largest force component of each frame with those of the others."""
    subject = "forces far from the others"
    labelled = [frame for frame in frames if len(frame.atoms) > 1 and np.isfinite(frame.forces).any()]
    if len(labelled) < _FEWEST:
        return Check(subject, obstacle=f"fewer than {_FEWEST} frames have forces")
    largest = np.array([np.nanmax(np.abs(frame.forces)) for frame in labelled])
    far = np.flatnonzero(far_from_others(largest))
    basis = counted(len(labelled), "frame")
    if not len(far):
        return Check(subject, basis)
    names = _names([labelled[index].name for index in far[np.argsort(-largest[far])]])
    text = f"forces far from the others, up to {largest.max():.3g} eV/Angstrom: {names}"
    return Check(subject, basis, warning=text)


def _outlying_energies(frames: Sequence[LabelledFrame]) -> Check:
    """Compare the energy per atom with the median of its composition, in units of the spread."""
    subject = "energies far from the others"
    compositions: dict[object, list[LabelledFrame]] = {}
    for frame in frames:
        if np.isfinite(frame.energy) and len(frame.atoms):
            # molecules of one formula may be isomers, which the order of their atoms tells apart
            formula = frame.atoms.get_chemical_formula()
            key = formula if frame.atoms.pbc.any() else frame.atoms.numbers.tobytes()
            compositions.setdefault(key, []).append(frame)
    groups = [group for group in compositions.values() if len(group) >= _FEWEST]
    if not groups:
        return Check(subject, obstacle=f"fewer than {_FEWEST} frames of equal compositions have an energy")
    outliers: list[tuple[float, str]] = []
    for group in groups:
        energies = np.array([frame.energy / len(frame.atoms) for frame in group])
        gaps = np.abs(energies - np.median(energies))
        outliers += [(float(gaps[index]), group[index].name) for index in np.flatnonzero(far_from_others(gaps))]
    basis = counted(sum(map(len, groups)), "frame")
    if not outliers:
        return Check(subject, basis)
    names = _names([name for _, name in sorted(outliers, reverse=True)])
    return Check(subject, basis, warning=f"energies per atom far from others of their composition: {names}")


def _net(frames: Sequence[LabelledFrame]) -> Check:
    """Compare net forces with the size of the forces."""
    subject = "net forces"
    net = net_forces(frames)
    known = [index for index, frame in enumerate(frames) if np.isfinite(net[index]) and len(frame.atoms) > 1]
    if not known:
        return Check(subject, obstacle="no frame has forces on all atoms")
    squares = np.concatenate([frames[index].forces.ravel() for index in known]) ** 2
    # independent errors of components add up to a net force that grows with the root of the number of atoms
    limits = np.array([0.02 * np.sqrt(squares.mean() * 3 * len(frames[index].atoms)) for index in known])
    strong = net[known][net[known] > np.maximum(limits, 1e-3)]
    basis = counted(len(known), "frame")
    if not len(strong):
        return Check(subject, basis)
    text = (
        f"forces do not sum to zero in {len(strong)} of {len(frames)} frames, by up to {strong.max():.3g} eV/Angstrom: "
        "noise in the labels, an outer field, or forces of fixed atoms that were set to zero. If it is noise, no model "
        f"has errors below {1e3 * force_noise(frames):.3g} meV/Angstrom on them"
    )
    return Check(subject, basis, warning=text)


def _names(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
