"""Check that atoms that approach each other are repelled, alone and within a system."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculatorError
from ase.data import atomic_numbers, covalent_radii
from ase.neighborlist import neighbor_list

from lrc_ase.checks.results import CheckResult, Curve, Figure, NotApplicable, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.files.counted import counted

__all__ = ["approaching_pairs", "dimers", "fall_at_short_distance"]

SHORTEST = 0.8
"""Shortest distance, Angstrom; pairs that bond at such a length are pressed to `END` of the bond."""
END = 0.55
"""Shortest distance in units of the sum of covalent radii, where that is less than `SHORTEST`."""
WALL = 0.7
"""Distance in units of the sum of covalent radii below which atoms must repel each other: bonds are longer."""
LONGEST = 8.0
N_DISTANCES = 145
LARGEST_FALL = 0.05
"""Fall of the energy at short distance that passes, eV."""
BARRIER = 10.0
"""Height of a barrier above the minimum that no collision climbs, eV."""
CEILING = 20.0
"""Energies above the minimum that a plot shows, eV."""
NEAREST = 6.0
"""Largest distance of a pair of the system that is pushed together, Angstrom."""


@dataclass(frozen=True)
class _Scan:
    """Energies of a pair over its distance."""

    pair: str
    distances: np.ndarray
    """Angstrom, increasing, (n_distances,)."""
    energies: np.ndarray
    """eV, (n_distances,)."""

    @property
    def curve(self) -> Curve:
        """Return the energies above that at the longest distance."""
        return Curve.of(self.pair, self.distances, self.energies - self.energies[-1])


def fall_at_short_distance(distances: np.ndarray, energies: np.ndarray, wall: float) -> float:
    """Return how far the energy falls on the way inward from the distance `wall`, eV: 0 for a curve that only rises.

    A fall behind a barrier of more than `BARRIER` counts if it leads below the minimum outside: no dynamics climbs so
    high, but an optimizer or a random structure may begin there.

    `distances` in Angstrom, increasing, and `energies` in eV, both (n_distances,).

    >>> distances = np.array([0.8, 1.0, 1.2, 1.4, 1.6])
    >>> fall_at_short_distance(distances, np.array([5.0, 2.0, -1.0, -0.5, 0.0]), 1.2)
    0.0
    >>> fall_at_short_distance(distances, np.array([-5.0, 2.0, -1.0, -0.5, 0.0]), 1.2)
    7.0
    >>> fall_at_short_distance(distances, np.array([50.0, 52.0, -1.0, -0.5, 0.0]), 1.2)
    0.0
    >>> fall_at_short_distance(distances, np.array([-5.0, 52.0, -1.0, -0.5, 0.0]), 1.2)
    57.0
    """
    inside = np.asarray(distances) <= wall + 1e-9
    inward = np.asarray(energies)[inside][::-1]
    lowest = np.asarray(energies)[~inside].min(initial=inward[0])
    highest = np.maximum.accumulate(inward)
    counted = (highest - lowest < BARRIER) | (inward < lowest)
    return float((highest - inward)[counted].max(initial=0.0))


def dimers(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Scan the energy of two atoms alone, of all pairs of elements, from 8 to 0.8 Angstrom.

    Below `WALL` times the sum of covalent radii, where no two atoms bond, the energy must rise all the way inward.
    """
    elements = subject.candidate.elements or tuple(subject.elements)
    scans = []
    for first, second in combinations_with_replacement(elements, 2):
        subject.progress(f"{first}-{second}")
        distances = np.linspace(_shortest(first, second), LONGEST, N_DISTANCES)
        energies = []
        for distance in distances:
            atoms = Atoms([first, second], positions=[[0, 0, 0], [0.6 * distance, 0, 0.8 * distance]])
            atoms.calc = subject.candidate.calculator
            energies.append(_energy(atoms))
        scans.append(_Scan(f"{first}-{second}", distances, np.array(energies)))
    shortest = scans[0].distances[0]
    sentence = f"Two atoms alone, {counted(len(scans), 'pair of elements')}, {shortest:.2g} to {LONGEST:g} Angstrom."
    walls = [_wall(first, second) for first, second in combinations_with_replacement(elements, 2)]
    return _judge("dimers", sentence, scans, walls, "Energies of two atoms")


