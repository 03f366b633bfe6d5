"""Checks of the data report one by one: silent on sound sets, loud on falsified ones, honest where they cannot look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.cluster import Octahedron
from ase.units import Bohr, GPa, Hartree, kcal, mol
from rattled_frames import frame_of, rattled, scaled

from lrc_ase.dataset import LabelledFrame, inspect_frames
from lrc_ase.dataset.bonds import bond_constants, forces_against_bonds
from lrc_ase.dataset.check import Check, nearest_meaning
from lrc_ase.dataset.energy_scale import (
    atomization_energies,
    doubt_about_references,
    isolated_atoms,
    variation_of_energies,
)
from lrc_ase.dataset.near_frames import energies_against_forces, energies_against_stresses
from lrc_ase.dataset.outliers import far_from_others
from lrc_ase.dataset.stress_scale import (
    pressure_against_volume,
    size_of_stresses,
    stresses_against_bonds,
    stresses_against_forces,
)

COPPER = bulk("Cu", cubic=True)
ARGON = bulk("Ar", a=5.26, cubic=True)
NITROGEN = Atoms("N2", positions=[[0, 0, 0], [1.1, 0, 0]])


@pytest.mark.parametrize("amplitude", [0.02, 0.05, 0.08, 0.12, 0.2])
@pytest.mark.parametrize("atoms", [COPPER, ARGON, NITROGEN], ids=["Cu", "Ar", "N2"])
def test_rattled_sound_frames_raise_no_warning(atoms, amplitude):
    for seed in range(3):
        assert inspect_frames({"set": rattled(atoms, 20, amplitude, seed=seed)}).warnings == ()


def test_frames_in_any_order_tell_the_unit_of_energies():
    frames = rattled(COPPER, 16, 0.03)
    order = np.random.default_rng(1).permutation(16)
    shuffled = [frames[index] for index in order]
    assert energies_against_forces(shuffled).basis == "120 pairs of near frames"
    assert energies_against_forces(shuffled).warning is None
    check = energies_against_forces(scaled(shuffled, energy=1 / Hartree))
    assert check.warning is not None
    assert "the energies are in Hartree but the forces in eV/Angstrom" in check.warning


def test_turned_molecules_are_compared_after_alignment():
    rng = np.random.default_rng(0)
    frames = []
    for frame in rattled(Octahedron("Cu", 3), 8, 0.03):
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        rotation *= np.sign(np.linalg.det(rotation))
        atoms = frame.atoms.copy()
        atoms.positions = atoms.positions @ rotation + rng.normal(size=3)
        frames.append(replace(frame, atoms=atoms, forces=frame.forces @ rotation))
    assert energies_against_forces(frames) == replace(energies_against_forces(frames), basis="28 pairs of near frames")
    check = energies_against_forces(scaled(frames, energy=mol / kcal))
    assert "the energies are in kcal/mol" in str(check.warning)


def test_frames_in_equal_cells_that_were_wrapped_are_near():
    frames = rattled(COPPER, 8, 0.03)
    for frame in frames[::2]:
        frame.atoms.positions += [0.7, -3.61, 0.2]
        frame.atoms.wrap()
    check = energies_against_forces(frames)
    assert (check.basis, check.warning) == ("28 pairs of near frames", None)


def test_a_slope_of_no_known_unit_is_no_verdict():
    check = energies_against_forces(scaled(rattled(COPPER, 10, 0.02), energy=4.0))
    assert (check.basis, check.warning) == (None, None)
    assert "have a slope of 3.9" in check.obstacle
    assert "no known unit" in check.obstacle


def test_energies_of_unrelated_frames_are_no_verdict():
    frames = rattled(COPPER, 10, 0.03)
    energies = np.random.default_rng(0).normal(size=10)
    check = energies_against_forces([replace(f, energy=e) for f, e in zip(frames, energies, strict=True)])
    assert (check.basis, check.warning) == (None, None)
    assert "too far apart for a verdict" in check.obstacle


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (-1, "opposite sign: positive in tension"),
        (1 / GPa, "is in GPa"),
        (-10 / GPa, "is in kbar, with the opposite sign"),
        (1e4 / GPa, "is in bar"),
    ],
)
def test_strained_frames_tell_sign_and_unit_of_stresses(factor, message):
    frames = rattled(COPPER, 12, 0.02, strain=0.01)
    assert energies_against_stresses(frames) == replace(energies_against_stresses(frames), warning=None, obstacle="")
    assert message in str(energies_against_stresses(scaled(frames, stress=factor)).warning)


def test_strained_frames_tell_the_unit_of_energies():
    """Each atom moves by a step that counts as near; all steps together are longer."""
    frames = scaled(rattled(COPPER * (2, 2, 2), 12, 0.05, strain=0.01), energy=mol / kcal)
    assert "the energies are in kcal/mol" in str(energies_against_stresses(frames).warning)


@pytest.mark.parametrize(("factor", "message"), [(-1, "opposite sign"), (1 / GPa, "is in GPa")])
def test_clusters_in_a_box_tell_sign_and_unit_of_stresses(factor, message):
    cluster = Octahedron("Cu", 3)
    cluster.center(vacuum=5.0)
    cluster.pbc = True
    cluster.positions += 9.0  # across the boundary
    cluster.wrap()
    frames = rattled(cluster, 4, 0.05)
    assert stresses_against_forces(frames) == replace(stresses_against_forces(frames), basis="4 frames", warning=None)
    assert message in str(stresses_against_forces(scaled(frames, stress=factor)).warning)
    assert "no slab, wire or cluster" in stresses_against_forces(rattled(COPPER, 2, 0.05)).obstacle


def test_volumes_tell_the_sign_of_stresses():
    frames = []
    for factor in np.linspace(0.95, 1.05, 7):
        atoms = COPPER.copy()
        atoms.set_cell(factor * atoms.cell.array, scale_atoms=True)
        frames.append(frame_of(atoms))
    assert pressure_against_volume(frames).basis == "7 frames"
    assert "opposite sign" in str(pressure_against_volume(scaled(frames, stress=-1)).warning)
    assert "GPa or kbar" in str(pressure_against_volume(scaled(frames, stress=1 / GPa)).warning)
    assert "volumes differ" in pressure_against_volume(rattled(COPPER, 6, 0.02)).obstacle
    assert "GPa" in str(size_of_stresses(scaled(frames, stress=1 / GPa)).warning)


def test_bonds_tell_sign_and_unit_of_stresses_in_one_cell():
    frames = rattled(COPPER, 20, 0.1)
    constants = bond_constants(frames)
    assert stresses_against_bonds(frames, constants) == Check("stresses against bond lengths", "20 frames")
    assert "opposite sign" in str(stresses_against_bonds(scaled(frames, stress=-1), constants).warning)
    assert "GPa, kbar or bar" in str(stresses_against_bonds(scaled(frames, stress=1 / GPa), constants).warning)
    assert "fewer than 8 frames" in stresses_against_bonds(frames[:5], constants).obstacle
    assert any("opposite sign" in text for text in inspect_frames({"s": scaled(frames, stress=-1)}).warnings)


def test_obstacles_of_stresses_are_listed_only_without_a_verdict():
    report = inspect_frames({"set": rattled(COPPER, 20, 0.1)})
    assert "stresses against bond lengths (20 frames)" in report.checked[0]
    assert not [text for text in report.unchecked if "stress" in text]
    report = inspect_frames({"set": rattled(COPPER, 3, 0.1)})
    assert sum(line.startswith("set: stresses against") for line in report.unchecked) == 3


def test_force_constants_are_those_of_the_potential():
    # Morse: k = 2 D (rho0 / r0)^2 = 2 * 9.8 * (2.9 / 1.1)^2 = 136.2 eV/Angstrom^2
    (constant,) = bond_constants(rattled(NITROGEN, 40, 0.003))
    assert constant.elements == (7, 7)
    assert constant.constant == pytest.approx(136.2, rel=0.01)
    assert 0.5 < constant.constant / constant.predicted < 1.5


@pytest.mark.parametrize(
    ("factor", "message"),
    [(-1, "gradients"), (Bohr / Hartree, "Hartree/Bohr"), (mol / kcal, "kcal/mol"), (1000, "meV per Angstrom")],
)
@pytest.mark.parametrize("n_frames", [1, 12])
def test_bonds_tell_sign_and_unit_of_forces(factor, message, n_frames):
    frames = rattled(COPPER * (3, 2, 2), n_frames, 0.06)
    assert forces_against_bonds(bond_constants(frames)).warning is None
    assert message in str(forces_against_bonds(bond_constants(scaled(frames, forces=factor))).warning)


def test_rigid_molecules_give_no_verdict_on_forces():
    rng = np.random.default_rng(0)
    frames = [
        replace(frame_of(NITROGEN), atoms=NITROGEN.copy(), forces=rng.normal(size=(2, 3))) for _ in range(12)
    ]  # fmt: skip
    assert bond_constants(frames) == []
    report = inspect_frames({"set": [replace(f, forces=1e-3 * f.forces) for f in frames]})
    assert "may mean relaxed or rigid structures, or Hartree/Bohr" in " ".join(report.unchecked)
    report = inspect_frames({"set": [replace(f, forces=50 * f.forces) for f in frames]})
    assert any("the root mean square force of" in text and "is large" in text for text in report.warnings)


def test_far_frames_still_tell_the_scale_of_energies():
    frames = rattled(COPPER * (2, 1, 1), 30, 0.2)
    constants = bond_constants(frames)
    assert variation_of_energies(frames, constants).warning is None
    assert "Hartree" in str(variation_of_energies(scaled(frames, energy=1 / Hartree), constants).warning)
    assert "meV" in str(variation_of_energies(scaled(frames, energy=1000), constants).warning)
    assert variation_of_energies(frames, []).basis is None


def single(symbol, energy):
    return LabelledFrame(Atoms(symbol), energy, np.zeros((1, 3)), np.full((3, 3), np.nan), symbol)


def water(energy):
    atoms = molecule("H2O")
    return LabelledFrame(atoms, energy, np.full((3, 3), np.nan), np.full((3, 3), np.nan), "water")


def test_isolated_atoms_tell_the_scale_of_energies():
    # PBE energies in eV; the atomization energy of water is about 10 eV
    isolated = isolated_atoms({"atoms": [single("H", -13.6), single("O", -2040.0), single("O", -2041.0)]})
    assert isolated == {1: -13.6, 8: -2041.0}
    sound = water(2 * -13.6 - 2041.0 - 10.0)
    assert atomization_energies([sound], isolated, []).warning is None
    foreign = atomization_energies([water(-480.0)], isolated, [])
    assert "eV per atom from isolated atoms" in str(foreign.warning)
    assert "no frame is an isolated atom" in atomization_energies([sound], {}, []).obstacle
    assert "isolated atoms are known" in atomization_energies([sound], {1: -13.6}, []).obstacle
    report = inspect_frames({"train": [water(-480.0)], "atoms": [single("H", -13.6), single("O", -2041.0)]})
    assert any(text.startswith("train: energies lie") for text in report.warnings)


def test_references_of_another_level_of_theory_are_doubted():
    sound = {"H": -13.6, "O": -2041.0}
    assert doubt_about_references([water(-2078.0)], sound) is None
    assert "of another level of theory" in str(doubt_about_references([water(-480.0)], sound))
    assert doubt_about_references([water(-480.0)], {"H": -13.6}) is None


@pytest.mark.parametrize("n_frames", [6, 8, 12, 40])
def test_one_absurd_frame_of_a_small_set_is_named(n_frames):
    frames = rattled(COPPER, n_frames, 0.05)
    assert inspect_frames({"set": frames}).warnings == ()
    wrong = [*frames]
    wrong[2] = replace(frames[2], energy=frames[2].energy + 1000.0)
    (warning,) = inspect_frames({"set": wrong}).warnings
    assert warning == "set: energies per atom far from others of their composition: rattled@2"
    wrong = [*frames]
    push = np.zeros((4, 3))
    push[0, 0], push[1, 0] = 500, -500
    wrong[3] = replace(frames[3], forces=frames[3].forces + push)
    warnings = inspect_frames({"set": wrong}).warnings
    assert any("forces far from the others, up to " in text and text.endswith("rattled@3") for text in warnings)


def test_outliers_do_not_hide_each_other():
    values = np.array([1.0, 1.2, 0.8, 1.1, 0.9, 1.0, 1.3, 0.7, 40.0, 50.0])
    assert np.flatnonzero(far_from_others(values)).tolist() == [8, 9]
    assert not far_from_others(np.abs(np.random.default_rng(0).normal(size=2000))).any()
    assert not far_from_others(np.array([1.0, 100.0])).any()


def test_isomers_are_no_outliers():
    frames = []
    for number in range(20):
        name = "CH3CH2OH" if number < 19 else "CH3OCH3"
        atoms = molecule(name)
        labels = np.full((9, 3), np.nan), np.full((3, 3), np.nan)
        frames.append(LabelledFrame(atoms, -100.0 + 1e-3 * (number % 3) + 5.0 * (number == 19), *labels, name))
        atoms.rattle(0.01, seed=number)
    assert inspect_frames({"set": frames}).warnings == ()


def test_argon_is_no_crystal_in_bohr_unless_it_is():
    assert inspect_frames({"set": rattled(ARGON, 6, 0.05)}).warnings == ()
    frames = rattled(ARGON, 6, 0.05)
    for frame in frames:
        frame.atoms.set_cell(frame.atoms.cell.array / Bohr, scale_atoms=True)
    assert any("positions may be in Bohr" in text for text in inspect_frames({"set": frames}).warnings)


def test_the_report_says_what_it_could_not_check():
    report = inspect_frames({"one": rattled(COPPER * (2, 2, 2), 1, 0.05)})
    assert report.warnings == ()
    assert report.verdict == "The checks that could be made found nothing wrong."
    unchecked = " / ".join(report.unchecked)
    for text in (
        "energies against forces (fewer than two frames have both energy and forces)",
        "energies against isolated atoms (no frame is an isolated atom)",
        "forces far from the others (fewer than 4 frames have forces)",
    ):
        assert text in unchecked
    (checked,) = report.checked
    assert "forces against bond lengths (" in checked


def test_missing_labels_are_warnings():
    frames = rattled(COPPER, 6, 0.05)
    bare = replace(frames[0], energy=np.nan, forces=np.full((4, 3), np.nan), stress=np.full((3, 3), np.nan))
    report = inspect_frames({"set": [bare, *frames[1:]]})
    assert report.warnings == ("set: 1 of 6 frames has no energy", "set: 1 of 6 frames has no forces")
    report = inspect_frames({"set": [bare]})
    assert report.warnings[0].startswith("set: no frame has an energy or forces under a known name")
    assert report.verdict == "1 warning."
    unchecked = " / ".join(report.unchecked)
    for label in ("energies (no frame has one)", "forces (no frame has any)", "stresses (no frame has one)"):
        assert label in unchecked


def test_consecutive_frames_are_counted():
    rows = inspect_frames({"set": rattled(COPPER, 12, 0.05)}).rows
    assert rows["consecutive frames"] == ("none",)
    frames = rattled(COPPER, 1, 0.05)
    for _ in range(11):
        atoms = frames[-1].atoms.copy()
        atoms.positions[:2] += 0.02
        frames.append(frame_of(atoms))
    rows = inspect_frames({"set": frames}).rows
    assert rows["consecutive frames"] == ("12 in 1 trajectory",)


def test_meanings_are_told_apart_by_ratio_and_sign():
    meanings = {"per mille": 1e-3, "flipped": -1.0}
    assert nearest_meaning(0.9e-3, meanings, 0.2) == "per mille"
    assert nearest_meaning(-1.1, meanings, 0.2) == "flipped"
    assert nearest_meaning(1.0, meanings, 0.2) is None
    assert nearest_meaning(float("nan"), meanings, 0.2) is None


def test_sets_share_a_line_where_one_reason_keeps_them_from_a_check():
    report = inspect_frames({"one": [water(-480.0)], "two": [water(-480.0)], "atom": [single("H", -13.6)]})
    reason = "no frame consists of elements whose isolated atoms are known"
    assert f"one, two, atom: energies against isolated atoms ({reason})" in report.unchecked
