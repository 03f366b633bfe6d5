"""Paths with special characters, and files of programs whose labels ASE leaves out or does not read."""

from __future__ import annotations

import shutil

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from lrc_ase.dataset import LabelledFrame, inspect_frames, label_frame, read_frames, write_frames
from lrc_ase.dataset.paths import matching_files
from lrc_ase.dataset.reading import iterate_frames, source_files
from lrc_ase.structures.charge import total_charge


def salt(energy, **info):
    atoms = Atoms("NaCl", [[0, 0, 0], [2.8, 0, 0]], cell=[6, 7, 8], pbc=True, info=info)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.array([[0.1, 0, 0], [-0.1, 0, 0]]))
    return atoms


def energies(path):
    return [label_frame(atoms).energy for atoms in read_frames(path)]


@pytest.mark.parametrize("folder", ["jo@uni.edu", "run[2]", "run[2]@300K", "a[b-c]*d?", "{x}"])
@pytest.mark.parametrize("absolute", [True, False])
def test_special_characters_in_folders_are_literal(tmp_path, monkeypatch, folder, absolute):
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("one[1].traj", "two@2.traj"):
        ase.io.write(tmp_path / folder / name, [salt(1.0), salt(2.0)])
    start = f"{tmp_path}/{folder}" if absolute else folder
    assert energies(f"{start}/*.traj") == [1.0, 2.0, 1.0, 2.0]
    assert energies(f"{start}/*.traj@1") == [2.0, 2.0]
    assert energies(f"{start}/one[1].traj") == energies(f"{start}/two@2.traj") == [1.0, 2.0]
    assert energies(f"{start}/one[1].traj@:1") == energies(f"{start}/two@2.traj@0") == [1.0]


def test_wildcards_still_match_where_no_folder_has_their_name(tmp_path):
    for name in ("run1", "run2", "run3"):
        (tmp_path / name / "deep").mkdir(parents=True)
        ase.io.write(tmp_path / name / "deep" / "f.traj", salt(float(name[-1])))
    assert energies(f"{tmp_path}/run[12]/deep/*.traj") == [1.0, 2.0]
    assert energies(f"{tmp_path}/**/f.traj@:") == [1.0, 2.0, 3.0]


def test_paths_that_match_nothing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file matches '.*jo@uni/\*\.traj'"):
        list(matching_files(f"{tmp_path}/jo@uni/*.traj"))
    (tmp_path / "notes").touch()
    with pytest.raises(ValueError, match=r"is a folder: name files in it, .*\*\.extxyz\. .*must hold type\.raw"):
        list(matching_files(str(tmp_path)))
    for name in ("1.out", "2.out", "1.inp"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"such as .*/\*\.out\. A folder"):
        list(matching_files(str(tmp_path)))


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_key_value_pairs_and_data_of_databases_are_read(tmp_path, suffix):
    path = tmp_path / f"frames.{suffix}"
    forces = np.array([[0.3, 0, 0], [-0.3, 0, 0]])
    with ase.db.connect(path) as database:
        for charge in (-1, 0, 1):
            atoms = salt(float(charge))
            atoms.calc = None
            database.write(
                atoms,
                key_value_pairs={"total_charge": charge, "REF_energy": 2.0 * charge, "config_type": "ion"},
                data={"REF_forces": forces, "REF_virial": np.eye(3)},
            )
    frames = [label_frame(atoms) for atoms in read_frames(path)]
    assert [total_charge(frame.atoms) for frame in frames] == [-1.0, 0.0, 1.0]
    assert [frame.energy for frame in frames] == [-2.0, 0.0, 2.0]
    assert all(np.array_equal(frame.forces, forces) for frame in frames)
    assert np.allclose(frames[0].stress, -np.eye(3) / (6 * 7 * 8))
    assert [frame.name for frame in frames] == [f"{path}@{index}" for index in range(3)]
    assert energies(f"{path}@::2") == [-2.0, 2.0]
    assert energies(f"{path}@total_charge=1") == [2.0]


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_databases_without_a_charge_say_that_they_keep_none(tmp_path, suffix):
    ase.io.write(tmp_path / f"frames.{suffix}", salt(1.0, charge=1))
    (frame,) = [label_frame(atoms) for atoms in read_frames(tmp_path / f"frames.{suffix}")]
    assert [remark.text.partition(":")[0] for remark in frame.remarks] == ["neutral"]


