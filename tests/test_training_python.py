"""`train` from Python: frames in memory, options, a callback, longer runs."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase.constraints import FixAtoms
from test_training_run import rows_of
from training_frames import TINY_MODEL, metal_frames

from lrc_ase.dataset import LabelKeys
from lrc_ase.files.potential_file import load_potential
from lrc_ase.training import ConfigurationError, changed_configuration, load_configuration, train
from lrc_ase.training.run_folder import RunFolderError

TINY = {"model": TINY_MODEL, "n_threads": 1, "stages.optimizer": "adamw"}


def test_atoms_in_memory_train_like_their_file(tmp_path):
    frames = metal_frames(6)
    frames[0].set_constraint(FixAtoms([1]))
    frames[0].calc.results["forces"][1] = 0.0
    ase.io.write(tmp_path / "frames.traj", frames)
    train(tmp_path / "frames.traj", tmp_path / "file", epochs=2, settings=TINY, quiet=True)
    path = train(frames, tmp_path / "memory", epochs=2, settings=TINY, quiet=True)
    assert rows_of(tmp_path / "file") == rows_of(tmp_path / "memory")
    assert len(ase.io.read(tmp_path / "memory" / "training-frames.traj", ":")) == 6
    train(None, tmp_path / "memory", resume=True, epochs=3, quiet=True)
    assert load_potential(path).description["epoch"] == 3


def test_labels_under_other_names_validation_and_test_from_memory(tmp_path):
    def renamed(atoms):
        copy = atoms.copy()
        copy.info["E"], copy.arrays["F"] = atoms.get_potential_energy(), atoms.get_forces()
        return copy

    frames = [renamed(atoms) for atoms in metal_frames(6)]
    keys = LabelKeys(energy="E", forces="F")
    train(
        frames[:3],
        tmp_path / "run",
        validation=frames[3:5],
        test=frames[5],
        keys=keys,
        epochs=1,
        settings=TINY,
        quiet=True,
    )
    configuration = load_configuration(tmp_path / "run" / "configuration.yaml")
    assert configuration.data["frames"].validation == (str(tmp_path / "run" / "validation-frames.traj"),)
    assert configuration.test == (str(tmp_path / "run" / "test-frames.traj"),)
    written = ase.io.read(tmp_path / "run" / "test-frames.traj")
    assert np.array_equal(written.get_forces(), frames[5].arrays["F"])


def renamed_frames(n_frames):
    """Return frames with right labels under the names E and F, and wrong ones under ASE's names."""
    frames = metal_frames(n_frames)
    for atoms in frames:
        atoms.info["E"], atoms.arrays["F"] = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc.results["energy"], atoms.calc.results["forces"] = 99.0, np.ones((4, 3))
    return frames


@pytest.mark.parametrize("in_memory", ["training", "test"])
def test_names_of_labels_hold_for_files_beside_frames_in_memory(tmp_path, in_memory):
    frames, keys = renamed_frames(8), LabelKeys(energy="E", forces="F")
    ase.io.write(tmp_path / "a.extxyz", frames[:6])
    ase.io.write(tmp_path / "b.extxyz", frames[6:])
    files = {"training": tmp_path / "a.extxyz", "test": tmp_path / "b.extxyz"}
    parts = files | {in_memory: {"training": frames[:6], "test": frames[6:]}[in_memory]}
    for name, (data, test) in {"files": files.values(), "mixed": parts.values()}.items():
        train(data, tmp_path / name, test=test, keys=keys, epochs=1, settings=TINY, quiet=True)
    errors = [load_potential(tmp_path / name).description["errors"] for name in ("files", "mixed")]
    for one, other in zip(errors[0].values(), errors[1].values(), strict=True):
        assert other["forces_rmse"] == pytest.approx(one["forces_rmse"], rel=1e-6)
        assert other["energy_rmse"] == pytest.approx(one["energy_rmse"], rel=1e-6)


