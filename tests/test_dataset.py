"""Frames, labels and batches."""

from __future__ import annotations

import itertools

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from lrc_ase.dataset import (
    LabelKeys,
    batch_indices,
    collate_labelled,
    elements_of,
    force_rms,
    label_frame,
    labelled_graph,
    read_frames,
    split_indices,
)


def water(energy=-470.0, *, seed=0, **info):
    rng = np.random.default_rng(seed)
    positions = np.array([[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]) + 0.02 * rng.normal(size=(3, 3))
    atoms = Atoms("OHH", positions=positions, cell=[6, 6, 6], pbc=True, info=info)
    stress = np.arange(6.0) / 100
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=rng.normal(size=(3, 3)), stress=stress)
    return atoms


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_constraints_do_not_zero_forces(tmp_path, suffix):
    atoms = water()
    forces = atoms.calc.results["forces"].copy()
    atoms.set_constraint(FixAtoms([0, 1]))
    path = tmp_path / f"frames.{suffix}"
    ase.io.write(path, atoms)
    (frame,) = read_frames(path)
    assert frame.constraints
    assert np.abs(label_frame(frame).forces - forces).max() < 1e-7


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("", range(5)),
        ("@1:4", [1, 2, 3]),
        ("@::2", [0, 2, 4]),
        ("@-1", [4]),
        ("@2", [2]),
        ("@-2:", [3, 4]),
        ("@::-1", [4, 3, 2, 1, 0]),
    ],
)
def test_slices_select_and_name_frames_as_ase(tmp_path, selection, expected):
    path = tmp_path / "frames.extxyz"
    ase.io.write(path, [water(energy=float(index)) for index in range(5)])
    frames = read_frames(f"{path}{selection}")
    assert [label_frame(atoms).energy for atoms in frames] == list(expected)
    assert [label_frame(atoms).name for atoms in frames] == [f"{path}@{index}" for index in expected]


@pytest.mark.parametrize("suffix", ["traj", "extxyz", "db", "json"])
def test_formats_of_ase_keep_labels(tmp_path, suffix):
    frames = [water(energy=-470.0 - index, seed=index) for index in range(3)]
    path = tmp_path / f"frames.{suffix}"
    ase.io.write(path, frames)
    actual = [label_frame(atoms) for atoms in read_frames(f"{path}@1:")]
    assert [frame.energy for frame in actual] == [-471.0, -472.0]
    for frame, atoms in zip(actual, frames[1:], strict=True):
        assert np.allclose(frame.forces, atoms.calc.results["forces"], atol=1e-7)
        assert np.isfinite(frame.stress).all()


def test_wildcards_and_several_files_are_read_in_order(tmp_path):
    for name in ("b", "a", "c"):
        ase.io.write(tmp_path / f"{name}.traj", [water(energy=float(ord(name)))])
    frames = read_frames([str(tmp_path / "[ab].traj"), tmp_path / "c.traj"])
    assert [label_frame(atoms).energy for atoms in frames] == [97.0, 98.0, 99.0]


def test_file_names_may_hold_an_at_sign(tmp_path):
    path = tmp_path / "run@300K.traj"
    ase.io.write(path, [water(), water(energy=1.0)])
    assert len(read_frames(path)) == 2
    assert [label_frame(atoms).energy for atoms in read_frames(f"{path}@1")] == [1.0]


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file matches .*absent\*\.xyz"):
        read_frames(str(tmp_path / "absent*.xyz"))
    path = tmp_path / "broken.extxyz"
    path.write_text("three\n\n")
    with pytest.raises(ValueError, match=r"ASE cannot read .*broken\.extxyz"):
        read_frames(path)
    for number in range(7):
        (tmp_path / f"broken-{number}.extxyz").write_text("three\n\n")
    with pytest.raises(
        ValueError, match=r"ASE cannot read .*broken-0\.extxyz: .*\. 6 files more cannot be read: "
    ) as raised:
        read_frames(str(tmp_path / "broken-*.extxyz"))
    assert str(raised.value).endswith("broken-5.extxyz, ...")
    good = tmp_path / "good.extxyz"
    ase.io.write(good, water())
    with pytest.raises(ValueError, match=r"good\.extxyz@3: holds no frame"):
        read_frames(f"{good}@3:")


def test_missing_labels_name_file_frame_and_what_is_there(tmp_path):
    path = tmp_path / "frames.extxyz"
    unlabelled = water(Energie=-470.0)
    unlabelled.calc = None
    ase.io.write(path, [water(), unlabelled])
    frames = read_frames(path)
    with pytest.raises(ValueError, match=r"frames\.extxyz@1 has no energy .*'Energie'.*energy key"):
        label_frame(frames[1])
    with pytest.raises(ValueError, match=r"frames\.extxyz@1 has no forces"):
        label_frame(frames[1], LabelKeys(energy="Energie"))
    labelled = label_frame(frames[1], LabelKeys(energy="Energie"), required=["energy"])
    assert labelled.energy == -470.0
    assert np.isnan(labelled.forces).all()


