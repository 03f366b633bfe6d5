"""Which frames a training accepts, what it counts, and how frames are weighed."""

from __future__ import annotations

import re

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from training_frames import TINY_MODEL, metal_frames

from lrc_ase.dataset import LabelKeys, LabelledFrame, collate_labelled
from lrc_ase.models.derivatives import Results
from lrc_ase.models.model import build_model
from lrc_ase.training import train
from lrc_ase.training.configuration import (
    ConfigurationError,
    DataSetConfiguration,
    LossConfiguration,
    parse_configuration,
)
from lrc_ase.training.frame_files import FrameFiles
from lrc_ase.training.losses import loss_of
from lrc_ase.training.prepare import describe, model_settings, prepare
from lrc_ase.training.processes import Processes
from lrc_ase.training.references import isolated_references
from lrc_ase.training.run_folder import RunFolder
from lrc_ase.training.watch import Watch


def with_labels(frames, *names):
    """Frames with these labels alone."""
    kept = []
    for atoms in frames:
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, **{name: atoms.calc.results[name] for name in names})
        kept.append(copy)
    return kept


def isolated(symbol, energy, **cell):
    atoms = Atoms(symbol, **cell)
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


def configuration(folder, *, loss=None, data=None, **changes):
    return parse_configuration(
        {
            "data": {"frames": {"train": "train.traj", "validation_fraction": 0.25, **(data or {})}},
            "model": TINY_MODEL,
            "stages": [{"name": "one", "epochs": 1, "batch_size": 2, "loss": loss or {}}],
            "n_threads": 1,
            **changes,
        },
        folder=folder,
    )


@pytest.mark.parametrize("cache", [None, "cache"])
def test_frames_with_energies_alone_train_beside_others_and_are_counted(tmp_path, cache):
    frames = metal_frames(8)
    ase.io.write(tmp_path / "train.traj", frames[:6] + with_labels(frames[6:], "energy"))
    asked = configuration(tmp_path, data={"validation_fraction": 0.0}, cache=cache)
    lines = describe(prepare(asked))
    assert any("2 of 8 frames have no forces, first " in line and "train.traj@6" in line for line in lines)
    assert train(asked, tmp_path / "run", quiet=True).exists()


def test_validation_frames_have_all_labels_wherever_the_seed_puts_them(tmp_path):
    frames = metal_frames(6)
    partial = with_labels(frames[:3], "energy")
    ase.io.write(tmp_path / "train.traj", [*partial, *frames[3:], isolated("Cu", -3.5), isolated("Au", -2.5)])
    for seed in range(5):
        prepared = prepare(configuration(tmp_path, seed=seed)).data_sets["frames"]
        assert (len(prepared.train), len(prepared.validation)) == (6, 2)
        assert all(np.isfinite(frame.forces).all() for frame in prepared.validation)


def test_validation_files_that_lack_a_label_are_counted(tmp_path):
    ase.io.write(tmp_path / "train.traj", metal_frames(3))
    ase.io.write(tmp_path / "test.traj", with_labels(metal_frames(2, seed=1), "energy"))
    lines = describe(prepare(configuration(tmp_path, data={"validation": "test.traj"})))
    assert any(line.startswith("note: data set 'frames', validation: 2 of 2 frames have no forces") for line in lines)


def test_energy_of_a_frame_without_forces_moves_the_loss_and_forces_do_not(tmp_path):
    frames = metal_frames(4)
    ase.io.write(tmp_path / "train.traj", frames[:3] + with_labels(frames[3:], "energy"))
    graphs = prepare(configuration(tmp_path, data={"validation_fraction": 0.0})).data_sets["frames"].train_graphs
    batch = collate_labelled(graphs[2:])
    results = Results(
        energy=batch.energy + torch.tensor([0.0, 1.0]),
        atomic_energies=torch.zeros(8),
        forces=batch.forces.nan_to_num(0.0) + 0.5,
    )
    only_energy = LossConfiguration(energy=1.0, forces=0.0, stress=0.0)
    only_forces = LossConfiguration(energy=0.0, forces=1.0, stress=0.0)
    # one energy of two is off by 1 eV in 4 atoms; the mean over forces goes over the first frame alone
    assert float(loss_of(results, batch, only_energy, 1.0)) == pytest.approx((1 / 4) ** 2 / 2)
    assert float(loss_of(results, batch, only_forces, 1.0)) == pytest.approx(0.5**2)


