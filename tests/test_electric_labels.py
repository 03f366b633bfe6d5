"""Dipoles, Born effective charges and polarizabilities of frames: where they are read, and what is refused."""

from __future__ import annotations

import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from lrc_ase.dataset import (
    ELECTRIC_LABELS,
    LabelKeys,
    collate_labelled,
    label_frame,
    labelled_atoms,
    labelled_graph,
    read_frames,
    write_frames,
)
from lrc_ase.dataset.label_values import DETECTED_KEYS

RNG = np.random.default_rng(0)
DIPOLE = np.array([0.3, -0.2, 0.5])
POLARIZABILITY = np.diag([0.08, 0.1, 0.12])
SOURCE = {"lrc_ase_source": "f.xyz@3"}


def water(*, results=(), arrays=(), pbc=False, cell=(9, 9, 9), **info):
    atoms = molecule("H2O", cell=cell, pbc=pbc)
    atoms.info |= SOURCE | info
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((3, 3)), **dict(results))
    for name, value in dict(arrays).items():
        atoms.arrays[name] = np.asarray(value)
    return atoms


def point_charges(charges=(-0.8, 0.4, 0.4)):
    """Dipole and Born effective charges of charges that depend on the bond lengths; polarization first."""
    atoms = molecule("H2O")
    atoms.positions[1] += [0.1, 0.2, 0.3]

    def dipole(positions):
        first, second = (np.linalg.norm(positions[index] - positions[0]) for index in (1, 2))
        moved = np.array([-first, second, first - second])
        return (np.array(charges) + 0.8 * moved) @ positions

    born = np.empty((3, 3, 3))
    for atom, axis in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[atom, axis] = 1e-4
        born[atom, :, axis] = (dipole(atoms.positions + step) - dipole(atoms.positions - step)) / 2e-4
    return atoms, dipole(atoms.positions), born


def remarks_of(frame):
    return [remark.text for remark in frame.remarks]


@pytest.mark.parametrize("name", DETECTED_KEYS["dipole"])
@pytest.mark.parametrize("value", [DIPOLE, list(DIPOLE), "0.3 -0.2 0.5", "0.3D0 -0.2 0.5", [DIPOLE]], ids=type)
def test_dipoles_are_read_under_every_name(name, value):
    assert np.array_equal(label_frame(water(**{name: value})).dipole, DIPOLE)


def test_labels_are_read_from_a_calculator():
    born = RNG.normal(size=(3, 3, 3))
    frame = label_frame(water(results={"dipole": DIPOLE, "born_effective_charges": born}, charge=1))
    assert np.array_equal(frame.dipole, DIPOLE)
    assert np.array_equal(frame.born_effective_charges, born)
    assert frame.polarizability is None
    assert [frame.has(label) for label in ELECTRIC_LABELS] == [True, True, False]


@pytest.mark.parametrize("name", DETECTED_KEYS["born_effective_charges"])
@pytest.mark.parametrize("shape", [(3, 9), (3, 3, 3)])
def test_born_charges_are_read_under_every_name_with_polarization_first(name, shape):
    rows = np.arange(27.0)
    frame = label_frame(water(arrays={name: rows.reshape(shape)}))
    assert frame.born_effective_charges[1, 0, 2] == 11.0


@pytest.mark.parametrize("name", DETECTED_KEYS["polarizability"])
@pytest.mark.parametrize("value", [POLARIZABILITY, POLARIZABILITY.ravel()])
def test_polarizabilities_are_read_under_every_name(name, value):
    frame = label_frame(water(**{name: value}))
    assert np.array_equal(frame.polarizability, POLARIZABILITY)
    assert not frame.remarks


def test_keys_name_the_labels():
    atoms = water(mu=DIPOLE, alpha=POLARIZABILITY, arrays={"Z": np.ones((3, 9))})
    assert not any(label_frame(atoms).has(label) for label in ELECTRIC_LABELS)
    frame = label_frame(atoms, LabelKeys(dipole="mu", born_effective_charges="Z", polarizability="alpha"))
    assert all(frame.has(label) for label in ELECTRIC_LABELS)