def test_names_of_labels_cannot_hold_for_half_of_the_frames(tmp_path):
    frames, keys = renamed_frames(4), LabelKeys(energy="E", forces="F")
    ase.io.write(tmp_path / "a.extxyz", frames)
    for options in ({"validation": tmp_path / "a.extxyz"}, {"test": frames[:1], "watch": tmp_path / "a.extxyz"}):
        with pytest.raises(ValueError, match="those of frames in memory are written under ASE's names: give"):
            train(frames, tmp_path / "run", keys=keys, quiet=True, **options)
    assert not (tmp_path / "run").exists()


def test_a_run_that_does_not_begin_leaves_nothing(tmp_path):
    frames = metal_frames(2)
    with pytest.raises(ConfigurationError, match=r"options: stages\[0\]\.epochs: Input should be greater than"):
        train(frames, tmp_path / "run", epochs=0, quiet=True)
    with pytest.raises(
        TypeError, match="the training frames are a mapping: `parse_configuration` makes a configuration"
    ):
        train({"data": {"a": {"train": "a.extxyz"}}}, tmp_path / "run")
    with pytest.raises(TypeError, match=r"expected paths or ase\.Atoms for the training frames, got str among them"):
        train([*frames, "more.traj"], tmp_path / "run", quiet=True)
    with pytest.raises(TypeError, match="expected paths, got int"):
        train(["more.traj", 3], tmp_path / "run", quiet=True)
    for atoms in frames:
        atoms.calc.results["forces"] = np.zeros((4, 3))
    with pytest.raises(ValueError, match="exactly zero"):
        train(frames, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_options_reach_the_run(tmp_path):
    frames = metal_frames(4)
    path = train(
        frames, tmp_path / "run", cutoff=3.5, epochs=1, batch_size=1, dtype="float64", seed=7, ensemble=2,
        short_range=True, settings=TINY | {"model.descriptor.n_channels": 3}, quiet=True,
    )  # fmt: skip
    potential = load_potential(path)
    assert potential.settings.cutoff == 3.5
    assert potential.settings.descriptor.n_channels == 3
    assert potential.settings.long_range is None
    assert potential.n_members == 2
    configuration = load_configuration(tmp_path / "run" / "configuration.yaml")
    assert (configuration.seed, configuration.dtype, configuration.stages[0].batch_size) == (7, "float64", 1)


def test_on_epoch_sees_each_epoch_and_may_end_the_training(tmp_path):
    records = []

    def note(record):
        records.append(record)
        if len(records) == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(metal_frames(5), tmp_path / "run", epochs=3, settings=TINY, quiet=True, on_epoch=note)
    train(None, tmp_path / "run", resume=True, quiet=True, on_epoch=records.append)
    assert [(record.stage, record.epoch, record.n_epochs) for record in records][:2] == [
        ("full-range", 1, 3),
        ("full-range", 2, 3),
    ]
    assert records[-1].epoch == 3
    assert records[-1].validation["stress_rmse"] == pytest.approx(
        float(rows_of(tmp_path / "run")[-1]["validation_stress_rmse"]), rel=1e-5
    )


@pytest.fixture(scope="module")
def three_epochs(tmp_path_factory):
    """Frames and the folder of a run of three epochs."""
    folder = tmp_path_factory.mktemp("longer")
    ase.io.write(folder / "frames.traj", metal_frames(5))
    train(folder / "frames.traj", folder / "run", epochs=3, settings=TINY, quiet=True)
    return folder


def test_a_finished_run_goes_on_with_the_schedule_of_the_longer_one(three_epochs):
    run = three_epochs / "run"
    short = rows_of(run)
    train(None, run, resume=True, epochs=6, quiet=True)
    rows = rows_of(run)
    assert rows[:3] == short
    assert [row["epoch"] for row in rows] == list("123456")
    train(three_epochs / "frames.traj", three_epochs / "six", epochs=6, settings=TINY, quiet=True)
    expected = [row["learning_rate"] for row in rows_of(three_epochs / "six")]
    assert [row["learning_rate"] for row in rows[3:]] == expected[3:]
    log = (run / "log.txt").read_text()
    assert "stage 'full-range' goes on from epoch 3 to 6; its schedule is that of the longer stage" in log
    assert load_configuration(run / "configuration.yaml").stages[0].epochs == 6
    with pytest.raises(ConfigurationError, match="has 6 epochs behind it: `epochs` must be at least that, got 4"):
        train(None, run, resume=True, epochs=4, quiet=True)


def test_a_run_whose_time_is_over_says_that_more_epochs_need_more_time(tmp_path):
    ase.io.write(tmp_path / "frames.traj", metal_frames(5))
    run = tmp_path / "run"
    train(tmp_path / "frames.traj", run, epochs=3, time_limit=1e-9, settings=TINY, quiet=True)
    assert len(rows_of(run)) == 1
    train(None, run, resume=True, epochs=4, quiet=True)
    assert len(rows_of(run)) == 1
    last = "stopped by time_limit (1e-09 minutes) after 1 of 4 epochs"
    assert f"stage 'full-range' trains no further: {last}; raise time_limit as well" in (run / "log.txt").read_text()
    train(None, run, resume=True, time_limit=60.0, quiet=True)
    assert len(rows_of(run)) == 4


def test_a_resumed_run_refuses_what_would_change_it(three_epochs):
    with pytest.raises(ConfigurationError, match="--resume alone takes everything from the run folder, 'seed'"):
        train(None, three_epochs / "run", resume=True, seed=3, quiet=True)
    with pytest.raises(TypeError, match="the run folder keeps the frames"):
        train(metal_frames(2), three_epochs / "run", resume=True, quiet=True)
    longer = changed_configuration(
        load_configuration(three_epochs / "run" / "configuration.yaml"), {"stages.epochs": 9}
    )
    with pytest.raises(ConfigurationError, match=r"differs from that of the run .*--resume --epochs"):
        train(longer, three_epochs / "run", resume=True, quiet=True)


def test_the_first_command_and_resume_take_device_and_threads_but_no_other_data(three_epochs):
    frames, run = three_epochs / "frames.traj", three_epochs / "run"
    epochs = load_configuration(run / "configuration.yaml").stages[0].epochs
    with pytest.raises(ValueError, match="warp"):
        train(frames, run, epochs=epochs, settings=TINY, device="warp", resume=True, quiet=True)
    train(frames, run, epochs=epochs, settings=TINY, resume=True, quiet=True)
    for options in ({"validation": frames}, {"short_range": True}):
        message = f"--resume alone takes everything from the run folder, '{next(iter(options))}' too"
        with pytest.raises(ConfigurationError, match=message):
            train(None, run, resume=True, quiet=True, **options)


def test_two_scales_from_memory(tmp_path):
    small, large = metal_frames(4), metal_frames(3, seed=1, repeat=(2, 1, 1))
    path = train(None, tmp_path / "run", small=small, large=large, epochs=1, settings=TINY, quiet=True)
    assert load_potential(path).settings.long_range is not None
    stages = [row["stage"] for row in rows_of(tmp_path / "run")]
    assert stages == ["short-range-part", "full-range"]
    assert len(ase.io.read(tmp_path / "run" / "small-frames.traj", ":")) == 4


def test_a_run_stopped_by_time_goes_on_with_more_time(tmp_path):
    run = tmp_path / "run"
    train(metal_frames(4), run, epochs=4, time_limit=1e-9, settings=TINY, quiet=True)
    assert [row["epoch"] for row in rows_of(run)] == ["1"]
    train(None, run, resume=True, time_limit=60.0, quiet=True)
    assert [row["epoch"] for row in rows_of(run)] == list("1234")


def test_a_lock_is_taken_before_anything_is_written(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="is a file, not a folder"):
        train(metal_frames(2), tmp_path / "run", quiet=True)