@pytest.mark.parametrize(("kept", "missing"), [("forces", "energy"), ("energy", "forces")])
@pytest.mark.parametrize("cache", [None, "cache"])
def test_a_label_that_no_frame_has_names_file_and_frame(tmp_path, kept, missing, cache):
    message = rf"train\.traj@\d has no {missing} under any of"
    if cache:  # entries hold nothing but labels
        message = rf"stage 'one' trains on {missing}, but no frame of \['frames'\] .* such as .*train\.traj@\d"
    ase.io.write(tmp_path / "train.traj", with_labels(metal_frames(3), kept))
    with pytest.raises(ValueError, match=message):
        prepare(configuration(tmp_path, cache=cache))
    prepare(configuration(tmp_path, loss={"energy": 0} if missing == "energy" else {"forces": 0}, cache=cache))


@pytest.mark.parametrize("cache", [None, "cache"])
def test_frames_without_labels_are_an_error_unless_they_are_to_be_skipped(tmp_path, cache):
    frames = metal_frames(5)
    frames[2].calc = None
    ase.io.write(tmp_path / "train.traj", frames)
    with pytest.raises(ValueError, match=r"train\.traj@2 has no energy .*--skip-unlabelled"):
        prepare(configuration(tmp_path, cache=cache))
    prepared = prepare(configuration(tmp_path, skip_unlabelled=True, cache=cache))
    assert sum(len(part) for part in (prepared.data_sets["frames"].train, prepared.data_sets["frames"].validation)) == 4
    assert "note: data set 'frames': 1 frame without labels left out" in describe(prepared)
    for atoms in frames:
        atoms.calc = None
    ase.io.write(tmp_path / "train.traj", frames)
    with pytest.raises(ValueError, match=r"train\.traj: none of 5 frames has a label"):
        prepare(configuration(tmp_path, skip_unlabelled=True, cache=cache))


def test_deepmd_folders_are_trained_on_from_the_cache(tmp_path):
    frames = metal_frames(3)
    folder = tmp_path / "system"
    (folder / "set.000").mkdir(parents=True)
    for atoms in frames:
        atoms.symbols = "CuCuAuAu"
    (folder / "type.raw").write_text("0 0 1 1")
    (folder / "type_map.raw").write_text("Cu Au")
    np.save(folder / "set.000" / "coord.npy", np.array([atoms.positions.ravel() for atoms in frames]))
    np.save(folder / "set.000" / "box.npy", np.array([atoms.cell.array.ravel() for atoms in frames]))
    np.save(folder / "set.000" / "energy.npy", np.array([1.0, 2.0, 3.0]))
    np.save(folder / "set.000" / "force.npy", np.array([atoms.calc.results["forces"].ravel() for atoms in frames]))
    data = {"train": "system", "validation_fraction": 0.0}
    kept, cached = (
        prepare(configuration(tmp_path, data=data, cache=cache)).data_sets["frames"].train_graphs
        for cache in (None, "cache")
    )
    assert all(torch.equal(one.energy, two.energy) for one, two in zip(kept, cached, strict=True))
    np.save(folder / "set.000" / "energy.npy", np.array([4.0, 5.0, 6.0]))
    changed = prepare(configuration(tmp_path, data=data, cache="cache")).data_sets["frames"].train
    assert [frame.energy for frame in changed] == [4.0, 5.0, 6.0]


def test_isolated_atoms_need_no_forces_wherever_the_split_puts_them(tmp_path):
    atoms = [isolated("Cu", -3.5), isolated("Au", -2.5, cell=[12, 12, 12], pbc=True)]
    for seed in range(4):
        ase.io.write(tmp_path / "train.traj", metal_frames(4) + atoms)
        prepared = prepare(configuration(tmp_path, references="isolated-atoms", seed=seed))
        assert prepared.configuration.references == {"Cu": -3.5, "Au": -2.5}
        assert not any("frames have no forces" in line for line in describe(prepared))


