"""Checks of scale and sign of stresses: against forces across vacuum, bonds and volume, and by magnitude."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrc_ase.dataset.bonds import BondConstant, neighbor_distance
from lrc_ase.dataset.check import Check, centered, nearest_meaning, slope_and_correlation
from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.dataset.lazy import sample
from lrc_ase.dataset.near_frames import STRESS_SLOPES
from lrc_ase.files.counted import counted

__all__ = ["pressure_against_volume", "size_of_stresses", "stresses_against_bonds", "stresses_against_forces"]

_LEAST_GAP = 6.0
"""Angstrom of vacuum between a slab, wire or cluster and its images."""
_LEAST_CORRELATION = 0.8
_LEAST_CORRELATION_OF_BONDS = 0.6
_LARGEST_RATIO = 10.0
"""Change of stress times volume with the length of bonds, over force constant and length; 0.15 to 2.6 in sound sets."""
_FEWEST_FRAMES, _LARGEST_SAMPLE = 8, 60
_LARGEST_WORK = 20.0
"""eV per atom, stress times volume: some 150 GPa in a dense crystal."""
_LARGEST_MODULUS = 10.0
"""eV/Angstrom^3, 1600 GPa: three times the bulk modulus of diamond."""


def stresses_against_forces(frames: Sequence[LabelledFrame]) -> Check:
    r"""Compare stresses with virials across vacuum, :math:`V \sigma n = -\sum_i F_i\, (n \cdot x_i)`.

    The vector n is normal to a layer of vacuum. The length of the vacuum does not change the energy, so that a strain
    along n acts through the positions of the atoms alone.
    """
    subject = "stresses against forces across vacuum"
    virials, works = [], []
    for frame in frames:
        if not np.isfinite([*frame.stress, *frame.forces]).all() or len(frame.atoms) < 2:
            continue
        normals, heights = _across_vacuum(frame)
        if len(normals):
            virials.append((-heights @ frame.forces).ravel())
            works.append(frame.atoms.get_volume() * (normals @ frame.stress).ravel())
    if not virials:
        obstacle = f"no slab, wire or cluster with {_LEAST_GAP:g} Angstrom of vacuum has stress and all forces"
        return Check(subject, obstacle=obstacle)
    slope, correlation = slope_and_correlation(np.concatenate(virials), np.concatenate(works))
    basis = counted(len(virials), "frame")
    if abs(correlation) < _LEAST_CORRELATION:
        return Check(subject, obstacle=f"stress and virial of {basis} do not follow each other")
    meaning = None if 0.5 < slope < 2 else nearest_meaning(slope, STRESS_SLOPES, 0.4)
    if meaning:
        return Check(subject, basis, warning=f"stress times volume is {slope:.3g} times the virial: {meaning}")
    return Check(subject, basis)


def pressure_against_volume(frames: Sequence[LabelledFrame]) -> Check:
    """Compare stresses of different volumes: compression raises the pressure."""
    subject = "stresses against volume"
    groups: dict[str, list[tuple[float, float]]] = {}
    for frame in frames:
        if np.isfinite(frame.stress).all():
            # against the logarithm of the volume the slope of the stress is the bulk modulus
            volume = np.log(frame.atoms.get_volume() / len(frame.atoms))
            formula = frame.atoms.symbols.formula.reduce()[0].format("metal")
            groups.setdefault(formula, []).append((volume, float(np.trace(frame.stress)) / 3))
    large = [np.array(group) for group in groups.values() if len(group) > 4]
    if not large:
        return Check(subject, obstacle="fewer than five frames of equal compositions have a stress")
    volumes, stresses = centered(large)
    if volumes.std() < 0.01:
        return Check(subject, obstacle="volumes differ by less than 1%")
    modulus, correlation = slope_and_correlation(volumes, stresses)
    if abs(correlation) < _LEAST_CORRELATION:
        return Check(subject, obstacle="stress does not follow the volume")
    basis = counted(len(volumes), "frame")
    if modulus < 0:
        return Check(subject, basis, warning="compression lowers the pressure: the stress has the opposite sign")
    if modulus > _LARGEST_MODULUS:
        return Check(
            subject,
            basis,
            warning=f"stresses change with volume by {modulus:.3g}, stiffer than any solid in eV/Angstrom^3: GPa or "
            "kbar would give such numbers",
        )
    return Check(subject, basis)


def stresses_against_bonds(frames: Sequence[LabelledFrame], constants: Sequence[BondConstant]) -> Check:
    """Compare stresses with nearest-neighbor distances, which are longer under tension even in equal cells."""
    subject = "stresses against bond lengths"
    groups: dict[str, list[tuple[float, float]]] = {}
    for frame in sample([frame for frame in frames if np.isfinite(frame.stress).all()], _LARGEST_SAMPLE):
        length = neighbor_distance(frame)
        if np.isfinite(length):
            work = float(np.trace(frame.stress)) * frame.atoms.get_volume() / len(frame.atoms)
            groups.setdefault(frame.atoms.get_chemical_formula(), []).append((length, work))
    large = [np.array(group) for group in groups.values() if len(group) > 3]
    if sum(map(len, large)) < _FEWEST_FRAMES:
        return Check(
            subject, obstacle=f"fewer than {_FEWEST_FRAMES} frames of equal compositions have stress and forces"
        )
    lengths, works = centered(large)
    slope, correlation = slope_and_correlation(lengths, works)
    if abs(correlation) < _LEAST_CORRELATION_OF_BONDS:
        return Check(subject, obstacle="stress does not follow the bonds")
    basis = counted(len(lengths), "frame")
    if correlation < 0:
        text = "bonds are shorter under tension: the stress has the opposite sign, positive in tension is expected"
        return Check(subject, basis, warning=text)
    length = float(np.mean(np.concatenate([np.array(group)[:, 0] for group in groups.values()])))
    stiffness = float(np.mean([abs(each.constant) for each in constants])) * length if constants else np.inf
    ratio = slope / stiffness
    if ratio > _LARGEST_RATIO:
        text = f"stresses are {ratio:.3g} times those of the bonds: GPa, kbar or bar would give such numbers"
        return Check(subject, basis, warning=text)
    return Check(subject, basis)


def size_of_stresses(frames: Sequence[LabelledFrame]) -> Check:
    """Compare the work of stresses with energies of bonds."""
    subject = "size of stresses"
    works = [
        float(np.abs(frame.stress).max() * frame.atoms.get_volume() / len(frame.atoms))
        for frame in frames
        if np.isfinite(frame.stress).all()
    ]
    if not works:
        return Check(subject, obstacle="no frame has a stress")
    text = None
    if np.median(works) > _LARGEST_WORK:
        text = (
            f"stress times volume is {np.median(works):.3g} eV per atom: eV/Angstrom^3 is expected, GPa (160.2 times "
            "as large) or kbar would give such numbers"
        )
    return Check(subject, counted(len(works), "frame"), warning=text)


def _across_vacuum(frame: LabelledFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit normals (n, 3) of layers of vacuum, and heights (n, n_atoms) along them of the unwrapped atoms.

    Heights are in Angstrom, about their mean.
    """
    atoms = frame.atoms
    inverse = np.linalg.inv(atoms.cell.array)
    # distances between opposite faces: columns of the inverse cell are the normals over these distances
    distances = 1 / np.linalg.norm(inverse, axis=0)
    fractional = atoms.get_scaled_positions(wrap=True)
    normals, heights = [], []
    for axis in range(3):
        order = np.sort(fractional[:, axis])
        gaps = np.diff(np.append(order, order[0] + 1))
        widest = int(gaps.argmax())
        if gaps[widest] * distances[axis] < _LEAST_GAP:
            continue
        start = order[(widest + 1) % len(order)]  # the first atom behind the vacuum
        height = (fractional[:, axis] - start) % 1 * distances[axis]
        normals.append(inverse[:, axis] * distances[axis])
        heights.append(height - height.mean())
    return np.array(normals), np.array(heights)