def approaching_pairs(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Move the closest pair of each kind within the system together along its line, all other atoms at rest.

    The energy must rise below `WALL` times the sum of covalent radii as for dimers. Where the shortest distance of the
    pair in training is known, it must rise from there on, or from the sum of the radii if that is less: no bond is
    shorter, and a potential may fall where it has learned nothing.
    """
    atoms = subject.atoms()
    first, second, distances, vectors = neighbor_list("ijdD", atoms, NEAREST)
    symbols = np.array(atoms.get_chemical_symbols())
    scans, walls = [], []
    for one, other in combinations_with_replacement(subject.elements, 2):
        of_pair = np.flatnonzero((symbols[first] == one) & (symbols[second] == other) & (first != second))
        if not len(of_pair):
            continue
        subject.progress(f"{one}-{other}")
        closest = of_pair[np.argmin(distances[of_pair])]
        end = float(distances[closest])
        grid = np.linspace(min(_shortest(one, other), 0.9 * end), end, 60)
        direction = vectors[closest] / end
        energies = []
        for distance in grid:
            pushed = subject.atoms()
            pushed.positions[first[closest]] += 0.5 * (end - distance) * direction
            pushed.positions[second[closest]] -= 0.5 * (end - distance) * direction
            energies.append(_energy(pushed))
        scans.append(_Scan(f"{one}-{other}", grid, np.array(energies)))
        walls.append(_wall(one, other, subject.candidate.shortest_distance(one, other)))
    if not scans:
        raise NotApplicable(f"no two atoms of the system are closer than {NEAREST:g} Angstrom")
    sentence = f"The closest pair of each kind within the system was pushed together, {counted(len(scans), 'kind')}."
    return _judge("approaching pairs", sentence, scans, walls, "Energies of pairs pushed together within the system")


def _energy(atoms: Atoms) -> float:
    """Return the energy, eV; minus infinity where there is none, which is as bad as a hole."""
    try:
        energy = float(atoms.get_potential_energy())
    except CalculatorError:
        return -np.inf
    return -np.inf if np.isnan(energy) else energy


def _shortest(first: str, second: str) -> float:
    """Return the shortest distance of a scan, Angstrom."""
    bond = _bond(first, second)
    return min(SHORTEST, END * bond)


def _bond(first: str, second: str) -> float:
    """Return the sum of covalent radii, Angstrom."""
    return float(sum(covalent_radii[atomic_numbers[symbol]] for symbol in (first, second)))


def _wall(first: str, second: str, shortest: float | None = None) -> float:
    """Return the distance below which the energy must rise, Angstrom; `shortest` is that of the pair in training."""
    bond = _bond(first, second)
    return WALL * bond if shortest is None else max(WALL * bond, min(shortest, bond))


def _judge(name: str, sentence: str, scans: list[_Scan], walls: list[float], title: str) -> CheckResult:
    """Return the result: the fall of each curve at short distance, and a plot of all curves."""
    quantities = [
        Quantity(
            f"{scan.pair}: fall of the energy below {wall:.2f} Angstrom",
            fall_at_short_distance(scan.distances, scan.energies, wall),
            "eV",
            at_most=LARGEST_FALL,
        )
        for scan, wall in zip(scans, walls, strict=True)
    ]
    lowest = min(float(np.nanmin(scan.curve.y)) for scan in scans)
    floor = max(lowest, -CEILING)
    figure = Figure(
        title,
        "Distance (Angstrom)",
        "Energy - that at the longest distance (eV)",
        tuple(scan.curve for scan in scans),
        "At short distance every curve must rise to its inner end: one that turns down has a hole.",
        y_range=(floor - 0.05 * (CEILING - floor), CEILING),
    )
    return CheckResult.judged(name, sentence, quantities, [figure])