def labelled(atoms, name="frame"):
    return LabelledFrame(atoms, atoms.calc.results["energy"], np.full((1, 3), np.nan), np.full((3, 3), np.nan), name)


def test_only_neutral_atoms_far_from_their_images_are_isolated():
    crystal = labelled(isolated("Cu", -1.0, cell=[[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]], pbc=True))
    ion = isolated("Cu", 4.0)
    ion.info["charge"] = 1
    with pytest.raises(ValueError, match=r"one-atom frame with energy for \['Cu'\]: a neutral atom"):
        isolated_references([crystal, labelled(ion)], ("Cu",))
    named = isolated("Cu", -3.5, cell=[5, 5, 5], pbc=True)
    named.info["config_type"] = "IsolatedAtom"
    assert isolated_references([crystal, labelled(ion), labelled(named)], ("Cu",)).values.tolist() == [-3.5]


def test_two_energies_of_an_isolated_atom_are_an_error():
    frames = [labelled(isolated("Cu", -3.5), "a@0"), labelled(isolated("Cu", -3.0), "b@1")]
    with pytest.raises(ValueError, match=r"two isolated atoms of Cu differ: -3\.5000 eV in a@0, -3\.0000 eV in b@1"):
        isolated_references(frames, ("Cu",))


@pytest.mark.parametrize("cache", [None, "cache"])
def test_weights_by_type_and_of_frames_reach_the_loss(tmp_path, cache):
    frames = metal_frames(3)
    for atoms, kind, weight in zip(frames, ("bulk", "slab", None), (1.0, 0.5, 3.0), strict=True):
        atoms.info["config_weight"] = weight
        if kind:
            atoms.info["config_type"] = kind
    ase.io.write(tmp_path / "train.extxyz", frames)
    data = {"train": {"path": "train.extxyz", "weight": 2.0}, "validation_fraction": 0.0}
    prepared = prepare(
        configuration(tmp_path, data={**data, "config_type_weights": {"bulk": 7.0, "slab": 0.0}}, cache=cache)
    )
    assert [float(graph.weight) for graph in prepared.data_sets["frames"].train_graphs] == [14.0, 0.0, 6.0]
    assert [frame.weight for frame in prepared.data_sets["frames"].train] == [14.0, 0.0, 6.0]
    with pytest.raises(ValueError, match=r"names \['slap'\], .* types \['None', 'bulk', 'slab'\]"):
        prepare(configuration(tmp_path, data={**data, "config_type_weights": {"slap": 1.0}}, cache=cache))
    unweighted = prepare(configuration(tmp_path, data=data, cache=cache))
    assert prepared.fingerprint != unweighted.fingerprint  # a run does not go on with other weights


def renamed(frames):
    for atoms in frames:
        atoms.info["E"], atoms.arrays["F"] = atoms.calc.results["energy"], atoms.calc.results["forces"]
        atoms.calc = None
    return frames


def test_watched_frames_are_read_under_the_names_of_the_data_sets(tmp_path):
    ase.io.write(tmp_path / "train.extxyz", renamed(metal_frames(4)))
    ase.io.write(tmp_path / "old.extxyz", renamed(metal_frames(2, seed=1)))
    ase.io.write(tmp_path / "other.traj", metal_frames(2, seed=2))
    keys = {"energy": "E", "forces": "F"}
    data = {"train": "train.extxyz", "keys": keys}
    assert len(prepare(configuration(tmp_path, data=data, watch="old.extxyz")).watched) == 2
    assert len(prepare(configuration(tmp_path, data=data, watch="other.traj", watch_keys={})).watched) == 2
    files = {"a": {**data, "train": str(tmp_path / "train.extxyz")}, "b": {"train": str(tmp_path / "other.traj")}}
    two = {name: DataSetConfiguration.model_validate(each) for name, each in files.items()}
    with pytest.raises(ConfigurationError, match="say by `watch_keys`"):
        prepare(
            parse_configuration(
                {**configuration(tmp_path).model_dump(), "data": two, "watch": "old.extxyz"}, folder=tmp_path
            )
        )


