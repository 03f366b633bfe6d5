"""Frames in the cache on disk are those of the files, to the last bit, and stay out of the memory."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from structures import rattled_crystal, salt_water_slab, water
from training_frames import metal_frames, two_stage_configuration, write_frames

from lrc_ase.dataset import (
    ELECTRIC_LABELS,
    Lazy,
    cached_frames,
    elements_of,
    joined,
    label_frame,
    labelled_graph,
    read_frames,
    sample,
)
from lrc_ase.dataset import cache as cache_module
from lrc_ase.files.potential_file import load_potential
from lrc_ase.training import train
from lrc_ase.training.fetching import Fetcher
from lrc_ase.training.prepare import prepare

REQUIRED = ("energy", "forces")


def labelled(atoms, *, charge=0.0):
    rng = np.random.default_rng(len(atoms))
    labels = {"energy": float(rng.normal()), "forces": rng.normal(size=(len(atoms), 3))}
    if atoms.pbc.all():
        labels["stress"] = rng.normal(size=6)
    if not atoms.pbc.any():
        labels |= {"dipole": rng.normal(size=3), "born_effective_charges": rng.normal(size=(len(atoms), 3, 3))}
        atoms.info["polarizability"] = np.eye(3)
    atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.info["charge"] = charge
    return atoms


@pytest.fixture
def mixed(tmp_path):
    """File of a crystal smaller than the cutoff, a slab, a charged molecule and an atom alone."""
    frames = [
        labelled(rattled_crystal()),
        labelled(salt_water_slab()),
        labelled(water(), charge=1.0),
        labelled(Atoms("Na")),
    ]
    ase.io.write(tmp_path / "mixed.traj", frames)
    return tmp_path / "mixed.traj"


def entries_of(path, tmp_path, **options):
    return cached_frames(str(path), tmp_path / "cache", 4.5, required=REQUIRED, **options)


def assert_equal_graphs(actual, expected):
    for name in ELECTRIC_LABELS:
        labels = [getattr(graph, name) for graph in (actual, expected)]
        assert all(label is None for label in labels) or torch.equal(*labels), name
    for name in ("energy", "forces", "stress", "weight"):
        assert torch.equal(torch.nan_to_num(getattr(actual, name)), torch.nan_to_num(getattr(expected, name))), name
        assert torch.equal(getattr(actual, name).isnan(), getattr(expected, name).isnan()), name
    for name in ("positions", "species", "structure", "cell", "pbc", "charge", "neighbors", "shifts", "neighbor_mask"):
        one, other = getattr(actual.graph, name), getattr(expected.graph, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name


def test_cached_graphs_are_bit_equal_to_those_of_the_files(mixed, tmp_path):
    (entry,) = entries_of(mixed, tmp_path)
    frames = [label_frame(atoms, weight=2.0) for atoms in read_frames(mixed)]
    elements = elements_of(frame.atoms for frame in frames)
    references = torch.linspace(-3, 5, len(elements), dtype=torch.float64)
    assert len(entry) == 4
    for index, frame in enumerate(frames):
        actual = entry.frame(index, weight=2.0)
        assert (actual.name, actual.energy, actual.weight) == (frame.name, frame.energy, 2.0)
        assert np.array_equal(actual.forces, frame.forces)
        assert np.array_equal(actual.stress, frame.stress, equal_nan=True)
        for label in ELECTRIC_LABELS:
            assert np.array_equal(getattr(actual, label), getattr(frame, label))
            assert frame.has(label) == (not frame.atoms.pbc.any())
        assert actual.atoms == frame.atoms
        assert_equal_graphs(
            entry.graph(index, elements, references, 2.0), labelled_graph(frame, elements, 4.5, references)
        )


def test_weights_kinds_and_remarks_of_frames_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_CHUNK", 2)
    frames = metal_frames(5)
    for atoms in frames[1::2]:
        atoms.info |= {"config_weight": 2.5, "config_type": "liquid"}
    frames[4].info["config_type"] = "surface"
    ase.io.write(tmp_path / "frames.extxyz", frames)
    (entry,) = entries_of(tmp_path / "frames.extxyz", tmp_path)
    expected = [label_frame(atoms, weight=2.0) for atoms in read_frames(tmp_path / "frames.extxyz")]
    elements = elements_of(frame.atoms for frame in expected)
    references = torch.zeros(len(elements), dtype=torch.float64)
    for index, frame in enumerate(expected):
        actual = entry.frame(index, 2.0)
        assert (actual.weight, actual.remarks) == (frame.weight, frame.remarks)
        assert actual.atoms.info.get("config_type") == frame.atoms.info.get("config_type")
        assert entry.graph(index, elements, references, 2.0).weight.tolist() == [frame.weight]
    assert [frame.weight for frame in expected] == [2.0, 5.0, 2.0, 5.0, 2.0]
    assert expected[1].remarks


def test_workers_keep_the_order_of_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_CHUNK", 3)
    monkeypatch.setattr(cache_module, "_FEWEST_FOR_WORKERS", 6)
    ase.io.write(tmp_path / "frames.extxyz", metal_frames(11))
    done = []
    (entry,) = entries_of(
        tmp_path / "frames.extxyz", tmp_path, n_workers=2, report_progress=lambda count, _: done.append(count)
    )
    energies = [label_frame(atoms).energy for atoms in read_frames(tmp_path / "frames.extxyz")]
    assert [entry.frame(index).energy for index in range(11)] == energies
    assert done == [3, 6, 9, 11]


def test_workers_are_no_more_than_the_cores_that_the_process_may_use(mixed, tmp_path, monkeypatch):
    started = []
    prepared = cache_module._prepared

    def counted(chunks, cutoff, rules, n_workers):
        started.append(n_workers)
        return prepared(chunks, cutoff, rules, 1)

    monkeypatch.setattr(cache_module, "_prepared", counted)
    monkeypatch.setattr("os.cpu_count", lambda: 128)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5, 8}, raising=False)
    entries_of(mixed, tmp_path)
    assert started == [3]


@pytest.mark.parametrize(("selection", "expected"), [("@1:4", [1, 2, 3]), ("@-2:", [3, 4]), ("@::2", [0, 2, 4])])
def test_slices_are_those_of_the_files(tmp_path, selection, expected):
    ase.io.write(tmp_path / "frames.extxyz", metal_frames(5))
    (entry,) = entries_of(f"{tmp_path}/frames.extxyz{selection}", tmp_path)
    assert [entry.frame(index).name.rpartition("@")[2] for index in range(len(entry))] == [str(n) for n in expected]


def test_an_entry_is_found_again_by_its_content(mixed, tmp_path, monkeypatch):
    (first,) = entries_of(mixed, tmp_path)
    moved = tmp_path / "moved.traj"
    moved.write_bytes(mixed.read_bytes())
    monkeypatch.setattr(cache_module, "_arrays", None)  # nothing is prepared again
    (again,) = entries_of(moved, tmp_path)
    assert again.folder == first.folder
    assert again.frame(0).name == f"{moved}@0"
    assert json.loads((first.folder / "header.json").read_text())["n_frames"] == 4
    monkeypatch.undo()
    ase.io.write(mixed, [labelled(rattled_crystal(seed=1))])
    (changed,) = entries_of(mixed, tmp_path)
    assert changed.folder != first.folder
    (wider,) = cached_frames(str(mixed), tmp_path / "cache", 5.0, required=REQUIRED)
    assert wider.folder != changed.folder


def test_a_failed_entry_leaves_nothing(tmp_path):
    frames = metal_frames(3)
    frames[2].calc = None
    ase.io.write(tmp_path / "frames.traj", frames)
    with pytest.raises(ValueError, match=r"frames\.traj@2 has no energy"):
        entries_of(tmp_path / "frames.traj", tmp_path)
    assert not list((tmp_path / "cache").iterdir())
    with pytest.raises(ValueError, match="holds no frame"):
        entries_of(f"{tmp_path}/frames.traj@7:", tmp_path)
    (tmp_path / "text.extxyz").write_text("three\n\n")
    with pytest.raises(ValueError, match=r"ASE cannot read .*text\.extxyz"):
        entries_of(tmp_path / "text.extxyz", tmp_path)


def test_unknown_elements_name_the_frame(mixed, tmp_path):
    (entry,) = entries_of(mixed, tmp_path)
    with pytest.raises(ValueError, match=r"mixed\.traj@0: unknown element Na: this model knows H, O"):
        entry.graph(0, ("H", "O"), torch.zeros(2))


def test_a_run_from_the_cache_is_bit_equal_to_one_in_memory(tmp_path):
    write_frames(tmp_path)
    plain = two_stage_configuration(tmp_path)
    cached = two_stage_configuration(tmp_path, cache=str(tmp_path / "cache"), n_workers=1)
    one, other = (prepare(each) for each in (plain, cached))
    assert isinstance(other.data_sets["small"].train_graphs, Lazy)
    assert one.configuration.model == other.configuration.model
    assert torch.equal(one.references, other.references)
    assert (one.fingerprint, one.domain, one.force_scale) == (other.fingerprint, other.domain, other.force_scale)
    assert one.inspection.rows == other.inspection.rows
    paths = [train(each, tmp_path / f"run{number}", quiet=True) for number, each in enumerate((plain, cached))]
    weights = [load_potential(path).model.state_dict() for path in paths]
    for name, tensor in weights[0].items():
        assert torch.equal(weights[1][name], tensor), name
    train(None, tmp_path / "run1", resume=True, quiet=True)


def test_lazy_sequences_behave_like_lists():
    made = []

    def make(place):
        made.append(place)
        return 10 * place

    lazy = Lazy(5, make)
    assert made == []
    assert list(lazy) == [0, 10, 20, 30, 40]
    assert list(lazy[1::2]) == [10, 30]
    assert lazy[-1] == 40
    with pytest.raises(IndexError):
        lazy[5]
    both = joined([lazy, [7, 8]])
    assert isinstance(both, Lazy)
    assert [both[place] for place in (4, 5, 6)] == [40, 7, 8]
    assert joined([[1], [2, 3]]) == [1, 2, 3]
    assert sample(lazy, 3) == [0, 20, 40]
    assert sample(lazy, 9) == [0, 10, 20, 30, 40]


def test_batches_on_disk_are_read_ahead():
    read = []

    def make(place):
        read.append(place)
        return 10 * place

    fetcher = Fetcher(Lazy(6, make))
    assert fetcher.batch([3, 1], [0, 2]) == {3: 30, 1: 10}
    fetcher.ahead[1].result()
    assert read == [3, 1, 0, 2]
    assert fetcher.batch([0, 2], [5]) == {0: 0, 2: 20}
    assert fetcher.batch([4], []) == {4: 40}  # after a rewind another batch may follow
    assert fetcher.seconds_waited > 0
    in_memory = Fetcher(["a", "b"])
    assert in_memory.batch([1], [0]) == {1: "b"}
    assert in_memory.ahead is None
