r"""Checks of energies against forces and stresses over pairs of frames that lie near each other, in any order.

Between two frames of the same atoms the energy changes by the work of forces and stress,

.. math::

    E_2 - E_1 = -\tfrac12 (F_1 + F_2) \cdot \Delta x
    + \tfrac12 (V_1 \sigma_1 + V_2 \sigma_2) : \epsilon + O(\Delta x^3),

which is the trapezoid rule: exact for a harmonic energy. Its error is about
:math:`|\Delta F \cdot \Delta x|\, a\, s / 12`, with :math:`a \approx 5` per Angstrom the ratio of third and second
derivatives of bonds and s the largest displacement. Pairs are weighted by the inverse of that error, and those with
displacements above 0.5 Angstrom are left out.

A force component without a label, such as that of an atom held by a constraint, does no work while it does not move.
Pairs of frames in which such a component moves are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase.units import Bohr, GPa, Hartree, Rydberg, kcal, kJ, mol

from lrc_ase.dataset.check import Check, nearest_meaning, slope_and_correlation
from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.files.counted import counted
from lrc_ase.structures.charge import total_charge

__all__ = ["STRESS_SLOPES", "energies_against_forces", "energies_against_stresses", "near_pairs"]

_LARGEST_STEPS = 0.5, 0.3, 0.2
"""Angstrom: pairs up to the first, or the next if the first ones do not correlate."""
_LARGEST_STRAIN = 0.08
_AT_REST = 1e-4
"""Angstrom: steps of components without a label up to which their work is neglected."""
_ANHARMONICITY = 5.0 / 12
"""Error of the trapezoid rule per curvature and step, 1/Angstrom."""
_FEWEST_PAIRS = 5
_LARGEST_GROUP = 100
"""Frames of the same atoms of which all pairs are looked at."""
_LEAST_CORRELATION = 0.8
_FITS = 0.5, 1.5
"""Range of slopes that are no reason for doubt: anharmonic terms reduce the slope of far pairs to 0.6."""
_TOLERANCE = 0.45
"""Logarithmic distance up to which a slope is ascribed to a unit; units whose factors lie near 1 need `_STRICT`."""
_STRICT = 0.05
"""Relative error of the trapezoid rule in pairs that tell factors of Bohr (1.89, 0.53) from anharmonic terms."""
_SLOPES = {
    "the energies are in kcal/mol, or the forces in eV/Angstrom where the energies are not": mol / kcal,
    "the forces are in kcal/mol/Angstrom but the energies in eV": kcal / mol,
    "the energies are in kJ/mol": mol / kJ,
    "the energies are in Hartree but the forces in eV/Angstrom": 1 / Hartree,
    "the energies are in Rydberg but the forces in eV/Angstrom": 1 / Rydberg,
    "the forces are in Hartree/Bohr but the energies in eV": Hartree / Bohr,
    "the forces are in Rydberg/Bohr but the energies in eV": Rydberg / Bohr,
    "the forces are gradients: their sign is wrong": -1.0,
}
"""Meaning of slopes between the change of the energy and the work of the forces."""
_BOHR_SLOPES = {
    "energies and forces are in atomic units (Hartree, Hartree/Bohr) but positions in Angstrom": 1 / Bohr,
    "positions are in Bohr but forces per Angstrom": Bohr,
}
STRESS_SLOPES = {
    f"the stress is {unit}{sign}": factor * direction
    for unit, factor in {"in GPa": 1 / GPa, "in kbar": 10 / GPa, "in bar": 1e4 / GPa}.items()
    for sign, direction in {"": 1, ", with the opposite sign": -1}.items()
} | {"the stress has the opposite sign: positive in tension is expected": -1.0}
"""Meaning of slopes between the work of the stress and the change of the energy."""


def energies_against_forces(frames: Sequence[LabelledFrame]) -> Check:
    """Compare changes of the energy with the work of the forces over pairs of near frames in equal cells."""
    subject = "energies against forces"
    if sum(map(_has_energy_and_forces, frames)) < 2:
        return Check(subject, obstacle="fewer than two frames have both energy and forces")
    rows = near_pairs(frames)
    if len(rows) < _FEWEST_PAIRS:
        return Check(
            subject,
            obstacle=f"{counted(len(rows), 'pair of frames')} of the same atoms and cell within "
            f"{_LARGEST_STEPS[0]:g} Angstrom, {_FEWEST_PAIRS} are needed",
        )
    samples = np.array(rows).T
    for largest in _LARGEST_STEPS:
        near = samples[:, samples[4] < largest]
        if near.shape[1] < _FEWEST_PAIRS:
            break
        change, work, error, n_atoms = near[:4]
        slope, correlation = _regression(change, work, error)
        # an error that is small by chance may let one pair decide alone
        others = np.arange(len(work)) != np.argmax(np.abs(work) / (error + 1e-9))
        _, correlation_of_others = _regression(change[others], work[others], error[others])
        if min(correlation * correlation_of_others, correlation**2) > _LEAST_CORRELATION**2:
            return _verdict_on_energies(change, work, error, n_atoms, slope)
    return Check(subject, obstacle=f"the {len(rows)} nearest pairs of frames are too far apart for a verdict")


def _verdict_on_energies(
    change: np.ndarray, work: np.ndarray, error: np.ndarray, n_atoms: np.ndarray, slope: float
) -> Check:
    """Return the check for a slope between the change of the energy and the work of the forces."""
    subject, basis = "energies against forces", counted(len(change), "pair of near frames")
    fits = _FITS[0] < slope < _FITS[1]
    meaning = None if fits else nearest_meaning(slope, _energy_slopes(n_atoms), _TOLERANCE)
    # pairs near enough to tell factors of 1.9 from anharmonic terms
    exact = error < _STRICT * np.abs(work)
    if meaning is None and exact.sum() >= _FEWEST_PAIRS:
        exact_slope = float(np.median(change[exact] / work[exact]))
        meaning = nearest_meaning(exact_slope, _BOHR_SLOPES, _STRICT)
        slope = exact_slope if meaning else slope
    if meaning:
        text = f"energies change by {slope:.3g} times the work of the forces between frames: {meaning}"
        return Check(subject, basis, warning=text)
    if not _FITS[0] < slope < _FITS[1]:
        return Check(subject, obstacle=f"{basis} have a slope of {slope:.3g}, which is that of no known unit")
    return Check(subject, basis)


def _energy_slopes(n_atoms: np.ndarray) -> dict[str, float]:
    """Return the meaning of slopes between energy and work for frames of `n_atoms` (n_pairs,) atoms."""
    if n_atoms.min() < 3:  # 1 / 2 is no clear slope
        return _SLOPES
    return _SLOPES | {"the energies are per atom: total energies are expected": float(np.mean(1 / n_atoms))}


def energies_against_stresses(frames: Sequence[LabelledFrame]) -> Check:
    """Compare changes of the energy with the work of the stress over pairs of frames in different cells."""
    subject = "energies against stresses"
    labelled = [frame for frame in frames if _has_energy(frame) and np.isfinite([*frame.forces, *frame.stress]).all()]
    if not labelled:
        return Check(subject, obstacle="no frame has energy, stress and the forces on all atoms")
    rows = [row for group in _groups(labelled, with_cell=False) for row in _strains(group)]
    if len(rows) < _FEWEST_PAIRS:
        return Check(subject, obstacle="too few pairs of frames of the same atoms in slightly different cells")
    change, work_of_forces, work, error, n_atoms = np.array(rows).T
    basis = counted(len(rows), "pair of near cells")
    slope, correlation = _regression(work, change - work_of_forces, error)  # of the stress: 160 if it is in GPa
    doubtful = abs(correlation) > _LEAST_CORRELATION and not _FITS[0] < slope < _FITS[1]
    if doubtful and (meaning := nearest_meaning(slope, STRESS_SLOPES, _TOLERANCE)):
        text = f"the work of the stress is {slope:.3g} times the change of energies between cells: {meaning}"
        return Check(subject, basis, warning=text)
    slope, correlation = _regression(change, work + work_of_forces, error)
    if abs(correlation) < _LEAST_CORRELATION:
        return Check(subject, obstacle=f"the {basis} are too far apart for a verdict")
    if _FITS[0] < slope < _FITS[1]:
        return Check(subject, basis)
    if meaning := nearest_meaning(slope, _energy_slopes(n_atoms), _TOLERANCE):
        text = f"energies change by {slope:.3g} times the work of forces and stress between cells: {meaning}"
        return Check(subject, basis, warning=text)
    return Check(subject, obstacle=f"the {basis} have a slope of {slope:.3g}, which is that of no known unit")


def near_pairs(frames: Sequence[LabelledFrame]) -> list[tuple[float, ...]]:
    """Return the pairs of frames of the same atoms and cell that lie within 0.5 Angstrom.

    Each pair holds the change of the energy, the work of the forces and the error of the work in eV, the number of
    atoms, the largest step of an atom in Angstrom, and a number for each of the two frames.
    """
    rows: list[tuple[float, ...]] = []
    n_frames = 0
    for group in _groups([frame for frame in frames if _has_energy_and_forces(frame)], with_cell=True):
        rows += [(*row, n_frames + one, n_frames + two) for *row, one, two in _steps(group)]
        n_frames += len(group)
    return rows


def _has_energy_and_forces(frame: LabelledFrame) -> bool:
    """Return True for a frame of several atoms with an energy and forces on some of them."""
    return _has_energy(frame) and bool(np.isfinite(frame.forces).any())


def _has_energy(frame: LabelledFrame) -> bool:
    """Return True for a frame of several atoms with an energy."""
    return len(frame.atoms) > 1 and bool(np.isfinite(frame.energy))


def _regression(response: np.ndarray, cause: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """Return the slope through the origin and the correlation, with samples weighted by the inverse of their error."""
    # the added terms keep a pair of almost equal frames from deciding alone
    weight = 1 / (error + 1e-9 + 1e-3 * np.median(error))
    return slope_and_correlation(cause * weight, response * weight)


def _groups(frames: Sequence[LabelledFrame], *, with_cell: bool) -> Iterator[list[LabelledFrame]]:
    """Yield groups of frames of the same atoms, boundary and charge, and `with_cell` of the same cell.

    A group holds at most `_LARGEST_GROUP` frames.
    """
    groups: dict[tuple[object, ...], list[LabelledFrame]] = {}
    for frame in frames:
        atoms = frame.atoms
        cell = atoms.cell.array.round(6).tobytes() if with_cell and atoms.pbc.any() else b""
        key = (atoms.numbers.tobytes(), atoms.pbc.tobytes(), total_charge(atoms), cell)
        groups.setdefault(key, []).append(frame)
    for group in groups.values():
        if len(group) > 1:
            yield group[:_LARGEST_GROUP]  # the first ones: neighbors of a trajectory stay together


def _steps(group: Sequence[LabelledFrame]) -> Iterator[tuple[float, float, float, int, float, int, int]]:
    """Yield change, work of the forces, error of the work, number of atoms, largest step and both frames of a pair."""
    first = group[0].atoms
    energies = np.array([frame.energy for frame in group])
    positions = np.array([frame.atoms.positions for frame in group])
    forces = np.array([frame.forces for frame in group])
    unlabelled = np.isnan(forces)
    free = not unlabelled.any()  # held atoms do not follow a common translation or rotation
    forces[unlabelled] = 0
    if free and not first.pbc.any():
        positions = positions - positions.mean(axis=1, keepdims=True)
        for index in range(1, len(group)):  # molecules may be turned against each other
            rotation = _rotation(positions[0], positions[index])
            positions[index], forces[index] = positions[index] @ rotation, forces[index] @ rotation
    cell = first.cell.complete().array
    inverse = np.linalg.inv(cell)
    for index in range(len(group) - 1):
        step = positions[index + 1 :] - positions[index]
        if first.pbc.any():
            # the nearest image; open directions have none
            fractional = step @ inverse
            fractional[..., first.pbc] -= np.round(fractional[..., first.pbc])
            step = fractional @ cell
            step = step - free * step.mean(axis=1, keepdims=True)
        work = -0.5 * ((forces[index + 1 :] + forces[index]) * step).sum(axis=(1, 2))
        curvature = np.abs(((forces[index + 1 :] - forces[index]) * step).sum(axis=(1, 2)))
        largest = np.linalg.norm(step, axis=2).max(axis=1)
        change = energies[index + 1 :] - energies[index]
        moved = (np.abs(step) > _AT_REST) & (unlabelled[index + 1 :] | unlabelled[index])
        known = ~moved.any(axis=(1, 2))
        for pair in np.flatnonzero((largest < _LARGEST_STEPS[0]) & (largest > 0) & known):
            error = _ANHARMONICITY * largest[pair] * curvature[pair]
            step_size = float(largest[pair])
            frames_of_pair = index, index + 1 + int(pair)
            yield float(change[pair]), float(work[pair]), float(error), len(first), step_size, *frames_of_pair


def _rotation(target: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the matrix (3, 3) that, multiplied from the right, rotates centered `positions` onto `target` (Kabsch)."""
    left, _, right = np.linalg.svd(positions.T @ target)
    # without the sign the best match of a molecule may be its mirror image
    handedness = np.sign(np.linalg.det(left @ right))
    return np.asarray(left @ np.diag([1.0, 1.0, handedness]) @ right)