@pytest.mark.parametrize(
    ("atoms", "keys", "message"),
    [
        (water(mu=1.5), {"dipole": "mu"}, r"dipole must have shape \[3\] or \[1, 3\], got \[\] in info entry 'mu'"),
        (
            water(mu="1 2 3 Debye"),
            {"dipole": "mu"},
            "dipole, info entry 'mu', is the text .*expected numbers in e Angs",
        ),
        (water(mu=[1, 2, np.inf]), {"dipole": "mu"}, "dipole is not finite"),
        (
            water(arrays={"Z": np.ones((3, 3))}),
            {"born_effective_charges": "Z"},
            r"born_effective_charges must have shape \[3, 3, 3\] or \[3, 9\], got \[3, 3\] in array 'Z'",
        ),
        (
            water(alpha=[1, 2, 3, 0, 0, 0]),
            {"polarizability": "alpha"},
            r"polarizability must have shape \[3, 3\] or \[9\], got \[6\] in info entry 'alpha'",
        ),
        (water(results={"dipole": DIPOLE}, REF_dipole=2 * DIPOLE), {}, "'dipole' and .*'REF_dipole' differ"),
    ],
)
def test_wrong_shapes_and_numbers_are_errors_that_name_frame_and_key(atoms, keys, message):
    with pytest.raises(ValueError, match=rf"f\.xyz@3: .*{message}"):
        label_frame(atoms, LabelKeys(**keys), required=("dipole",))


@pytest.mark.parametrize("required", [("energy", "forces"), ("dipole",)])
def test_a_label_that_nobody_asked_for_is_left_out_with_a_doubt(required):
    atoms = water(dipole=1.85)  # its size in Debye
    if "dipole" in required:
        with pytest.raises(ValueError, match=r"f\.xyz@3: dipole must have shape"):
            label_frame(atoms, required=required)
        return
    frame = label_frame(atoms, required=required)
    assert frame.dipole is None
    assert frame.remarks[0].is_warning
    assert remarks_of(frame)[0].startswith("not read: dipole must have shape [3]")


@pytest.mark.parametrize("label", ELECTRIC_LABELS)
def test_names_that_look_like_a_label_are_doubted(label):
    entries = {
        "dipole": water(molecular_dipole=DIPOLE),
        "born_effective_charges": water(arrays={"bec": np.ones((3, 9))}),
        "polarizability": water(dft_polarizability_tensor=POLARIZABILITY),
    }
    (remark,) = remarks_of(label_frame(entries[label]))
    assert f"looks like {label} but is not read: name it as the {label} key" in remark


def test_required_labels_that_are_absent_are_named():
    with pytest.raises(ValueError, match=r"f\.xyz@3 has no polarizability under any of \['polarizability'"):
        label_frame(water(), required=("polarizability",))
    assert label_frame(water(), required=("energy", "dipole"), partial=True).dipole is None


@pytest.mark.parametrize(
    ("pbc", "cell", "known"),
    [
        (False, np.eye(3) * 9, [True, True, True]),
        ((True, True, False), np.eye(3) * 9, [False, False, True]),
        ((True, True, False), [[6, 6, 0], [6, -6, 0], [0, 0, 20]], [False, False, True]),
        ((True, False, False), [[6, 6, 0], [6, -6, 0], [0, 0, 20]], [False, False, True]),
        ((True, True, False), [[6, 0, 3], [0, 6, 0], [0, 0, 20]], [False, False, False]),
        (True, np.eye(3) * 9, [False, False, False]),
    ],
)
def test_dipoles_are_left_out_along_periodic_directions(pbc, cell, known):
    frame = label_frame(water(pbc=pbc, cell=cell, dipole=DIPOLE))
    if not any(known):
        assert frame.dipole is None
    else:
        assert np.array_equal(np.isfinite(frame.dipole), known)
        assert np.array_equal(frame.dipole[known], DIPOLE[known])
    assert bool(frame.remarks) == (not all(known))
    if frame.remarks:
        assert "dipole left out: along periodic directions a dipole is known up to cell vectors" in remarks_of(frame)[0]


