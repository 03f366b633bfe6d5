"""Check that far atoms matter as little as they must: locality in periodic systems, extensivity of molecules."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from scipy.constants import e, epsilon_0

from lrc_ase.checks.crystal_cells import cell_widths, repetitions
from lrc_ase.checks.results import CheckResult, Curve, Figure, NotApplicable, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.structures.charge import repeated, set_total_charge, total_charge

__all__ = ["locality"]

DISPLACEMENT = 0.2
"""Displacement of one atom, Angstrom."""
WIDTH, QUICK_WIDTH = 24.0, 18.0
"""Smallest width of the cell in which forces are compared, Angstrom."""
LARGEST_CELL = 3000
NEAR = 5.0
"""Distance beyond which the decay is fitted, Angstrom."""
PART_OF_CELL = 0.45
"""Largest distance of the fit in units of the width; further out images act too."""
NOISE = 1e-5
"""Change of a force that counts as none, eV/Angstrom."""
SLOWEST_DECAY = -1.8
"""Exponent of the distance that passes. The force of the dipole of a displaced charge falls as r^-3, and somewhat more
slowly in a small periodic cell; r^0 is an interaction that does not decay."""
FAR = 1000.0
"""Distance of two copies of a molecule, Angstrom."""
LARGEST_EXCESS = 1e-5
"""Largest energy of two far copies beyond twice that of one, eV per atom."""
_COULOMB = e / (4 * np.pi * epsilon_0) * 1e10
"""Energy of two charges e at a distance of 1 Angstrom, eV."""


def locality(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Check the decay of forces with the distance in a periodic system, additivity of far copies of a molecule."""
    if subject.kind == "molecule" and not subject.structure.pbc.any():
        return _far_copies(subject)
    if not subject.is_periodic:
        raise NotApplicable("Needs three periodic directions or none")
    return _decay(subject, rng)


def _decay(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Move one atom of a large cell and fit a power of the distance to the changes of forces."""
    atoms = subject.atoms()
    width = QUICK_WIDTH if subject.settings.quick else WIDTH
    repeats = repetitions(atoms, width)
    if len(atoms) * int(np.prod(repeats)) > LARGEST_CELL:
        raise NotApplicable(f"A cell of {width:g} Angstrom would hold more than {LARGEST_CELL} atoms")
    large = repeated(atoms, repeats)
    large.calc = atoms.calc
    subject.progress(f"forces in a cell of {len(large)} atoms")
    before = large.get_forces()
    moved = int(rng.integers(len(atoms)))
    direction = rng.standard_normal(3)
    _, distances = find_mic(large.positions - large.positions[moved], large.cell, pbc=True)
    large.positions[moved] += DISPLACEMENT * direction / np.linalg.norm(direction)
    changes = np.linalg.norm(large.get_forces() - before, axis=1)
    longest = PART_OF_CELL * float(cell_widths(large).min())
    edges = np.geomspace(NEAR, longest, 7)
    shells = [(distances >= low) & (distances < high) for low, high in pairwise(edges)]
    filled = [shell for shell in shells if shell.any()]
    if len(filled) < 2:
        raise NotApplicable(f"No atoms lie between {NEAR:g} and {longest:.1f} Angstrom from the one that moves")
    radii = np.array([distances[shell].mean() for shell in filled])
    means = np.array([np.sqrt(np.mean(changes[shell] ** 2)) for shell in filled])
    others = np.argsort(distances)[1:]
    figure = Figure(
        "Change of forces where one atom moves",
        "Distance (Angstrom)",
        "Change of the force (eV/Angstrom)",
        (
            Curve.of("atoms", distances[others], np.maximum(changes[others], 1e-9), points=True),
            Curve.of("root mean square", radii, np.maximum(means, 1e-9)),
        ),
        "A line of slope -3 is electrostatics, a cliff a cutoff, a plateau an interaction without decay.",
        log_x=True,
        log_y=True,
    )
    sentence = f"One of {len(large)} atoms was displaced by {DISPLACEMENT:g} Angstrom."
    farthest = Quantity(f"change of forces at {radii[-1]:.1f} Angstrom", float(means[-1]), "eV/Angstrom")
    if (means < NOISE).all():
        sentence = f"{sentence} No force beyond {NEAR:g} Angstrom changed by more than {NOISE:g} eV/Angstrom."
        quantities = [Quantity(farthest.name, farthest.value, farthest.unit, at_most=NOISE)]
    else:
        slope = float(np.polyfit(np.log(radii), np.log(np.maximum(means, NOISE)), 1)[0])
        quantities = [Quantity("exponent of the distance", slope, at_most=SLOWEST_DECAY, is_main=True), farthest]
    return CheckResult.judged("locality", sentence, quantities, [figure])


def _far_copies(subject: Subject) -> CheckResult:
    """Compare two copies of a molecule far apart with twice one, the Coulomb energy of their charges subtracted."""
    one = subject.atoms()
    energy, forces = one.get_potential_energy(), one.get_forces()
    charge = total_charge(one)
    width = float(np.linalg.norm(np.ptp(one.positions, axis=0)))
    distances = np.append(width + np.geomspace(5.0, 100.0, 12), FAR)
    excess = []
    for distance in distances:
        subject.progress(f"{distance:.0f} Angstrom")
        both = _two(one, float(distance))
        coulomb = _COULOMB * charge**2 / distance
        excess.append(both.get_potential_energy() - 2 * energy - coulomb)
    field = _COULOMB * abs(charge) * max(abs(charge), 1.0) / FAR**2
    change = float(np.abs(both.get_forces() - np.tile(forces, (2, 1))).max())
    quantities = [
        Quantity(
            "excess energy of two far copies", abs(excess[-1]) / (2 * len(one)), "eV/atom", at_most=LARGEST_EXCESS
        ),
        Quantity("change of forces by a far copy", change, "eV/Angstrom", at_most=NOISE + 2 * field),
    ]
    figure = Figure(
        "Energy of two copies",
        "Distance (Angstrom)",
        "Energy - that of two single ones (eV)",
        (Curve.of("energy", distances[:-1], excess[:-1]),),
        "Neutral molecules attract or repel as dipoles, r^-3; charged ones beyond the Coulomb energy of their charges.",
        log_x=True,
    )
    return CheckResult.judged("locality", f"Two copies, up to {FAR:g} Angstrom apart.", quantities, [figure])


def _two(one: Atoms, distance: float) -> Atoms:
    """Return two copies of a molecule at a distance along x."""
    other = one.copy()
    other.positions[:, 0] += distance
    both = one.copy() + other
    if charge := total_charge(one):
        set_total_charge(both, 2 * charge)
    both.calc = one.calc
    return both
