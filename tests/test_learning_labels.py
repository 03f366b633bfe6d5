"""Labels on disk: all bits of every number, no frame twice, and files that a kill cut short."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from lrc_ase.dataset import label_frame, read_frames
from lrc_ase.files.lock import InUseError
from lrc_ase.learning import LabelStore
from lrc_ase.learning.label_store import _buckets


def labelled(seed: int, atoms: Atoms | None = None, **results) -> Atoms:
    """Return a frame with labels that use all bits of their numbers."""
    frame = bulk("NaCl", "rocksalt", a=5.6, cubic=True) if atoms is None else atoms.copy()
    frame.rattle(0.1, seed=seed)
    random = np.random.default_rng(seed)
    labels = {"energy": random.normal(), "forces": random.normal(size=(len(frame), 3)) * 10.0 ** random.integers(-9, 9)}
    if frame.pbc.all():
        labels["stress"] = random.normal(size=6)
    frame.calc = SinglePointCalculator(frame, **labels | results)
    return frame


def assert_equal(one: Atoms, other: Atoms) -> None:
    """Compare two labelled frames bit by bit."""
    assert np.array_equal(one.numbers, other.numbers)
    assert np.array_equal(one.positions, other.positions)
    assert np.array_equal(one.cell.array, other.cell.array)
    assert np.array_equal(one.pbc, other.pbc)
    assert one.calc.results.keys() == other.calc.results.keys()
    for name, value in one.calc.results.items():
        assert np.array_equal(value, other.calc.results[name]), name


@pytest.fixture
def frames() -> list[Atoms]:
    """Return frames of several kinds."""
    slab = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    slab.pbc = (True, False, True)
    slab.set_cell(slab.cell.array @ np.array([[1, 0.1, 0], [0, 1, 0.2], [1 / 3, 0, 1]]), scale_atoms=True)
    return [
        labelled(0),
        labelled(1, molecule("H2O"), dipole=np.array([0.1, 1 / 3, -1e-17])),
        labelled(2, Atoms("Ar")),
        labelled(3, slab, free_energy=-1 / 3),
    ]


def test_round_trip_keeps_all_bits(tmp_path, frames):
    with LabelStore(tmp_path / "labels.extxyz") as store:
        assert [store.add(frame) for frame in frames] == [True] * 4
        for frame, stored in zip(frames, store.frames(), strict=True):
            assert_equal(stored, frame)
    with LabelStore(tmp_path / "labels.extxyz") as store:
        assert len(store) == 4
        for frame, stored in zip(frames, store.frames(), strict=True):
            assert_equal(stored, frame)
            assert_equal(store.get(frame), frame)
    # any reader of extended XYZ sees the same numbers, ours the labels
    for frame, stored, ours in zip(
        frames, ase.io.read(tmp_path / "labels.extxyz", ":"), read_frames(tmp_path / "labels.extxyz"), strict=True
    ):
        assert_equal(stored, frame)
        assert np.array_equal(label_frame(ours).forces, frame.get_forces())


def test_entries_and_arrays_are_kept(tmp_path):
    frame = labelled(0)
    frame.info |= {"charge": 1, "note": 'a "quoted"\nline [x]', "temperature": 300.5, "flags": np.array([True, False])}
    frame.set_tags(range(8))
    frame.set_initial_charges(np.full(8, 1 / 8))
    frame.set_array("kept", np.array([True] * 8))
    frame.set_constraint(FixAtoms([0]))
    with LabelStore(tmp_path / "labels.extxyz") as store:
        store.add(frame, iteration=3, source="exploration at 300 K")
    with LabelStore(tmp_path / "labels.extxyz") as store:
        [stored] = store.frames()
    assert stored.info["charge"] == 1
    assert stored.info["note"] == 'a "quoted" line [x]'
    assert stored.info["temperature"] == 300.5
    assert stored.info["flags"] == [True, False]
    assert (stored.info["iteration"], stored.info["source"]) == (3, "exploration at 300 K")
    assert stored.get_tags().tolist() == list(range(8))
    assert np.array_equal(stored.get_initial_charges(), np.full(8, 1 / 8))
    assert stored.arrays["kept"].all()
    # forces on fixed atoms are labels like any other
    assert np.array_equal(stored.get_forces(), frame.calc.results["forces"])


def test_results_of_other_calculations_are_no_labels(tmp_path):
    frame = labelled(0)
    frame.info |= {"dipole": np.ones(3), "energy": 3.0, "REF_energy": 4.0}
    frame.set_array("magmoms", np.ones(8))
    with LabelStore(tmp_path / "labels.extxyz") as store:
        assert store.add(frame)
    with LabelStore(tmp_path / "labels.extxyz") as store:
        [stored] = store.frames()
    assert_equal(stored, frame)
    assert stored.info["REF_energy"] == 4.0


def test_nothing_is_stored_twice(tmp_path):
    frame = labelled(0)
    near, far, charged = frame.copy(), frame.copy(), frame.copy()
    near.positions += 0.9e-6
    far.positions[3, 1] += 1.1e-6
    charged.info["charge"] = 1
    strained, open_ended, other = frame.copy(), frame.copy(), frame.copy()
    strained.cell[0, 0] += 1.1e-6
    open_ended.pbc = (True, True, False)
    other.symbols[0] = "K"
    with LabelStore(tmp_path / "labels.extxyz") as store:
        assert frame not in store
        assert store.get(frame) is None
        assert store.add(frame)
        size = store.path.stat().st_size
        assert near in store
        assert not store.add(frame)
        near.calc = frame.calc
        assert not store.add(near)
        assert store.path.stat().st_size == size
        assert_equal(store.get(near), frame)
        for different in (far, charged, strained, open_ended, other):
            assert different not in store
    # one who merges files by hand is told
    store.path.write_text(store.path.read_text() * 2)
    with pytest.raises(ValueError, match="holds one geometry twice"):
        LabelStore(store.path)


def test_rounding_never_hides_a_geometry(tmp_path):
    random = np.random.default_rng(5)
    with LabelStore(tmp_path / "labels.extxyz") as store:
        for seed in range(30):
            store.add(labelled(seed))
            near = labelled(seed)
            near.positions += random.choice([-0.99e-6, 0.99e-6], size=(8, 3))
            assert near in store
            assert_equal(store.get(near), labelled(seed))
        assert len(store) == 30
    # different geometries are not even compared
    assert len({_buckets(labelled(seed))[0] for seed in range(30)}) == 30


def test_frames_are_copies(tmp_path):
    with LabelStore(tmp_path / "labels.extxyz") as store:
        store.add(labelled(0))
        [frame] = store.frames()
        frame.positions += 1
        frame.calc.results["forces"][:] = 0
        assert_equal(store.frames()[0], labelled(0))


def test_labels_are_on_disk_when_add_returns(tmp_path, monkeypatch):
    synchronized = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synchronized.append(descriptor))
    with LabelStore(tmp_path / "deep" / "labels.extxyz") as store:
        store.add(labelled(0))
        assert len(synchronized) == 2  # the file, and the folder that names it
        assert len(ase.io.read(store.path, ":")) == 1
        store.add(labelled(1))
        assert len(synchronized) == 3


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"forces": None}, "forces is missing"),
        ({"energy": None}, "energy is missing"),
        ({"energy": np.nan}, "its energy is not"),
        ({"forces": np.full((8, 3), np.inf)}, "its forces is not"),
        ({"stress": np.full(6, np.nan)}, "its stress is not"),
    ],
)
def test_frames_without_usable_labels(tmp_path, results, message):
    with LabelStore(tmp_path / "labels.extxyz") as store:
        with pytest.raises(ValueError, match=message):
            store.add(labelled(0, **results))
        bare = labelled(0)
        bare.calc = None
        with pytest.raises(ValueError, match="energy is missing"):
            store.add(bare)
        computed = labelled(0)
        computed.calc = EMT()  # labels are read, not computed
        with pytest.raises(ValueError, match="energy is missing"):
            store.add(computed)
        assert len(store) == 0
        assert not store.path.exists()


def test_entries_that_the_format_cannot_hold(tmp_path):
    with LabelStore(tmp_path / "labels.extxyz") as store:
        with pytest.raises(ValueError, match=r"cannot hold this frame: .* entries are note$"):
            store.add(labelled(0), note='"\\')
        with pytest.raises(ValueError, match=r"cannot hold this frame: .* entries are magmom$"):
            store.add(labelled(0), magmom=1.0)  # would be read as a result
        assert not store.path.exists()


def test_every_cut_of_the_last_frame_leaves_the_others(tmp_path, frames):
    path = tmp_path / "labels.extxyz"
    with LabelStore(path) as store:
        for frame in frames[:2]:
            store.add(frame)
        complete = path.read_bytes()
        store.add(frames[2])
    content = path.read_bytes()
    whole, last = len(complete), len(content)
    for length in [*range(whole + 1, whole + 5), *range(whole + 5, last - 5, 17), *range(last - 5, last)]:
        path.write_bytes(content[:length])
        with pytest.warns(UserWarning, match=r"the last frame is incomplete.*moved to labels.extxyz.incomplete"):
            store = LabelStore(path)
        with store:
            assert len(store) == 2
            assert frames[2] not in store
            assert path.read_bytes() == complete
            assert (tmp_path / "labels.extxyz.incomplete").read_bytes() == content[len(complete) : length]
    with LabelStore(path) as store:
        assert store.add(frames[2])
    assert path.read_bytes() == content


def test_zeros_after_a_power_failure_are_moved_aside(tmp_path):
    path = tmp_path / "labels.extxyz"
    with LabelStore(path) as store:
        store.add(labelled(0))
    path.write_bytes(path.read_bytes() + b"8\nLatt" + bytes(500))
    with pytest.warns(UserWarning, match="the last frame is incomplete"):
        store = LabelStore(path)
    with store:
        assert len(store) == 1


def test_damage_before_the_last_frame_is_an_error(tmp_path):
    path = tmp_path / "labels.extxyz"
    with LabelStore(path) as store:
        for seed in range(3):
            store.add(labelled(seed))
    lines = path.read_text().splitlines(keepends=True)
    for damaged in (
        lines[:11] + lines[12:],
        [*lines[:10], "80\n", *lines[11:]],
        [*lines[:10], "eight\n", *lines[11:]],
        [*lines[:12], lines[12].replace(".", "x"), *lines[13:]],
        [*lines[:11], lines[11].replace("energy", "power"), *lines[12:]],
    ):
        path.write_text("".join(damaged))
        with pytest.raises(ValueError, match=r"frame 1, at byte .* cannot be read"):
            LabelStore(path)
        assert path.read_text() == "".join(damaged)
    path.write_text("".join(lines))
    with LabelStore(path) as store:  # the errors released the file
        assert len(store) == 3


def test_a_full_disk_leaves_no_half_frame(tmp_path, monkeypatch):
    path = tmp_path / "labels.extxyz"
    with LabelStore(path) as store:
        store.add(labelled(0))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disk is full")))
            with pytest.raises(OSError, match="disk is full"):
                store.add(labelled(1))
        assert store.add(labelled(1))
        assert store.add(labelled(2))
    with LabelStore(path) as store:
        for seed, frame in enumerate(store.frames()):
            assert_equal(frame, labelled(seed))
        assert len(store) == 3


def test_one_process_at_a_time(tmp_path):
    with LabelStore(tmp_path / "labels.extxyz"):
        program = f"from lrc_ase.learning import LabelStore; LabelStore({str(tmp_path / 'labels.extxyz')!r})"
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert "InUseError" in other.stderr
        assert "labels.extxyz is in use by process" in other.stderr
        with pytest.raises(InUseError):
            LabelStore(tmp_path / "labels.extxyz")
    LabelStore(tmp_path / "labels.extxyz").close()
