"""Every name under which labels are read, and every message about labels that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled
from pydantic import ValidationError

from lrc_ase.dataset import LabelKeys, LabelRules, UnlabelledFrame, inspect_frames, label_frame, labelled_atoms
from lrc_ase.dataset.label_values import DETECTED_KEYS
from lrc_ase.dataset.remarks import counted_remarks

VIRIAL = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
"""eV; in Voigt's order (xx yy zz yz xz xy): 1 2 3 4 5 6."""
VOLUME = 6.0 * 7.0 * 8.0


def frame(*, n_atoms=2, pbc=True, forces=True, **entries):
    atoms = Atoms("NaCl"[: 2 * n_atoms], [[0, 0, 0], [2.8, 0, 0]][:n_atoms], cell=[6, 7, 8], pbc=pbc, info=entries)
    results = {"energy": -10.5} | ({"forces": np.array([[0.1, 0, 0], [-0.1, 0, 0]])[:n_atoms]} if forces else {})
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def texts(labelled):
    return [remark.text for remark in labelled.remarks]


@pytest.mark.parametrize("name", DETECTED_KEYS["virial"])
@pytest.mark.parametrize("numbers", [VIRIAL, VIRIAL.ravel(), [1, 2, 3, 4, 5, 6], "1 6 5 6 2 4 5 4 3"], ids=len)
def test_virials_are_read_as_stress_and_said(name, numbers):
    labelled = label_frame(frame(**{name: numbers}))
    assert np.allclose(labelled.stress, -VIRIAL / VOLUME, rtol=1e-14)
    assert f"stress = -virial / volume, virial read from info entry '{name}'" in texts(labelled)[0]


def test_sign_of_the_virial_is_that_of_a_gas_that_pushes():
    # W = sum r F = -V stress: pressure, hence a positive virial, is a negative stress in ASE
    assert (np.diag(label_frame(frame(virial=np.eye(3))).stress) < 0).all()


def test_key_names_the_virial():
    assert np.isnan(label_frame(frame(W=VIRIAL)).stress).all()
    assert np.allclose(label_frame(frame(W=VIRIAL), LabelKeys(virial="W")).stress, -VIRIAL / VOLUME)
    both = frame(W=VIRIAL, stress=np.eye(3))
    assert np.allclose(label_frame(both, LabelKeys(virial="W")).stress, -VIRIAL / VOLUME)
    assert np.allclose(label_frame(both, LabelKeys(stress="stress")).stress, np.eye(3))
    with pytest.raises(ValidationError, match="name the stress or the virial, not both"):
        LabelKeys(stress="a", virial="b")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"virial": np.arange(4.0)}, r"info entry 'virial' must hold nine numbers, or six .*got shape \[4\]"),
        ({"virial": 3.0}, r"info entry 'virial' must hold nine numbers"),
        ({"virial": "unknown"}, r"virial, info entry 'virial', is the text 'unknown': expected numbers in eV"),
        ({"virial": VIRIAL, "stress": VIRIAL / VOLUME}, r"'stress' and .*'virial' \(as -virial / volume\) differ"),
        ({"REF_stress": VIRIAL, "dft_stress": [1, 2, 3, 6, 4, 5]}, r"'REF_stress' and .*'dft_stress'.* differ"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_virials_and_stresses_that_cannot_be_read_are_errors(entries, message):
    with pytest.raises(ValueError, match=rf"f\.xyz@3: .*{message}"):
        label_frame(frame(lrc_ase_source="f.xyz@3", **entries))


def test_key_without_an_entry_is_doubted():
    (remark,) = label_frame(frame(), LabelKeys(virial="W")).remarks
    assert remark == ("no stress under the key 'W'", True)


def test_stress_and_virial_that_agree_are_one_label():
    labelled = label_frame(frame(stress=-VIRIAL / VOLUME, virial=VIRIAL))
    assert np.allclose(labelled.stress, -VIRIAL / VOLUME)


def test_stress_of_a_cell_without_volume_is_left_out():
    flat = frame(stress=np.ones(6))
    flat.cell[2] = 0
    labelled = label_frame(flat)
    assert np.isnan(labelled.stress).all()
    assert ("stress left out: the cell has no volume", True) in labelled.remarks


def test_asymmetric_stress_is_doubted():
    labelled = label_frame(frame(stress=np.arange(9.0)))
    assert any("not symmetric" in remark.text and remark.is_warning for remark in labelled.remarks)


def test_virial_of_an_open_structure_is_said_to_be_left_out():
    labelled = label_frame(frame(pbc=[True, True, False], virial=VIRIAL))
    assert np.isnan(labelled.stress).all()
    assert "stress left out" in texts(labelled)[0]


@pytest.mark.parametrize("name", DETECTED_KEYS["energy"])
@pytest.mark.parametrize("value", [-3.5, "-3.5", "-0.35D+01", "-.35d1", np.float32(-3.5), [-3.5]], ids=str)
def test_energies_are_read_under_every_name(name, value):
    atoms = frame(**{name: value})
    del atoms.calc.results["energy"]
    assert label_frame(atoms).energy == -3.5


@pytest.mark.parametrize("name", DETECTED_KEYS["forces"])
def test_forces_are_read_under_every_name(name):
    atoms = frame(forces=False)
    atoms.arrays[name] = np.array([[1, 0, 0], [-1, 0, 0]])
    assert np.array_equal(label_frame(atoms).forces, [[1, 0, 0], [-1, 0, 0]])


@pytest.mark.parametrize("name", DETECTED_KEYS["stress"])
def test_stresses_are_read_under_every_name(name):
    assert np.array_equal(label_frame(frame(**{name: VIRIAL})).stress, VIRIAL)


@pytest.mark.parametrize("text", ["-10.5 eV", "None", "unconverged"])
def test_text_in_place_of_an_energy_names_file_and_frame(text):
    atoms = frame(lrc_ase_source="f.xyz@3", REF_energy=text)
    atoms.calc.results["energy"] = text
    with pytest.raises(ValueError, match=rf"f\.xyz@3: energy, .* is the text '{text}': expected numbers in eV"):
        label_frame(atoms)


@pytest.mark.parametrize("value", [True, {"a": 1}, 1j])
def test_energies_of_other_types_are_errors(value):
    with pytest.raises(ValueError, match=r"energy, .*'REF_energy', must hold numbers in eV"):
        label_frame(frame(REF_energy=value))


def test_transposed_forces_are_an_error():
    atoms = frame()
    atoms.calc.results["forces"] = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"forces must have shape \[2, 3\], got \[3, 2\]"):
        label_frame(atoms)