@pytest.mark.parametrize("suffix", ["db", "json", "extxyz", "traj"])
def test_total_charges_survive_writing(tmp_path, suffix):
    path = tmp_path / f"frames.{suffix}"
    write_frames(path, [salt(1.0, charge=-1), salt(2.0)])
    write_frames(path, [salt(1.0, charge=1), salt(2.0)])  # in place of the former
    assert [total_charge(atoms) for atoms in read_frames(path)] == [1.0, 0.0]


def test_a_format_without_charges_is_named(tmp_path):
    with pytest.warns(UserWarning, match=r"frames\.cif: this format keeps no total charge"):
        write_frames(tmp_path / "frames.cif", [salt(1.0, charge=1)])


def deepmd_folder(folder, n_frames=3, **changes):
    """System of three atoms, as DeePMD-kit writes it."""
    rng = np.random.default_rng(0)
    arrays = {
        "coord": rng.normal(size=(n_frames, 9)),
        "box": np.tile(np.diag([6.0, 7.0, 8.0]).ravel(), (n_frames, 1)),
        "energy": np.arange(n_frames, dtype=np.float32) - 5,
        "force": rng.normal(size=(n_frames, 9)),
        "virial": np.tile(np.eye(3).ravel(), (n_frames, 1)),
    } | changes
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("1\n0\n0\n")
    (folder / "type_map.raw").write_text("H\nO\n")
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / "set.000" / f"{name}.npy", array)
    return arrays


def test_deepmd_folders_are_read(tmp_path):
    arrays = deepmd_folder(tmp_path / "water")
    frames = [label_frame(atoms) for atoms in read_frames(tmp_path / "water")]
    assert [frame.energy for frame in frames] == [-5.0, -4.0, -3.0]
    assert frames[1].atoms.get_chemical_formula("reduce") == "OH2"
    assert np.array_equal(frames[1].atoms.positions, arrays["coord"][1].reshape(3, 3))
    assert np.array_equal(frames[1].forces, arrays["force"][1].reshape(3, 3))
    assert np.allclose(frames[1].stress, -np.eye(3) / (6 * 7 * 8))
    assert frames[1].name == f"{tmp_path}/water@1"
    assert energies(f"{tmp_path}/wat*@::2") == [-5.0, -3.0]
    assert energies(f"{tmp_path}/water@-1") == [-3.0]
    assert {path.name for path in source_files(str(tmp_path / "water"))} == {
        "type.raw",
        "type_map.raw",
        *(f"{name}.npy" for name in arrays),
    }


def deepmd_text_folder(folder, **changes):
    """The same system before its division into sets: text, a frame per line."""
    arrays = deepmd_folder(folder, **changes)
    shutil.rmtree(folder / "set.000")
    for name, array in arrays.items():
        if array is not None:
            np.savetxt(folder / f"{name}.raw", array)
    return arrays


