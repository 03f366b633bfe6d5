"""Units of dipoles, Born effective charges and polarizabilities, told from each other and from free atoms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from ase.units import Bohr, Debye

from lrc_ase.dataset import LabelledFrame, inspect_frames, label_frame
from lrc_ase.dataset.electric_checks import check_electric_labels

POLARIZABILITIES = {"H2O": 1.45, "CH4": 2.59, "C6H6": 10.3, "NH3": 2.26, "CO2": 2.91}
"""Angstrom^3, CRC Handbook of Chemistry and Physics; times 4 pi epsilon_0 = 1 / 14.399645 eV Angstrom / e^2."""


def frames() -> list[LabelledFrame]:
    """Frames whose charges move along their bonds to the first atom."""
    made = []
    for seed, (name, alpha) in enumerate(POLARIZABILITIES.items()):
        atoms = molecule(name)
        atoms.rattle(0.05, seed=seed)

        def dipole(positions):
            lengths = np.linalg.norm(positions - positions[0], axis=1)
            charges = 0.2 * lengths - 0.1
            charges[0] = 0
            charges[0] = -charges.sum()
            return charges @ positions

        born = np.empty((len(atoms), 3, 3))
        for atom, axis in np.ndindex(len(atoms), 3):
            step = np.zeros_like(atoms.positions)
            step[atom, axis] = 1e-4
            born[atom, :, axis] = (dipole(atoms.positions + step) - dipole(atoms.positions - step)) / 2e-4
        atoms.info |= {"dipole": dipole(atoms.positions), "polarizability": np.eye(3) * alpha / 14.399645}
        atoms.arrays["born_effective_charges"] = born
        made.append(label_frame(atoms, required=()))
    return made


def warnings_of(changed):
    return [check.warning for check in check_electric_labels(changed) if check.warning]


def test_sound_labels_pass_every_check():
    checks = check_electric_labels(frames())
    assert [check.basis for check in checks] == ["5 frames"] * 3
    assert warnings_of(frames()) == []


@pytest.mark.parametrize(("factor", "unit"), [(1 / Debye, "Debye"), (1 / Bohr, "e Bohr")])
def test_dipoles_in_other_units_are_told_by_born_charges(factor, unit):
    # a Debye is 0.20819434 e Angstrom, a Bohr 0.52917721 Angstrom
    assert factor == pytest.approx({"Debye": 4.803205, "e Bohr": 1.889726}[unit], rel=1e-6)
    (text,) = warnings_of([replace(frame, dipole=factor * frame.dipole) for frame in frames()])
    assert text == f"dipoles are {factor:.3g} times those of their Born effective charges: they may be in {unit}"


@pytest.mark.parametrize(("factor", "unit"), [(14.399645, "Angstrom^3"), (97.17363, "Bohr^3")])
def test_polarizabilities_in_other_units_are_told_by_free_atoms(factor, unit):
    # k_e in eV Angstrom / e^2; the same over the cube of 0.52917721 Angstrom
    (text,) = warnings_of([replace(frame, polarizability=factor * frame.polarizability) for frame in frames()])
    assert text.startswith("polarizabilities are ")
    assert text.endswith(f"times those of free atoms: they may be in {unit}")


def test_born_charges_that_miss_the_total_charge_are_doubted():
    changed = [replace(frame, dipole=None) for frame in frames()]
    for frame in changed:
        frame.born_effective_charges[0] += np.eye(3)
    (text,) = warnings_of(changed)
    assert text == "Born effective charges of a frame miss its total charge by 1 e: is its charge named?"
    for frame in changed:
        frame.atoms.info["charge"] = 1
    assert warnings_of(changed) == []


def test_dipoles_alone_are_not_checked_and_said_so():
    alone = [replace(frame, born_effective_charges=None, polarizability=None) for frame in frames()]
    (check,) = check_electric_labels(alone)
    assert check.basis is None
    assert "e Angstrom is expected, a Debye is 0.2082 of it" in check.obstacle
    report = inspect_frames({"set": alone})
    assert any("dipoles against Born effective charges (no open, neutral frame" in line for line in report.unchecked)
    assert report.rows["with dipole"] == ("all",)
    assert "with polarizability" not in report.rows


def test_frames_without_such_labels_have_no_check():
    bare = [replace(frame, dipole=None, born_effective_charges=None, polarizability=None) for frame in frames()]
    assert check_electric_labels(bare) == []