def _strains(group: Sequence[LabelledFrame]) -> Iterator[tuple[float, float, float, float, int]]:
    """Yield energy change, work of forces, work of stress, error and number of atoms of each pair of near cells."""
    for index, one in enumerate(group):
        cell = one.atoms.cell.array
        volume = one.atoms.get_volume()
        fractional = one.atoms.get_scaled_positions(wrap=False)
        for two in group[index + 1 :]:
            # rows of a cell are deformed from the right; a rotation of the cell does no work
            gradient = np.linalg.inv(cell) @ two.atoms.cell.array - np.eye(3)
            strain = (gradient + gradient.T) / 2
            if not 1e-4 < np.abs(gradient).max() < _LARGEST_STRAIN:
                continue
            step = two.atoms.get_scaled_positions(wrap=False) - fractional
            step = (step - np.round(step)) @ ((cell + two.atoms.cell.array) / 2)
            step -= step.mean(axis=0)  # a common translation costs no energy
            if (largest := float(np.linalg.norm(step, axis=1).max())) > _LARGEST_STEPS[0]:
                continue
            stresses = volume * one.stress, two.atoms.get_volume() * two.stress
            work = 0.5 * float(((stresses[0] + stresses[1]) * strain).sum())
            work_of_forces = -0.5 * float(((one.forces + two.forces) * step).sum())
            error = abs(float(((two.forces - one.forces) * step).sum())) * _ANHARMONICITY * largest
            error += abs(two.energy - one.energy - work_of_forces) * float(np.abs(strain).max())
            yield two.energy - one.energy, work_of_forces, work, error, len(step)
