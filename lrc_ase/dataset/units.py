"""Units that look wrong: what labels in kcal/mol, Hartree or Bohr give away without anyone saying so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from ase.data import covalent_radii
from ase.units import Bohr, Hartree, Rydberg, kcal, kJ, mol

from lrc_ase.dataset.labels import LabelledFrame

__all__ = ["suspicious_units"]

_SLOPES = {
    "the energies are in kcal/mol, or the forces in eV/Angstrom where the energies are not": mol / kcal,
    "the forces are in kcal/mol/Angstrom but the energies in eV": kcal / mol,
    "the energies are in kJ/mol": mol / kJ,
    "the energies are in Hartree but the forces in eV/Angstrom": 1 / Hartree,
    "the energies are in Rydberg but the forces in eV/Angstrom": 1 / Rydberg,
    "the forces are in Hartree/Bohr but the energies in eV": Hartree / Bohr,
    "the forces are in Rydberg/Bohr but the energies in eV": Rydberg / Bohr,
    "energies and forces are in atomic units (Hartree, Hartree/Bohr) but positions in Angstrom": 1 / Bohr,
    "positions are in Bohr but forces per Angstrom": Bohr,
    "the forces are gradients: their sign is wrong": -1.0,
}
"""What it means when energies change by so many times the work of the forces."""
_TOTAL_ENERGIES = {"Hartree": 1 / Hartree, "Rydberg": 1 / Rydberg, "kcal/mol": mol / kcal, "kJ/mol": mol / kJ}
_FEWEST_STEPS, _LARGEST_STEP = 5, 0.5
"""Pairs of frames, and largest displacement between them in Angstrom, for comparing energies with work."""
_SAMPLE = 200


def suspicious_units(frames: Sequence[LabelledFrame]) -> Iterator[str]:
    """Sentences about units that do not look like eV and Angstrom; nothing where all is well or cannot be told."""
    for check in (_work, _total_energies, _distances, _forces, _stresses):
        if message := check(frames):
            yield message


def _work(frames: Sequence[LabelledFrame]) -> str | None:
    r"""Energies must change by the work of the forces, :math:`\Delta E = -\tfrac12 (F_1 + F_2) \cdot \Delta x`."""
    pairs = []
    for one, two in pairwise(frames):
        if not np.array_equal(one.atoms.numbers, two.atoms.numbers):
            continue
        if not np.array_equal(one.atoms.cell.array, two.atoms.cell.array):
            continue
        step = two.atoms.positions - one.atoms.positions
        done = -0.5 * float(((one.forces + two.forces) * step).sum())
        change = two.energy - one.energy
        if np.abs(step).max() < _LARGEST_STEP and math.isfinite(done + change):
            pairs.append((done, change, len(one.atoms)))
    if len(pairs) < _FEWEST_STEPS:
        return None
    work, changes, sizes = np.array(pairs).T
    if not work.any() or not changes.any():
        return None
    slope = float(changes @ work / (work @ work))
    correlation = slope * float(np.sqrt((work @ work) / (changes @ changes)))
    if abs(correlation) < 0.95 or 0.8 < slope < 1.25:
        return None
    meanings = dict(_SLOPES)
    if sizes.min() > 1:
        meanings["the energies are per atom: total energies are expected"] = float(np.mean(1 / sizes))
    meaning = min(meanings, key=lambda text: _distance(slope, meanings[text]))
    says = meaning if _distance(slope, meanings[meaning]) < 0.08 else "energies and forces do not belong together"
    return f"energies change by {slope:.3g} times the work of the forces between frames: {says}"


def _total_energies(frames: Sequence[LabelledFrame]) -> str | None:
    """All-electron energies follow a law of the nuclear charges (Thomas, Fermi, Scott, Schwinger) to some percent."""
    ratios = []
    for frame in frames[:_SAMPLE]:
        z = frame.atoms.numbers.astype(float)
        expected = -Hartree * float((0.768745 * z ** (7 / 3) - 0.5 * z**2 + 0.2699 * z ** (5 / 3)).sum())
        ratios.append(frame.energy / expected)
    ratio = float(np.nanmedian(ratios)) if np.isfinite(ratios).any() else math.nan
    for unit, factor in _TOTAL_ENERGIES.items():
        if _distance(ratio, factor) < 0.03:
            return f"the total energies are those of all electrons in {unit}: eV is expected"
    return None


def _distances(frames: Sequence[LabelledFrame]) -> str | None:
    """Nearest neighbors stand about as far as the sum of their covalent radii."""
    ratios = []
    for frame in frames[:: max(len(frames) // 20, 1)]:
        positions = frame.atoms.positions
        if not 1 < len(positions) <= 2000 or not np.isfinite(positions).all():
            continue
        distances = frame.atoms.get_all_distances(mic=bool(frame.atoms.pbc.all()))
        radii = covalent_radii[frame.atoms.numbers]
        relative = distances / (radii[:, None] + radii)
        np.fill_diagonal(relative, np.inf)
        ratios.extend(relative.min(axis=1))
    ratio = float(np.median(ratios)) if ratios else 1.0
    if ratio > 1.6:
        return f"nearest neighbors are {ratio:.2f} times their covalent distance apart: positions may be in Bohr"
    if ratio < 0.2:
        return f"nearest neighbors are {ratio:.2f} times their covalent distance apart: positions may be in nanometers"
    if ratio < 0.7:
        return (
            f"nearest neighbors are {ratio:.2f} times their covalent distance apart: positions may be converted twice"
        )
    return None


def _forces(frames: Sequence[LabelledFrame]) -> str | None:
    squares = np.concatenate([frame.forces.ravel() for frame in frames]) ** 2
    rms = math.sqrt(np.nanmean(squares)) if np.isfinite(squares).any() else math.nan
    if rms > 8:
        return (
            f"the root mean square force of {rms:.3g} is large for eV/Angstrom: kcal/mol/Angstrom, kJ/mol or meV "
            "would give such numbers"
        )
    if 0 < rms < 0.01:
        return (
            f"the root mean square force of {rms:.3g} is small for eV/Angstrom: Hartree/Bohr would give such numbers, "
            "or all frames are relaxed"
        )
    return None


def _stresses(frames: Sequence[LabelledFrame]) -> str | None:
    energies = [
        float(np.abs(frame.stress).max() * frame.atoms.get_volume() / len(frame.atoms))
        for frame in frames
        if np.isfinite(frame.stress).all()
    ]
    if energies and np.median(energies) > 20:
        return (
            f"stress times volume is {np.median(energies):.3g} eV per atom: eV/Angstrom^3 is expected, GPa "
            "(160.2 times as large) or kbar would give such numbers"
        )
    return None


def _distance(value: float, expected: float) -> float:
    """How far apart two numbers of the same sign are, as a fraction."""
    return abs(math.log(value / expected)) if value * expected > 0 else math.inf