def test_free_energy_goes_with_the_forces():
    atoms = frame()
    atoms.calc.results["free_energy"] = -10.8
    labelled = label_frame(atoms)
    assert labelled.energy == -10.8
    assert "energy read from 'free_energy'" in texts(labelled)[0]
    assert label_frame(atoms, LabelKeys(energy="energy")).energy == -10.5
    atoms.info["REF_energy"] = -10.5  # repeats one of the two
    assert label_frame(atoms).energy == -10.8
    atoms.info["REF_energy"] = -3.0
    with pytest.raises(ValueError, match="info entry 'REF_energy' differ"):
        label_frame(atoms)


def test_equal_free_energy_is_not_worth_a_word():
    atoms = frame()
    atoms.calc.results["free_energy"] = -10.5
    assert label_frame(atoms).remarks == ()


def test_one_atom_needs_no_forces():
    labelled = label_frame(frame(n_atoms=1, forces=False))
    assert labelled.energy == -10.5
    assert np.isnan(labelled.forces).all()


def test_labels_in_an_electric_field_are_refused():
    atoms = Atoms("Na", info={"energy": -1.0, "external_field": np.array([0.0, 0.0, 0.1])})
    with pytest.raises(
        ValueError, match=r"in an electric field \(external_field 0.0 0.0 0.1 V/Angstrom\), which its labels"
    ):
        label_frame(atoms)
    with pytest.raises(ValueError, match=r'the frame: atoms.info\["external_field"\] must be three numbers'):
        label_frame(Atoms("Na", info={"energy": -1.0, "external_field": "z"}))
    atoms.info["external_field"] = np.zeros(3)
    assert label_frame(atoms).energy == -1.0
    del atoms.info["energy"]
    atoms.info["external_field"] = np.ones(3)
    assert len(label_frame(atoms, required=()).atoms) == 1  # selection needs no labels


def test_partial_labels_are_an_error_unless_accepted():
    atoms = frame(forces=False)
    with pytest.raises(
        UnlabelledFrame,
        match=r"the frame has no forces under any of.*or train on energies alone: --set stages.loss.forces=0",
    ):
        label_frame(atoms)
    assert np.isnan(label_frame(atoms, partial=True).forces).all()
    atoms.calc = None
    with pytest.raises(UnlabelledFrame, match="the frame has no energy under any of"):
        label_frame(atoms, partial=True)


def test_entries_that_look_like_a_missing_label_are_never_passed_over():
    atoms = frame(forces=False)
    atoms.arrays["my_forces"] = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"has no forces .* forces key: 'my_forces' looks like it"):
        label_frame(atoms, partial=True)
    doubts = [remark.text for remark in label_frame(atoms, required=()).remarks if remark.is_warning]
    assert doubts == ["'my_forces' looks like forces but is not read: name it as the forces key"]
    assert "'virial_GPa' looks like stress" in texts(label_frame(frame(virial_GPa=VIRIAL)))[0]


