"""Static dielectric constant of a crystal or of a liquid of molecules."""

from __future__ import annotations

from collections import Counter

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lrc_ase.checks import runs
from lrc_ase.checks.results import CheckResult, Curve, Figure, NotApplicable, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.current import read_current
from lrc_ase.simulation.dielectric import dielectric_constant

__all__ = ["permittivity", "same_molecules"]

BOND = 1.25
"""Longest bond in units of the sum of covalent radii: 1.2 Angstrom for O-H, where a hydrogen bond has 1.7."""


def permittivity(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Compute the static dielectric constant from fluctuations of the dipole moment at constant energy.

    Latent charges are smaller than true ones by the root of the electronic permittivity, which multiplies the constant.
    """
    if not subject.is_periodic:
        raise NotApplicable("A dielectric constant needs three periodic directions")
    files = runs.production(subject)
    if not files.current.exists():
        raise NotApplicable("The calculator knows no polarization current")
    if subject.kind == "liquid":
        frames = runs.frames(files, 2)
        if not same_molecules(frames[0], frames[-1]):
            raise NotApplicable("Ions move freely or molecules exchange atoms: a conductor has no static constant")
    constant = dielectric_constant([read_current(files.current)])
    quantities = [
        Quantity("dielectric constant / electronic permittivity", constant.value, error=constant.error, is_main=True)
    ]
    figure = Figure(
        "Dielectric constant",
        "Time (ps)",
        "Dielectric constant / electronic permittivity",
        (Curve.of("running estimate", constant.times, constant.running),),
        "The estimate must have settled at its end.",
    )
    settled = "" if constant.settled else " It has not settled: make a longer run."
    sentence = (
        f"Fluctuations of the dipole moment over {constant.length:.3g} ps at {constant.temperature:.0f} K.{settled}"
    )
    return CheckResult.judged("dielectric constant", sentence, quantities, [figure])


def same_molecules(first: Atoms, last: Atoms) -> bool:
    """Return True if bonds, by covalent radii, connect the same atoms to small molecules in both structures."""
    partitions = []
    for atoms in (first, last):
        first_atoms, second_atoms = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=BOND))
        bonds = coo_matrix((np.ones(len(first_atoms)), (first_atoms, second_atoms)), shape=(len(atoms), len(atoms)))
        n_molecules, molecule = connected_components(bonds)
        if n_molecules < 2:
            return False
        members: dict[int, list[int]] = {}
        for atom, number in enumerate(molecule):
            members.setdefault(int(number), []).append(atom)
        partitions.append(Counter(tuple(each) for each in members.values()))
    return partitions[0] == partitions[1]
