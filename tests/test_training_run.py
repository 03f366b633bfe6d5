"""Whole runs: content of the run folder, reasons to stop, and continuation that equals an uninterrupted run."""

from __future__ import annotations

import csv
import os
import shutil
import signal

import ase.io
import numpy as np
import pytest
import torch
import yaml
from training_frames import metal_frames, two_stage_configuration, write_frames

from lrc_ase.evaluation import evaluate_frames, write_evaluation
from lrc_ase.files.lock import InUseError, exclusive_use
from lrc_ase.files.potential_file import load_potential
from lrc_ase.training import (
    ConfigurationError,
    TrainingInterrupted,
    default_configuration,
    load_configuration,
    train,
    write_configuration,
)
from lrc_ase.training.checkpoint import CheckpointError
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.resuming import resumed_configuration
from lrc_ase.training.run_folder import METRIC_COLUMNS, RunFolder, RunFolderError
from lrc_ase.training.untrained import new_model


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder with frames, train.yaml and the run folder of a finished two-stage run."""
    folder = tmp_path_factory.mktemp("training")
    write_frames(folder)
    configuration = two_stage_configuration(folder)
    write_configuration(folder / "train.yaml", configuration)
    assert train(configuration, folder / "run", quiet=True) == folder / "run" / "potential.safetensors"
    return folder


def rows_of(run_folder):
    with (run_folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows


def weights_of(path):
    return load_potential(path).model.state_dict()


def assert_same_run(first, second):
    """Metrics and weights of two run folders are equal to the last bit."""
    assert rows_of(first) == rows_of(second)
    for name in ("potential.safetensors", "potential-first.safetensors"):
        expected, actual = weights_of(first / name), weights_of(second / name)
        assert expected.keys() == actual.keys()
        for key, tensor in expected.items():
            assert torch.equal(tensor, actual[key]), (name, key)


def test_run_folder_holds_what_the_run_left(finished):
    run = finished / "run"
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoint.safetensors",
        "configuration.yaml",
        "log.txt",
        "metrics.csv",
        "potential-first.safetensors",
        "potential.safetensors",
    ]
    rows = rows_of(run)
    assert list(rows[0]) == [name for name in METRIC_COLUMNS if name != "seconds"]
    assert [(row["stage"], row["epoch"]) for row in rows] == [(s, e) for s in ("first", "second") for e in "123"]
    absent = ("watched_", "train_dipole", "train_born", "validation_dipole", "validation_born")
    numbers = [{k: v for k, v in row.items() if k != "stage" and not k.startswith(absent)} for row in rows]
    assert all(np.isfinite(float(value)) for row in numbers for value in row.values())
    log = (run / "log.txt").read_text()
    assert "data set 'small': 5 frames to train on, 1 to validate; 4 atoms\n" in log
    assert "stage 'second': full-range model" in log
    assert "second epoch 3: train loss" in log


def test_stages_give_their_kind_of_model(finished):
    first = load_potential(finished / "run" / "potential-first.safetensors")
    second = load_potential(finished / "run" / "potential.safetensors")
    assert first.settings.long_range is None
    assert second.settings.long_range is not None
    assert second.settings.elements == ("Cu", "Au")
    assert second.description["training_set"]["small"] == {"files": ["small.traj"], "n_train": 5, "n_validation": 1}


def test_resolved_configuration_repeats_the_run(finished, tmp_path):
    resolved = load_configuration(finished / "run" / "configuration.yaml")
    assert resolved.model.elements == ("Cu", "Au")
    assert resolved.model.average_neighbors > 1
    assert set(resolved.references) == {"Cu", "Au"}
    train(resolved, tmp_path / "again", quiet=True)
    assert_same_run(finished / "run", tmp_path / "again")


def test_a_folder_with_a_run_is_refused_and_untouched(finished):
    run = finished / "run"
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(RunFolderError, match=r"already holds a run: choose another folder, or .* --resume"):
        train(load_configuration(finished / "train.yaml"), run, quiet=True)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_resuming_a_finished_run_changes_nothing(finished):
    run = finished / "run"
    before = {path: path.read_bytes() for path in run.iterdir() if path.name != "log.txt"}
    assert train(None, run, resume=True, quiet=True) == run / "potential.safetensors"
    assert {path: path.read_bytes() for path in run.iterdir() if path.name != "log.txt"} == before


def test_a_folder_in_use_is_refused_by_name(finished, tmp_path):
    configuration = load_configuration(finished / "train.yaml")
    before = {path: path.read_bytes() for path in (finished / "run").iterdir()}
    with exclusive_use(finished / "run" / ".lock", "the run"):
        for resume in (False, True):
            with pytest.raises(InUseError, match=f"the run folder .*run is in use by process {os.getpid()} on "):
                train(configuration, finished / "run", resume=resume, quiet=True)
    assert {path: path.read_bytes() for path in (finished / "run").iterdir()} == before


def test_remarks_survive_a_resume(finished, tmp_path):
    frames = metal_frames(3)
    for atoms in frames:  # one composition for two elements
        atoms.symbols[:] = ["Cu", "Cu", "Au", "Au"]
        atoms.calc.atoms = atoms.copy()
    ase.io.write(tmp_path / "frames.traj", frames)
    data = {"frames": {"train": "frames.traj"}}
    stages = [{"name": "a", "epochs": 2, "time_limit": 1e-9}, {"name": "b", "epochs": 1}]
    configuration = two_stage_configuration(tmp_path, data=data, stages=stages)
    path = train(configuration, tmp_path / "run", quiet=True)
    remarks = load_potential(path).description["remarks"]
    assert any("determine 1 of 2 element references" in remark for remark in remarks)
    assert "stage 'a': stopped by time_limit (1e-09 minutes) after 1 of 2 epochs" in remarks
    content = path.read_bytes()
    train(None, tmp_path / "run", resume=True, quiet=True)
    assert path.read_bytes() == content
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    train(None, tmp_path / "run", resume=True, quiet=True)
    assert load_potential(path).description["remarks"] == remarks
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "stage 'a' done, stopped by time_limit (1e-09 minutes) after 1 of 2 epochs: best epoch 1" in log
    assert "stage 'b' done, 1 epoch: best epoch 1" in log


@pytest.mark.parametrize("torn", ["second", "second,2", "second,3,1.0e-04,0.1", "second,2\0\0,x\n", "\xff\n"])
def test_a_torn_line_of_the_metrics_is_repaired(finished, tmp_path, torn):
    shutil.copytree(finished / "run", tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open("a") as file:
        file.write(torn)
    with (tmp_path / "run" / "log.txt").open("a") as file:
        file.write("cut of")
    train(None, tmp_path / "run", resume=True, quiet=True)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (finished / "run" / "metrics.csv").read_bytes()
    assert "\ncut of\n" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("ensemble", [1, 2])
@pytest.mark.parametrize("ending", [{"time_limit": 1e-9}, {"patience": 1}])
def test_a_stage_that_ends_early_hands_on_trained_weights(finished, tmp_path, ensemble, ending):
    stages = [
        {"name": "first", "epochs": 9, "validate_every": 4, "learning_rate": 0.05, "schedule": "constant", **ending},
        {"name": "second", "epochs": 1, "learning_rate": 1e-12},
    ]
    configuration = two_stage_configuration(finished, stages=stages, data={"frames": {"train": "small.traj"}})
    configuration = configuration.model_copy(update={"ensemble": ensemble})
    path = train(configuration, tmp_path / "run", quiet=True)
    first, second = weights_of(tmp_path / "run" / "potential-first.safetensors"), weights_of(path)
    start = new_model(load_potential(path).settings, n_members=ensemble, seed=0).state_dict()
    name = next(name for name in first if name.endswith("readout.last.weight"))
    moved = (first[name] - start[name]).abs().max()
    assert moved > 1e-3
    assert (second[name] - first[name]).abs().max() < 1e-3 * moved


def test_an_interruption_before_the_first_validation_says_that_there_is_no_potential(finished, tmp_path, monkeypatch):
    average = StageLoop._average
    monkeypatch.setattr(StageLoop, "_average", lambda loop: (average(loop), signal.raise_signal(signal.SIGINT)))
    stages = [{"name": "s", "epochs": 9, "validate_every": 4}]
    with pytest.raises(TrainingInterrupted, match=r"no potential yet: its first validation comes after epoch 4"):
        train(two_stage_configuration(finished, stages=stages), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "potential.safetensors").exists()


def test_resume_needs_a_run_and_the_same_configuration(finished, tmp_path):
    with pytest.raises(RunFolderError, match="holds no run to resume"):
        train(None, tmp_path, resume=True, quiet=True)
    with pytest.raises(ValueError, match="only together with resume=True"):
        train(None, tmp_path, quiet=True)
    changed = two_stage_configuration(finished, epochs=7)
    with pytest.raises(
        ConfigurationError,
        match=r"differs from that of the run in .* in stages\[0\]\.epochs, stages\[1\]\.epochs: resume without",
    ):
        train(changed, finished / "run", resume=True, quiet=True)


def test_of_several_processes_the_first_writes_the_lengthened_configuration(finished, tmp_path):
    folder = RunFolder(shutil.copytree(finished / "run", tmp_path / "run"))
    before = folder.configuration.read_bytes()
    others = resumed_configuration(folder, {"stages.epochs": 99}, is_first=False)
    assert others.stages[-1].epochs == 99
    assert folder.configuration.read_bytes() == before
    assert resumed_configuration(folder, {"stages.epochs": 99}) == others
    assert load_configuration(folder.configuration).stages[-1].epochs == 99


@pytest.mark.parametrize(("patience", "expected"), [(3, None), (4, 4)])  # 3: three tenths of 8 epochs, the default
def test_a_longer_stage_loses_the_patience_of_its_default_length(finished, tmp_path, patience, expected):
    folder = RunFolder(shutil.copytree(finished / "run", tmp_path / "run"))
    stored = load_configuration(folder.configuration)
    stages = [stage.model_copy(update={"epochs": 8, "patience": patience}) for stage in stored.stages]
    write_configuration(folder.configuration, stored.model_copy(update={"stages": tuple(stages)}))
    for changes, after in [({"time_limit": 5}, patience), ({"epochs": 9}, expected), ({"epochs": 9, "patience": 5}, 5)]:
        keys = {f"stages.{name}": value for name, value in changes.items()}
        assert resumed_configuration(folder, keys, is_first=False).stages[-1].patience == after


def test_resume_refuses_frames_that_changed(tmp_path):
    write_frames(tmp_path, n_small=3, n_large=2)
    train(two_stage_configuration(tmp_path, epochs=1), tmp_path / "run", quiet=True)
    ase.io.write(tmp_path / "small.traj", metal_frames(3, seed=9))
    with pytest.raises(CheckpointError, match=r"training frames changed since the run in .* began"):
        train(None, tmp_path / "run", resume=True, quiet=True)


def test_unlabelled_frames_stop_the_run_before_it_makes_a_folder(tmp_path):
    frames = metal_frames(3)
    frames[1].calc = None
    ase.io.write(tmp_path / "frames.traj", frames)
    configuration = default_configuration([tmp_path / "frames.traj"])
    with pytest.raises(ValueError, match=r"frames\.traj@1 has no"):
        train(configuration, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_forces_that_are_all_zero_are_an_error(tmp_path):
    frames = metal_frames(3)
    for atoms in frames:
        atoms.calc.results["forces"] = np.zeros((len(atoms), 3))
    ase.io.write(tmp_path / "frames.traj", frames)
    with pytest.raises(ValueError, match="forces of all training frames are exactly zero"):
        train(default_configuration([tmp_path / "frames.traj"]), tmp_path / "run", quiet=True)


def test_unusable_device_and_folder_are_one_line(finished, tmp_path):
    configuration = two_stage_configuration(finished, device="warp:3")
    with pytest.raises(ConfigurationError, match="torch knows no device 'warp:3'; usable here: cpu"):
        train(configuration, tmp_path / "run", quiet=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file, not a folder"):
        train(two_stage_configuration(finished), tmp_path / "file", quiet=True)
    with pytest.raises(RunFolderError, match="cannot write to"):
        train(two_stage_configuration(finished), tmp_path / "file" / "run", quiet=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": {"Cu": 1.0}}, r"`references` lacks the energies of \['Au'\]"),
        ({"references": "isolated-atoms"}, r"need a one-atom frame with energy for \['Cu', 'Au'\]"),
        ({"data": {"small": {"train": "absent.traj"}}, "stages": [{"name": "s"}]}, r"no file matches .*absent\.traj"),
    ],
)
def test_data_that_does_not_fit_is_named(finished, tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(two_stage_configuration(finished, **changes), tmp_path / "run", quiet=True)


def test_an_element_of_validation_frames_alone_is_remarked(finished, tmp_path):
    frames = metal_frames(2)
    frames[0].symbols[:] = "Ag"
    frames[0].calc.atoms = frames[0].copy()
    ase.io.write(tmp_path / "silver.traj", frames[0])
    data = {"frames": {"train": "small.traj", "validation": str(tmp_path / "silver.traj")}}
    stages = [{"name": "s", "model": "short-range", "epochs": 1}]
    path = train(two_stage_configuration(finished, data=data, stages=stages), tmp_path / "run", quiet=True)
    potential = load_potential(path)
    assert potential.settings.elements == ("Cu", "Ag", "Au")
    assert any("Ag only occurs in validation frames" in remark for remark in potential.description["remarks"])


def test_stress_and_force_only_losses_train(finished, tmp_path):
    stages = [
        {"name": "force-only", "model": "short-range", "epochs": 1, "loss": {"energy": 0}},
        {"name": "stress", "epochs": 1, "loss": {"stress": 0.1, "function": "huber"}},
    ]
    data = {"frames": {"train": [{"path": "small.traj", "weight": 2.0}], "validation": "large.traj"}}
    path = train(
        two_stage_configuration(finished, stages=stages, data=data, dtype="float64"), tmp_path / "run", quiet=True
    )
    assert {parameter.dtype for parameter in load_potential(path).model.parameters()} == {torch.float64}


def test_evaluation_compares_predictions_and_labels(finished, tmp_path):
    potential = load_potential(finished / "run" / "potential.safetensors", dtype=torch.float64)
    frames = ase.io.read(finished / "small.traj", ":") + ase.io.read(finished / "large.traj", ":")
    sets = ["small"] * 6 + ["large"] * 3
    evaluation = evaluate_frames(potential, frames, sets=sets, batch_size=4)
    single = evaluate_frames(potential, frames[7:8], sets=["large"])
    start = int(evaluation.n_atoms[:7].sum())
    assert np.abs(evaluation.forces[start : start + 8] - single.forces).max() < 1e-10
    assert evaluation.energy[7] == pytest.approx(single.energy[0], abs=1e-9)
    assert np.array_equal(evaluation.reference_energy, [atoms.calc.results["energy"] for atoms in frames])
    error = np.concatenate([atoms.calc.results["forces"] for atoms in frames]) - evaluation.forces
    assert evaluation.metrics["forces_rmse"] == pytest.approx(1e3 * np.sqrt((error**2).mean()))
    by_set = evaluation.errors_by_set()
    assert list(by_set) == ["small", "large"]
    assert by_set["large"]["n_frames"] == 3
    squares = sum(
        by_element["forces_rmse"] ** 2 * (evaluation.symbols == symbol).mean()
        for symbol, by_element in evaluation.force_errors_by_element().items()
    )
    assert squares == pytest.approx(evaluation.metrics["forces_rmse"] ** 2)
    assert np.isfinite(evaluation.metrics["stress_rmse"])
    assert evaluation.charges is not None
    write_evaluation(evaluation, tmp_path / "evaluation")
    assert len((tmp_path / "evaluation" / "energies.csv").read_text().splitlines()) == 10
    assert len((tmp_path / "evaluation" / "forces.csv").read_text().splitlines()) == 1 + len(evaluation.symbols)
    written = yaml.safe_load((tmp_path / "evaluation" / "errors.json").read_text())
    assert written["by_set"]["small"]["n_frames"] == 6


def test_evaluation_names_a_frame_without_labels(finished):
    potential = load_potential(finished / "run" / "potential.safetensors")
    frames = metal_frames(2)
    frames[1].calc = None
    with pytest.raises(ValueError, match="frame 1 has no energy"):
        evaluate_frames(potential, frames, required=("energy", "forces"))
    evaluation = evaluate_frames(potential, frames, required=())
    assert np.isnan(evaluation.reference_energy).tolist() == [False, True]
    assert np.isfinite(evaluation.metrics["forces_rmse"])
    assert [evaluation.metrics[name] for name in ("n_frames", "n_energies", "n_forces")] == [2, 1, 1]
    with pytest.raises(ValueError, match="at least one frame"):
        evaluate_frames(potential, [])
