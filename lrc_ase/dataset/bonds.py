r"""Stiffness of the nearest-neighbor distances: unit and sign of forces from structures in any order.

Where a bond is longer than usual, forces pull its atoms together. The slope of the force along the bond against its
length, over many frames, is a force constant k. Badger's rule predicts it from the length r alone,

.. math:: k = 11.6 \,\mathrm{eV \, Angstrom} / (r - d)^3,

with d between 0 and 1.6 Angstrom by the rows of the two elements in the periodic table (R. M. Badger,
J. Chem. Phys. 2, 128 (1934), doi:10.1063/1.1749433). Of 60 sound sets, from argon to N2, the measured constant was 0.15
to 1.7 times the predicted one, so that factors of 23 (kcal/mol) and more show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii, vdw_radii

from lrc_ase.dataset.check import Check, slope_and_correlation
from lrc_ase.dataset.labelled_graphs import elements_of
from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.files.counted import counted
from lrc_ase.structures.neighbors import neighbor_graph

__all__ = ["BondConstant", "bond_constants", "contact_radii", "forces_against_bonds", "neighbor_distance"]

_LARGEST_SAMPLE = 6000
"""Number of atoms whose bonds are measured."""
_FEWEST_BONDS, _FEWEST_REPEATS = 8, 3
"""Smallest number of bonds of a pair of elements, and of frames that hold the same bond, for a slope."""
_LEAST_SPREAD, _LARGEST_CHANGE = 0.004, 0.2
"""Angstrom: bonds that vary less are rigid; those further from their mean count if there are no others."""
_LEAST_CORRELATION = {True: 0.6, False: 0.8}
"""Least correlation of force and length, for bonds that occur in several frames and for bonds that are only alike."""
_SOUND = 0.075, 3.0
"""Range of measured over predicted force constants that is no reason for doubt."""
_ROWS = (2, 10, 18, 36, 54, 86)
"""Last atomic numbers of the rows of the periodic table."""
_BADGER = np.array(
    [
        [0.025, 0.335, 0.585, 0.65, 0.65, 0.65],
        [0.335, 0.68, 0.94, 1.06, 1.18, 1.26],
        [0.585, 0.94, 1.25, 1.38, 1.47, 1.50],
        [0.65, 1.06, 1.38, 1.5, 1.55, 1.58],
        [0.65, 1.18, 1.47, 1.55, 1.6, 1.6],
        [0.65, 1.26, 1.50, 1.58, 1.6, 1.6],
    ]
)
"""d in Angstrom by the rows of the two elements; the first three rows are Badger's, the others rounded."""
_BADGER_CONSTANT = 1.86 * 6.2415
"""Constant of Badger's rule, eV Angstrom, from 1.86 mdyn Angstrom^2."""


def contact_radii() -> np.ndarray:
    """Return radii in Angstrom by atomic number: covalent radii, and van der Waals radii of noble gases."""
    radii = np.array(covalent_radii)
    for number in _ROWS:
        radii[number] = vdw_radii[number]
    return radii


@dataclass(frozen=True)
class BondConstant:
    """Force constant of the nearest-neighbor distance of two elements."""

    elements: tuple[int, int]
    """Atomic numbers, ascending."""
    constant: float
    """Measured from the forces, eV/Angstrom^2; negative if forces drive stretched bonds apart."""
    predicted: float
    """Prediction of Badger's rule, eV/Angstrom^2."""
    n_bonds: int


def bond_constants(frames: Sequence[LabelledFrame]) -> list[BondConstant]:
    """Measure the force constants of all pairs of elements whose bonds vary and whose forces follow."""
    by_pair: dict[tuple[int, int], list[np.ndarray]] = {}
    for (_, _, pair), samples in _bonds(frames).items():
        by_pair.setdefault(pair, []).append(np.array(samples))
    constants = []
    for pair, arrays in by_pair.items():
        if slope := _slope(arrays):
            length, constant, n_bonds = slope
            # at 0.25 Angstrom beyond d, half the length of N2, bonds are unphysically short
            predicted = _BADGER_CONSTANT / max(length - _badger_distance(*pair), 0.25) ** 3
            constants.append(BondConstant(pair, constant, predicted, n_bonds))
    return constants


def neighbor_distance(frame: LabelledFrame) -> float:
    """Return the mean distance of nearest neighbors in Angstrom; NaN without any or without forces."""
    lengths = [length for samples in _bonds([frame]).values() for length, _ in samples]
    return float(np.mean(lengths)) if lengths else float("nan")