def test_deepmd_folders_of_text_are_read(tmp_path):
    arrays = deepmd_text_folder(tmp_path / "text")
    frames = [label_frame(atoms) for atoms in read_frames(tmp_path / "text")]
    assert [frame.energy for frame in frames] == [-5.0, -4.0, -3.0]
    assert frames[0].atoms.get_chemical_formula("reduce") == "OH2"
    assert np.array_equal(frames[2].atoms.positions, arrays["coord"][2].reshape(3, 3))
    assert np.array_equal(frames[2].forces, arrays["force"][2].reshape(3, 3))
    assert np.allclose(frames[1].stress, -np.eye(3) / (6 * 7 * 8))
    assert {path.name for path in source_files(str(tmp_path / "text"))} == {
        "type.raw",
        "type_map.raw",
        *(f"{name}.raw" for name in arrays),
    }
    deepmd_text_folder(tmp_path / "one", n_frames=1)
    assert energies(tmp_path / "one") == [-5.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coord": None}, r"a folder of DeePMD-kit needs folders set\.000, .* or coord\.raw beside type\.raw"),
        ({"box": None}, r"text: box\.raw is missing"),
        ({"force": np.zeros((3, 8))}, r"force\.raw must have 9 numbers per line and frame: got 8"),
        ({"energy": np.zeros(2)}, r"coord\.raw holds 3 frames but energy\.raw 2"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_deepmd_text_that_does_not_fit_is_named(tmp_path, changes, message):
    deepmd_text_folder(tmp_path / "text", **changes)
    with pytest.raises(ValueError, match=message):
        read_frames(tmp_path / "text")


def test_deepmd_text_that_is_no_numbers_or_not_read_is_named(tmp_path):
    deepmd_text_folder(tmp_path / "text", atom_ener=np.zeros((3, 3)))
    with pytest.warns(UserWarning, match=r"text: atom_ener\.raw not read"):
        read_frames(tmp_path / "text")
    (tmp_path / "text/atom_ener.raw").unlink()
    (tmp_path / "text/coord.raw").write_text("1 2 x\n")
    with pytest.raises(ValueError, match=r"coord\.raw must have 9 numbers per line and frame: .*x"):
        read_frames(tmp_path / "text")


def test_deepmd_clusters_and_frames_of_mixed_size_are_read(tmp_path):
    types = np.array([[1, 0, 0], [1, 0, -1], [0, 0, 0]])
    deepmd_folder(tmp_path / "mixed", box=None, virial=None, real_atom_types=types)
    (tmp_path / "mixed" / "nopbc").touch()
    frames = read_frames(tmp_path / "mixed")
    assert [atoms.get_chemical_formula("reduce") for atoms in frames] == ["OH2", "OH", "H3"]
    assert not frames[0].pbc.any()
    assert label_frame(frames[1]).forces.shape == (2, 3)


def test_deepmd_arrays_that_are_not_read_are_named(tmp_path):
    deepmd_folder(tmp_path / "water", fparam=np.ones((3, 1)))
    with pytest.warns(UserWarning, match=r"set\.000: fparam\.npy not read; a total charge belongs into"):
        read_frames(tmp_path / "water")


def test_deepmd_structures_without_labels_are_read(tmp_path):
    deepmd_folder(tmp_path / "water", energy=None, force=None, virial=None)
    assert [atoms.calc for atoms in read_frames(tmp_path / "water")] == [None] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coord": None}, r"set\.000: coord\.npy is missing"),
        ({"box": None}, r"set\.000: box\.npy is missing; an empty file `nopbc`"),
        ({"force": np.zeros((3, 8))}, r"force\.npy must have 9 numbers per frame, got shape \[3, 8\]"),
        ({"energy": np.zeros(2)}, r"coord\.npy holds 3 frames but energy\.npy 2"),
        ({"energy": np.array(["a", "b", "c"])}, r"energy\.npy must hold an array of numbers"),
        ({"energy": np.array([{}, 1, 2], dtype=object)}, r"energy\.npy is no plain NumPy array"),
        ({"real_atom_types": np.full((3, 3), 7)}, r"type 7 has no element: type_map\.raw names 2"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_deepmd_arrays_that_do_not_fit_are_named(tmp_path, changes, message):
    deepmd_folder(tmp_path / "water", **changes)
    with pytest.raises(ValueError, match=message):
        read_frames(tmp_path / "water")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("type_map.raw", None, r"type_map\.raw is missing: write the element of each type"),
        ("type_map.raw", "H\nOW\n", r"type_map\.raw: \['OW'\] are no elements"),
        ("type.raw", "H O H", r"type\.raw must hold the type of each atom"),
    ],
)
def test_deepmd_types_that_are_no_elements_are_named(tmp_path, name, text, message):
    deepmd_folder(tmp_path / "water")
    (tmp_path / "water" / name).unlink()
    if text is not None:
        (tmp_path / "water" / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_frames(tmp_path / "water")


def test_deepmd_header_that_promises_too_much_is_refused(tmp_path):
    deepmd_folder(tmp_path / "water")
    path = tmp_path / "water" / "set.000" / "coord.npy"
    path.write_bytes(path.read_bytes().replace(b"(3, 9)", b"(999999999, 9)".ljust(6))[:400])
    with pytest.raises(ValueError, match=r"coord\.npy is no plain NumPy array"):
        read_frames(tmp_path / "water")


def test_isotopes_are_named(tmp_path):
    path = tmp_path / "heavy.xyz"
    path.write_text("1\n\nD 0 0 0\n")
    with pytest.raises(ValueError, match=r"heavy\.xyz holds atoms of 'D', .* isotopes such as D are written as"):
        read_frames(path)


def test_output_of_cp2k_names_the_converting_command(tmp_path):
    path = tmp_path / "run.out"
    path.write_text(" DBCSR| Multiplication driver\n CP2K| version string: CP2K version 2024.1\n")
    with pytest.raises(ValueError, match=r"`dpdata .*run\.out -i cp2k/output -o deepmd/npy -O frames`"):
        read_frames(path)


def test_trajectory_of_cp2k_names_the_converting_command(tmp_path):
    path = tmp_path / "water-pos-1.xyz"
    path.write_text("1\n i =        0, time =        0.000, E =       -17.2\nH 0 0 0\n")
    with pytest.raises(ValueError, match=r"pos-1\.xyz@0 has no energy .*if CP2K wrote it: .*-i cp2k/aimd_output"):
        label_frame(read_frames(path)[0])
    frame = LabelledFrame(read_frames(path)[0], np.nan, np.full((1, 3), np.nan), np.full((3, 3), np.nan), "frame")
    assert "If CP2K wrote them: The program dpdata" in inspect_frames({"set": [frame]}).warnings[0]


VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="program" type="string">vasp </i><i name="version" type="string">6.3.0  </i></generator>
 <incar><i type="int" name="ISMEAR">1</i></incar>
 <kpoints><varray name="kpointlist"><v>0.0 0.0 0.0</v></varray><varray name="weights"><v>1.0</v></varray></kpoints>
 <atominfo><atoms>1</atoms><types>1</types>
  <array name="atoms"><dimension dim="1">ion</dimension><field type="string">element</field>
   <field type="int">atomtype</field>
   <set><rc><c>Al</c><c>   1</c></rc></set></array></atominfo>
 <structure name="initialpos"><crystal><varray name="basis">
   <v>4.0 0.0 0.0</v><v>0.0 4.0 0.0</v><v>0.0 0.0 4.0</v></varray><i name="volume">64.0</i></crystal>
  <varray name="positions"><v>0.0 0.0 0.0</v></varray></structure>
 <calculation>
  <scstep><energy><i name="e_fr_energy">-3.80</i><i name="e_wo_entrp">-3.70</i><i name="e_0_energy">-3.75</i></energy>
  </scstep>
  <structure><crystal><varray name="basis"><v>4.0 0.0 0.0</v><v>0.0 4.0 0.0</v><v>0.0 0.0 4.0</v></varray></crystal>
   <varray name="positions"><v>0.0 0.0 0.0</v></varray></structure>
  <varray name="forces"><v>0.1 0.2 0.3</v></varray>
  <varray name="stress"><v>16.0 0.0 0.0</v><v>0.0 16.0 0.0</v><v>0.0 0.0 16.0</v></varray>
  <energy><i name="e_fr_energy">-3.80</i><i name="e_wo_entrp">-3.70</i><i name="e_0_energy">-3.75</i></energy>
 </calculation>
</modeling>
"""


def test_vasp_energies_are_those_of_which_forces_are_the_derivative(tmp_path):
    path = tmp_path / "vasprun.xml"
    path.write_text(VASPRUN)
    (frame,) = [label_frame(atoms) for atoms in read_frames(path)]
    assert frame.energy == -3.80  # e_fr_energy, not e_0_energy
    assert "energy read from 'free_energy'" in frame.remarks[0].text
    assert frame.forces.tolist() == [[0.1, 0.2, 0.3]]


def test_frames_are_streamed(tmp_path):
    ase.io.write(tmp_path / "f.extxyz", [salt(float(index)) for index in range(4)])
    frames = iterate_frames(str(tmp_path / "f.extxyz"), "1:")
    assert next(frames).get_potential_energy() == 1.0