def test_transposed_born_charges_are_an_error():
    atoms, dipole, born = point_charges()
    atoms.info |= SOURCE | {"dipole": dipole}
    atoms.arrays["Z"] = born.reshape(3, 9)
    keys = LabelKeys(born_effective_charges="Z")
    assert np.array_equal(label_frame(atoms, keys, required=()).born_effective_charges, born)
    atoms.arrays["Z"] = born.transpose(0, 2, 1).reshape(3, 9)
    with pytest.raises(ValueError, match=r"f\.xyz@3: array 'Z' holds .* displacement first and polarization second"):
        label_frame(atoms, keys, required=())
    del atoms.info["dipole"]  # nothing shows the order
    assert label_frame(atoms, keys, required=()).has("born_effective_charges")


@pytest.mark.parametrize(("about", "doubted"), [("origin", False), ("center of mass", True)])
def test_dipoles_of_charged_structures_about_the_center_of_mass_are_doubted(about, doubted):
    atoms = water(charge=1)
    atoms.translate([5.0, 0, 0])
    center = atoms.get_center_of_mass()
    atoms.info["dipole"] = DIPOLE + (center if about == "origin" else 0)
    (*remarks,) = label_frame(atoms).remarks
    assert [remark.is_warning for remark in remarks] == [True] * doubted
    if doubted:
        assert "counts from the center of mass: expected is a dipole about the origin" in remarks[0].text


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (POLARIZABILITY + np.triu(np.ones((3, 3)), 1), "the polarizability is not symmetric"),
        (-POLARIZABILITY, "the polarizability is not positive in all directions"),
    ],
)
def test_implausible_polarizabilities_are_doubted(tensor, message):
    (remark,) = label_frame(water(polarizability=tensor)).remarks
    assert remark == (message, True)


def test_atoms_of_frames_may_lack_born_charges():
    born = np.ones((3, 3, 3))
    born[1] = np.nan
    frame = label_frame(water(arrays={"born_effective_charges": born}))
    assert np.isnan(frame.born_effective_charges).sum() == 9
    assert not label_frame(water(arrays={"born_effective_charges": np.nan * born})).has("born_effective_charges")


def test_weights_of_zero_leave_labels_out():
    frame = label_frame(water(dipole=DIPOLE, config_dipole_weight=0))
    assert frame.dipole is None
    assert "dipole left out: info entry 'config_dipole_weight' is 0" in remarks_of(frame)


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_written_frames_keep_the_labels(tmp_path, suffix):
    born = RNG.normal(size=(3, 3, 3))
    results = {"dipole": DIPOLE, "born_effective_charges": born}
    frame = label_frame(water(results=results, polarizability=POLARIZABILITY, charge=1))
    write_frames(tmp_path / f"frames.{suffix}", [labelled_atoms(frame)])
    (again,) = (label_frame(atoms) for atoms in read_frames(tmp_path / f"frames.{suffix}"))
    for label in ELECTRIC_LABELS:
        np.testing.assert_allclose(getattr(again, label), getattr(frame, label), rtol=0, atol=1e-7)


def test_three_numbers_of_a_molecule_of_three_atoms_in_a_database_are_its_dipole(tmp_path):
    with ase.db.connect(tmp_path / "frames.db") as database:
        database.write(molecule("H2O"), data={"dipole": DIPOLE, "polarizability": POLARIZABILITY})
    (frame,) = (label_frame(atoms, required=()) for atoms in read_frames(tmp_path / "frames.db"))
    assert np.array_equal(frame.dipole, DIPOLE)
    assert np.array_equal(frame.polarizability, POLARIZABILITY)


def test_batches_hold_nan_for_frames_without_a_label():
    with_label = label_frame(water(dipole=DIPOLE, arrays={"born_effective_charges": np.ones((3, 9))}))
    graphs = [labelled_graph(each, ("H", "O"), 3.0, torch.zeros(2)) for each in (label_frame(water()), with_label)]
    batch = collate_labelled(graphs)
    assert batch.dipole.isnan().tolist() == [[True] * 3, [False] * 3]
    assert batch.born_effective_charges.shape == (6, 3, 3)
    assert batch.born_effective_charges.isnan().any(dim=(1, 2)).tolist() == [True] * 3 + [False] * 3
    assert batch.polarizability is None
    assert batch.to("cpu").polarizability is None
    atom = Atoms("H", info={"dipole": DIPOLE})
    assert label_frame(atom, required=()).has("dipole")