@pytest.mark.parametrize(
    ("kept", "unit", "name"), [("forces", "meV/Angstrom", "force"), ("energy", "meV/atom", "energy")]
)
def test_frames_with_one_label_can_be_watched(tmp_path, kept, unit, name):
    ase.io.write(tmp_path / "train.traj", metal_frames(4))
    ase.io.write(tmp_path / "old.traj", with_labels(metal_frames(2, seed=1), kept))
    prepared = prepare(configuration(tmp_path, watch="old.traj"))
    stage = prepared.configuration.stages[0]
    model = build_model(model_settings(prepared.configuration, full_range=True))
    watch = Watch(prepared.watched, prepared.force_scale, torch.device("cpu"), Processes())
    before = watch.begin(model, stage)
    assert re.fullmatch(rf"watched frames before training: {kept} [\d.]+ {unit} \(RMSE\)", before)
    assert re.fullmatch(
        rf"{name} error on the watched frames: ([\d.]+) before, \1 {unit} after", watch.end(model, stage)
    )


def test_virials_are_trained_on_as_stress(tmp_path):
    frames = metal_frames(3)
    for atoms in frames:
        stress = atoms.get_stress(voigt=False)
        del atoms.calc.results["stress"]
        atoms.info["REF_virial"] = -stress * atoms.get_volume()
    ase.io.write(tmp_path / "train.extxyz", frames)
    prepared = prepare(configuration(tmp_path, data={"train": "train.extxyz", "validation_fraction": 0.0}))
    assert prepared.configuration.stages[0].loss.stress == 1.0
    expected = [atoms.info["REF_virial"] / -atoms.get_volume() for atoms in frames]
    assert np.allclose(torch.cat([graph.stress for graph in prepared.data_sets["frames"].train_graphs]), expected)
    assert any(line.startswith("note: frames: stress = -virial / volume") for line in describe(prepared))


def test_keys_of_the_charge_reach_the_graph(tmp_path):
    frames = metal_frames(2)
    for atoms in frames:
        atoms.info["Q"] = 2.0
    ase.io.write(tmp_path / "train.extxyz", frames)
    data = {"train": "train.extxyz", "validation_fraction": 0.0, "keys": LabelKeys(charge="Q").model_dump()}
    prepared = prepare(configuration(tmp_path, data=data))
    assert [float(graph.graph.charge) for graph in prepared.data_sets["frames"].train_graphs] == [2.0, 2.0]


def test_frames_from_memory_keep_weights_virials_and_charges(tmp_path):
    frames = metal_frames(3)
    for atoms in frames:
        atoms.info = {"config_weight": 3.0, "REF_virial": np.eye(3), "total_charge": 1}
        del atoms.calc.results["stress"]
    with FrameFiles(RunFolder(tmp_path)) as files:
        (path,) = files.paths("train", frames)
        graphs = prepare(configuration(tmp_path, data={"train": path, "validation_fraction": 0.0}))
    for graph in graphs.data_sets["frames"].train_graphs:
        assert float(graph.weight) == 3.0
        assert np.allclose(graph.stress[0], -np.eye(3) / frames[0].get_volume())
        assert float(graph.graph.charge) == 1.0


def test_of_several_processes_the_first_writes_frames_from_memory(tmp_path):
    with FrameFiles(RunFolder(tmp_path), is_first=False) as others:
        paths = others.paths("train", metal_frames(2))
        assert not list(tmp_path.iterdir())
    with FrameFiles(RunFolder(tmp_path)) as first:
        assert first.paths("train", metal_frames(2)) == paths == [str(tmp_path / "train-frames.traj")]
        assert (tmp_path / "train-frames.traj").exists()


def test_doubts_about_frames_from_memory_are_warnings(tmp_path):
    frames = metal_frames(2)
    frames[1].set_initial_charges([1, 0, 0, 0])
    with (
        FrameFiles(RunFolder(tmp_path)) as files,
        pytest.warns(UserWarning, match=r"initial charges sum to \+1 e .* \(1 of 2 frames, first train frame 1\)"),
    ):
        files.paths("train", frames)


def test_references_of_unknown_elements_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="'cu' is no chemical symbol; did you mean Cu"):
        configuration(tmp_path, references={"cu": -3.5, "Au": -2.5})