def forces_against_bonds(constants: Sequence[BondConstant]) -> Check:
    """Compare measured force constants of bonds with predicted ones."""
    subject = "forces against bond lengths"
    if not constants:
        return Check(
            subject, obstacle="no forces, too few bonds of similar length, rigid bonds, or forces that do not follow"
        )
    basis = (
        f"{counted(sum(each.n_bonds for each in constants), 'bond')} of {counted(len(constants), 'pair of elements')}"
    )
    ratio = float(np.median([abs(each.constant) / each.predicted for each in constants]))
    doubts = []
    if np.mean([np.sign(each.constant) for each in constants]) < 0:
        doubts.append("stretched bonds are pushed apart: the forces are gradients, their sign is wrong")
    if ratio < _SOUND[0]:
        doubts.append(
            f"bonds are {ratio:.2g} times as stiff as usual: the forces may be in Hartree/Bohr or Rydberg/Bohr, "
            "not eV/Angstrom"
        )
    if ratio > _SOUND[1]:
        doubts.append(
            f"bonds are {ratio:.3g} times as stiff as usual: the forces may be in kcal/mol, kJ/mol or meV per "
            "Angstrom, not eV/Angstrom, or positions in Bohr"
        )
    return Check(subject, basis, warning="; ".join(doubts) or None)


def _bonds(
    frames: Sequence[LabelledFrame],
) -> dict[tuple[bytes, tuple[int, int], tuple[int, int]], list[tuple[float, float]]]:
    """Return length and force of the bond from each atom to its nearest neighbor.

    Keys are the elements of all atoms of the frame (as bytes), the indices of the two atoms, and their elements: bonds
    of different frames under one key are the same bond.
    """
    radii = contact_radii()
    bonds: dict[tuple[bytes, tuple[int, int], tuple[int, int]], list[tuple[float, float]]] = {}
    n_atoms = 0
    for frame in frames:
        atoms = frame.atoms
        if len(atoms) < 2 or not np.isfinite(frame.forces).any():
            continue
        if (n_atoms := n_atoms + len(atoms)) > max(_LARGEST_SAMPLE, len(atoms)):
            break
        try:
            graph = neighbor_graph(atoms, elements_of([atoms]), min(2.8 * radii[atoms.numbers].max(), 5.0))
        except ValueError:  # the table of the report tells why distances cannot be measured
            continue
        neighbors, shifts = graph.neighbors.numpy(), graph.shifts.numpy()
        positions, cell = graph.positions.numpy(), graph.cell[0].numpy()
        vectors = positions[neighbors] + shifts @ cell - positions[:, None]
        distances = np.linalg.norm(vectors, axis=-1)
        relative = distances / (radii[atoms.numbers][:, None] + radii[atoms.numbers[neighbors]])
        # no neighbor: padding, and images of the atom itself, which no force can move against it
        relative[~graph.neighbor_mask.numpy() | (neighbors == np.arange(len(atoms))[:, None])] = np.inf
        seen = set()
        for one, column in enumerate(relative.argmin(axis=1)):
            two = int(neighbors[one, column])
            key = min(one, two), max(one, two)
            if not np.isfinite(relative[one, column]) or key in seen or distances[one, column] == 0:
                continue
            seen.add(key)
            length = float(distances[one, column])
            # half the difference: the part that stretches the bond, without the motion of the pair as a whole
            force = float((frame.forces[two] - frame.forces[one]) @ vectors[one, column]) / (2 * length)
            if np.isfinite(force):
                low, high = sorted((int(atoms.numbers[one]), int(atoms.numbers[two])))
                bonds.setdefault((atoms.numbers.tobytes(), key, (low, high)), []).append((length, force))
    return bonds


def _slope(samples: Sequence[np.ndarray]) -> tuple[float, float, int] | None:
    """Return typical length, force constant and number of the bonds of a pair of elements, or None without a verdict.

    A bond that occurs in several frames is compared with its mean over frames: single and double bonds of one pair of
    elements have different lengths at rest.
    """
    repeated = [each - each.mean(axis=0) for each in samples if len(each) >= _FEWEST_REPEATS]
    together = np.concatenate(samples)
    length = float(np.median(together[:, 0]))
    centered = np.concatenate(repeated) if repeated else together - together.mean(axis=0)
    if len(centered) < _FEWEST_BONDS:
        return None
    # compressed bonds are many times as stiff: those near their mean length count
    order = np.argsort(np.abs(centered[:, 0]))
    n_near = int((np.abs(centered[:, 0]) < _LARGEST_CHANGE).sum())
    centered = centered[order[: max(n_near, _FEWEST_BONDS)]]
    lengths, forces = (centered - centered.mean(axis=0)).T
    if lengths.std() < _LEAST_SPREAD:
        return None
    slope, correlation = slope_and_correlation(lengths, forces)
    if abs(correlation) < _LEAST_CORRELATION[bool(repeated)]:
        return None
    # a stretched bond pulls its atoms together, a negative force: the sign makes its constant positive
    return length, -slope, len(centered)


def _badger_distance(one: int, two: int) -> float:
    """Return the distance d of Badger's rule for two atomic numbers, Angstrom."""
    rows = np.searchsorted(_ROWS, (one, two))
    return float(_BADGER[min(rows[0], 5), min(rows[1], 5)])