def test_labels_are_found_under_reference_names():
    atoms = water()
    forces = atoms.calc.results["forces"]
    atoms.calc = None
    atoms.info.update(REF_energy=-3.0, REF_stress=np.arange(9.0).reshape(3, 3))
    atoms.arrays["REF_forces"] = forces
    frame = label_frame(atoms)
    assert frame.energy == -3.0
    assert np.array_equal(frame.forces, forces)
    assert np.array_equal(frame.stress, np.arange(9.0).reshape(3, 3))


def test_two_candidates_that_differ_are_an_error():
    atoms = water(energy=-1.0, REF_energy=-2.0)
    with pytest.raises(ValueError, match=r"calculator result 'energy' and info entry 'REF_energy' differ"):
        label_frame(atoms)
    assert label_frame(atoms, LabelKeys(energy="REF_energy")).energy == -2.0
    assert label_frame(atoms, LabelKeys(energy="energy")).energy == -1.0


@pytest.mark.parametrize("label", ["energy", "forces"])
def test_labels_that_are_not_finite_are_an_error(label):
    atoms = water()
    atoms.calc.results[label] = atoms.calc.results[label] * np.nan
    with pytest.raises(ValueError, match=f"the frame: {label} is not finite"):
        label_frame(atoms)


def test_misshaped_labels_are_an_error():
    atoms = water()
    atoms.calc.results["forces"] = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"forces must have shape \[3, 3\], got \[2, 3\]"):
        label_frame(atoms)


def test_voigt_stress_becomes_a_matrix():
    # ASE's order: xx, yy, zz, yz, xz, xy
    expected = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]]) / 100
    assert np.array_equal(label_frame(water()).stress, expected)


def test_stress_without_full_periodicity_is_no_label():
    atoms = water()
    atoms.pbc = [True, True, False]
    atoms.calc.atoms = atoms.copy()
    assert np.isnan(label_frame(atoms).stress).all()


def test_references_are_subtracted_in_float64():
    # float32 holds 1.5e6 to 0.125 eV
    frames = [label_frame(water(energy=-1.5e6 + 0.001 * index)) for index in range(2)]
    references = torch.tensor([0.0, -1.5e6], dtype=torch.float64)
    graphs = [labelled_graph(frame, ("H", "O"), 3.0, references) for frame in frames]
    assert float(graphs[1].energy - graphs[0].energy) == pytest.approx(0.001, abs=1e-9)


def test_batch_holds_its_frames_and_their_weights():
    frames = [label_frame(water(energy=1.0)), label_frame(water(energy=2.0, seed=1), weight=3.0)]
    references = torch.zeros(2, dtype=torch.float64)
    batch = collate_labelled([labelled_graph(frame, ("H", "O"), 3.0, references) for frame in frames])
    assert batch.graph.n_structures == 2
    assert batch.energy.tolist() == [1.0, 2.0]
    assert batch.weight.tolist() == [1.0, 3.0]
    assert torch.equal(batch.forces, torch.tensor(np.concatenate([frame.forces for frame in frames])))
    assert batch.stress.shape == (2, 3, 3)


def test_graph_errors_name_the_frame():
    atoms = water()
    atoms.positions[1] = np.nan
    with pytest.raises(ValueError, match=r"set\.traj@4: positions are not finite"):
        labelled_graph(label_frame(atoms, name="set.traj@4"), ("H", "O"), 3.0, torch.zeros(2))
    with pytest.raises(ValueError, match=r"set\.traj@4: unknown element O"):
        labelled_graph(label_frame(water(), name="set.traj@4"), ("H",), 3.0, torch.zeros(1))


def test_statistics_of_frames():
    frames = [water(), Atoms("Au", info={"REF_energy": 1.0})]
    assert elements_of(frames) == ("H", "O", "Au")
    labelled = label_frame(frames[0])
    assert force_rms([labelled]) == pytest.approx(np.sqrt((labelled.forces**2).mean()))


@pytest.mark.parametrize(
    ("n_frames", "fraction", "n_validation"), [(10, 0.1, 1), (10, 0.0, 0), (1, 0.5, 0), (3, 0.9, 2)]
)
def test_split_divides_all_frames(n_frames, fraction, n_validation):
    train, validation = split_indices(n_frames, fraction, seed=3)
    assert len(validation) == n_validation
    assert sorted(train + validation) == list(range(n_frames))
    assert (train, validation) == split_indices(n_frames, fraction, seed=3)


def test_batches_cover_each_epoch_in_a_new_order():
    first, second = (batch_indices(10, 4, seed=1, epoch=epoch) for epoch in (0, 1))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second)) == list(range(10))
    assert first != second
    assert first == batch_indices(10, 4, seed=1, epoch=0)
