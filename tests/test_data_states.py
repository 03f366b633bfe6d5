"""Frames whose labels no potential can fit together: magnetic states, charges, levels of theory."""

from __future__ import annotations

import re

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator, SinglePointDFTCalculator

from lrc_ase.dataset import inspect_frames, label_frame, read_frames


def walk(n_frames=16, *, seed=0):
    """Return a random walk of one crystal with labels of EMT."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Ni", cubic=True)
    frames = []
    for _ in range(n_frames):
        atoms.positions += 0.04 * rng.normal(size=atoms.positions.shape)
        atoms.calc = EMT()
        frames.append(labelled(atoms, atoms.get_potential_energy(), atoms.get_forces()))
    return frames


def labelled(atoms, energy, forces, **results):
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces, **results)
    return copy


def shifted(atoms, per_atom, **results):
    """Return a copy of a frame with another energy."""
    return labelled(atoms, atoms.get_potential_energy() + per_atom * len(atoms), atoms.get_forces(), **results)


def report(**sets):
    return inspect_frames(
        {
            name: [label_frame(atoms, name=f"{name}@{i}") for i, atoms in enumerate(frames)]
            for name, frames in sets.items()
        }
    )


def test_structures_with_two_energies_are_no_copies():
    frames = walk()
    (warning,) = report(ni=[*frames[:3], shifted(frames[0], 0.1), shifted(frames[2], 0.25)]).warnings
    assert re.search(
        r"2 structures with different labels in ni: energies differ by up to 250 meV/atom, forces by up to 0 "
        r"eV/Angstrom, for example ni@0 and ni@3\. A potential fits their mean: keep frames of one magnetic state",
        warning,
    )


def test_structures_with_other_forces_in_another_set_are_no_copies():
    frames = walk(5)
    other = labelled(frames[1], frames[1].get_potential_energy(), 1.5 * frames[1].get_forces())
    largest = 0.5 * np.abs(frames[1].get_forces()).max()
    (warning,) = report(one=frames, two=[other]).warnings
    assert warning.startswith(
        "1 structure with different labels in both one and two: energies differ by up to 0 meV/atom, forces by up to "
        f"{largest:.3g} eV/Angstrom, for example one@1 and two@0. A potential"
    )


def test_copies_may_differ_by_rounding():
    frames = walk(5)
    rounded = labelled(frames[1], round(frames[1].get_potential_energy(), 3), frames[1].get_forces().round(3))
    assert report(ni=[*frames, rounded]).warnings == ("1 frame occurs more than once in ni, for example ni@1 and ni@5",)


def test_charges_and_boundaries_make_another_structure():
    """Vertical ionization: the same atoms at two charges are two samples, not a mistake."""
    frames = walk(5)
    ions, open_frames = [shifted(atoms, 1.8) for atoms in frames], [shifted(atoms, 0.9) for atoms in frames]
    for ion, molecule in zip(ions, open_frames, strict=True):
        ion.info["charge"], molecule.pbc = 1, False
    assert report(ni=[*frames, *ions, *open_frames]).warnings == ()
    for ion in ions:
        del ion.info["charge"]
    assert any("5 structures with different labels" in text for text in report(ni=[*frames, *ions]).warnings)


def test_magnetic_moments_are_reported_and_noted():
    frames = walk(6)
    moments = np.array([2.0, -2.0, 2.0, 1.5])
    magnetic = [shifted(atoms, 0.0, magmoms=moments * sign, magmom=3.5 * sign) for atoms in frames for sign in (1, -1)]
    result = report(plain=frames, ni=[atoms for i, atoms in enumerate(magnetic) if i % 4 in (0, 3)])
    assert result.rows["total magnetic moment (Bohr magnetons)"] == ("-", "-3.5 to 3.5")
    (note,) = result.notes
    assert re.match(
        r"ni: magnetic moments are not read: a potential has one energy .* \(6 of 6 frames, first ni@0\)", note
    )
    assert "total magnetic moment (Bohr magnetons)" not in report(plain=frames).rows


@pytest.mark.parametrize(
    ("moments", "noted"),
    [
        ({"magmoms": np.array([1.0, -1.0, 1.0, -1.0])}, True),  # antiferromagnetic: the total is zero
        ({"magmoms": np.array([[0, 0, 1.0]] * 4)}, True),  # noncollinear
        ({"magmom": 2.0}, True),
        ({"magmoms": np.full(4, 0.01), "magmom": 0.04}, False),
        ({"magmom": 0.0}, False),
    ],
)
def test_small_moments_are_not_noted(moments, noted):
    (atoms,) = walk(1)
    remarks = label_frame(shifted(atoms, 0.0, **moments)).remarks
    assert [remark.text.startswith("magnetic moments are not read") for remark in remarks] == [True] * noted


def test_moments_of_a_file_are_seen(tmp_path):
    """An OUTCAR with ISPIN = 2 gives ASE a total moment, extended XYZ an array of them."""
    (atoms,) = walk(1)
    atoms.calc = SinglePointDFTCalculator(atoms, **atoms.calc.results, magmom=17.0482806)
    assert label_frame(atoms).remarks
    atoms = shifted(atoms, 0.0, magmoms=np.ones(4))
    ase.io.write(tmp_path / "f.extxyz", atoms)
    (again,) = read_frames(str(tmp_path / "f.extxyz"))
    assert label_frame(again).remarks == label_frame(atoms).remarks != ()


def test_several_multiplicities_are_a_warning():
    frames = walk(6)
    for number, atoms in enumerate(frames):
        atoms.info["spin_multiplicity"] = 3 if number < 2 else 1
    (warning,) = report(ni=frames).warnings
    assert "info entry 'spin_multiplicity' names 2 spin states (1 in 4 frames, 3 in 2 frames), which a" in warning
    assert report(ni=frames[2:]).warnings == ()


@pytest.mark.parametrize("second_level", [lambda i: i % 2, lambda i: i >= 8])
def test_two_levels_of_theory_are_noticed(second_level):
    frames = [shifted(atoms, 0.03 * second_level(i)) for i, atoms in enumerate(walk())]
    (warning,) = report(ni=frames).warnings
    assert re.match(
        r"ni: energies jump by (29|30|31)(\.\d)? meV/atom in \d+ of \d+ pairs of near frames while forces explain none "
        r"of it, as if some of the labels were of another level of theory",
        warning,
    )


def test_two_levels_of_theory_are_noticed_between_sets():
    frames = walk()
    (warning,) = report(one=frames[:8], two=[shifted(atoms, 0.03) for atoms in frames[8:]]).warnings
    assert re.match(r"energies jump by (29|30|31)(\.\d)? meV/atom between near frames of one and two while", warning)
    assert report(one=frames[:8], two=frames[8:]).warnings == ()


def test_noise_of_energies_is_no_level_of_theory():
    rng = np.random.default_rng(1)
    result = report(ni=[shifted(atoms, 0.1 * rng.normal()) for atoms in walk()])
    assert not any("level of theory" in text for text in result.warnings)
    assert any("one level of theory (energies do not follow forces in" in text for text in result.unchecked)


def test_few_near_frames_give_no_verdict_on_levels():
    atoms = Atoms("N2", positions=[[0, 0, 0], [1.1, 0, 0]])
    result = report(n2=[labelled(atoms, -1.0, np.zeros((2, 3)))])
    assert "n2: one level of theory (0 pairs of near frames, 5 are needed)" in result.unchecked