def test_rules_leave_out_frames_without_labels_when_asked():
    bare = frame(forces=False)
    bare.calc = None
    assert LabelRules(skip_unlabelled=True).label(bare) is None
    assert LabelRules(skip_unlabelled=True).label(frame(), weight=2.0).weight == 2.0
    with pytest.raises(UnlabelledFrame, match="leave unlabelled frames out by --skip-unlabelled"):
        LabelRules().label(bare)


def test_charge_under_another_name_is_said():
    labelled = label_frame(frame(total_charge=1))
    assert texts(labelled) == ["total charge read from info entry 'total_charge'"]
    assert labelled_atoms(labelled).info["charge"] == 1.0


def test_key_names_the_charge():
    atoms = frame(q=-1)
    assert labelled_atoms(label_frame(atoms, LabelKeys(charge="q"))).info["charge"] == -1.0
    with pytest.raises(ValueError, match=r"f\.xyz@3: no charge under the key 'q'"):
        label_frame(frame(lrc_ase_source="f.xyz@3"), LabelKeys(charge="q"))


@pytest.mark.parametrize(
    ("entries", "message"),
    [({"charge": "cation"}, "one number, got 'cation'"), ({"charge": 1, "net_charge": 2}, "two total charges")],
)
def test_charges_that_cannot_be_read_name_file_and_frame(entries, message):
    with pytest.raises(ValueError, match=rf"f\.xyz@3: .*{message}"):
        label_frame(frame(lrc_ase_source="f.xyz@3", **entries))


def test_dummy_atoms_name_file_and_frame():
    atoms = frame(lrc_ase_source="f.xyz@3")
    atoms.numbers[1] = 0
    with pytest.raises(ValueError, match=r"f\.xyz@3: atoms \[1\] are 'X' \(atomic number 0\)"):
        label_frame(atoms)


@pytest.mark.parametrize("key", ["config_weight", "weight"])
def test_weights_of_frames_multiply(key):
    labelled = label_frame(frame(**{key: 0.5}), weight=3.0)
    assert labelled.weight == 1.5
    assert texts(labelled) == [f"weight in the loss read from info entry '{key}'"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"weight": "heavy"}, "'weight' must be a weight, one number, got 'heavy'"),
        ({"weight": -1}, "'weight' must be a weight of 0 or more"),
        ({"weight": 1, "config_weight": 2}, "'config_weight' and 'weight' differ"),
    ],
)
def test_weights_that_cannot_be_read_are_errors(entries, message):
    with pytest.raises(ValueError, match=message):
        label_frame(frame(**entries))


def test_weight_zero_of_one_label_leaves_it_out():
    labelled = label_frame(frame(config_energy_weight=0.0), partial=True)
    assert np.isnan(labelled.energy)
    assert np.isfinite(labelled.forces).all()
    assert texts(labelled) == ["energy left out: info entry 'config_energy_weight' is 0"]
    assert "'config_forces_weight' is not read" in texts(label_frame(frame(config_forces_weight=2.0)))[0]


@pytest.mark.parametrize(
    ("constraint", "zeroed"),
    [
        (FixAtoms([0]), [True, True, True]),
        (FixCartesian(0, (1, 0, 1)), [True, False, True]),
        (FixScaled(0, (1, 1, 1)), [True, True, True]),
        (FixScaled(0, (0, 0, 1)), [False, False, True]),
        (FixedPlane(0, (0, 0, 1)), [False, False, True]),
        (FixedLine(0, (0, 0, 1)), [True, True, False]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_zeroed_components_of_constraints_are_no_labels(constraint, zeroed):
    atoms = frame()
    forces = np.where(np.array([zeroed, [False] * 3]), 0.0, 0.3)
    atoms.calc.results["forces"] = forces
    atoms.set_constraint(constraint)
    assert np.array_equal(np.isnan(label_frame(atoms).forces), forces == 0)


def test_remarks_are_counted_and_reported():
    frames = [label_frame(frame(virial=VIRIAL, lrc_ase_source=f"f.xyz@{index}")) for index in range(3)]
    (remark,) = counted_remarks([*frames, label_frame(frame())])
    assert remark.text.endswith("'virial' (3 of 4 frames, first f.xyz@0)")
    report = inspect_frames({"set": frames})
    assert report.notes == (f"set: {counted_remarks(frames)[0].text}",)
    charged = frame()
    charged.set_initial_charges([1, 0])
    assert any(
        "initial charges sum to +1 e" in text for text in inspect_frames({"set": [label_frame(charged)]}).warnings
    )
