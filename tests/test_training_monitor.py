"""Output of a run: lines with speed and remaining time, TensorBoard where it is installed."""

from __future__ import annotations

import io
import sys
from types import ModuleType, SimpleNamespace

import pytest
from rich.console import Console
from test_training_run import rows_of
from training_frames import TINY_MODEL, metal_frames, two_stage_configuration, write_frames

from lrc_ase.training import ConfigurationError, train
from lrc_ase.training.configuration import StageConfiguration
from lrc_ase.training.losses import ErrorSums
from lrc_ase.training.monitor import Monitor
from lrc_ase.training.progress import Progress
from lrc_ase.training.run_folder import RunFolder

STAGES = [{"name": "only", "epochs": 2, "batch_size": 2}]


@pytest.fixture
def configuration(tmp_path):
    write_frames(tmp_path)
    data = {"small": {"train": "small.traj"}}
    return lambda **changes: two_stage_configuration(tmp_path, data=data, stages=STAGES, **changes)


def test_rows_tell_errors_speed_and_time_left_in_80_columns(configuration, tmp_path, capsys):
    train(configuration(watch="large.traj"), tmp_path / "run")
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if not line.startswith("compiling")]
    start = lines.index("    epoch  train loss  val. loss   energy   forces   stress  atoms/s     left")
    assert lines[start + 1].split() == ["RMSE", "on", "validation", "frames:", "meV/atom", "meV/Å", "meV/Å³"]
    metrics = rows_of(tmp_path / "run")
    for index, metric in enumerate(metrics):
        cells = lines[start + 2 + 2 * index].split()
        assert cells[0] == f"{index + 1}/2"
        assert float(cells[1]) == pytest.approx(float(metric["train_loss"]), rel=1e-3)
        assert float(cells[2]) == pytest.approx(float(metric["validation_loss"]), rel=1e-3)
        for cell, label in zip(cells[3:6], ("energy", "forces", "stress"), strict=True):
            assert float(cell) == pytest.approx(float(metric[f"validation_{label}_rmse"]), rel=0.01)
        assert float(cells[6]) > 0
        assert cells[7].startswith("0:00:0")
        assert lines[start + 3 + 2 * index].split()[0] == "watched"
    assert max(map(len, lines[start : start + 6])) <= 80
    train(configuration(), tmp_path / "quiet", quiet=True)
    assert capsys.readouterr().out == ""


def test_details_of_the_data_report_are_logged_only(configuration, tmp_path, capsys):
    train(configuration(), tmp_path / "run")
    assert "checked: " in (tmp_path / "run" / "log.txt").read_text()
    printed = capsys.readouterr().out
    assert "checked: " not in printed
    assert "data set 'small'" in printed


def test_twenty_rows_of_a_long_stage_are_printed_and_all_logged(tmp_path, capsys):
    frames, options = metal_frames(2), {"model": TINY_MODEL, "n_threads": 1, "stages.optimizer": "adamw"}
    train(frames, tmp_path / "run", epochs=50, settings=options | {"data.frames.validation_fraction": 0})
    printed = capsys.readouterr().out
    assert "RMSE on training batches" in printed
    assert 15 <= sum("/50 " in line for line in printed.splitlines()) <= 20
    assert "50/50" in printed
    assert (tmp_path / "run" / "log.txt").read_text().count("full-range epoch ") == 50


def test_a_stage_with_little_time_tells_the_time_that_is_left(tmp_path, capsys):
    options = {"model": TINY_MODEL, "n_threads": 1, "stages.optimizer": "adamw"}
    train(metal_frames(3), tmp_path / "run", epochs=100000, time_limit=0.02, settings=options)
    printed = capsys.readouterr().out
    assert "parameters, 100000 epochs\n" in printed
    assert "stopped by time_limit (0.02 minutes) after" in printed
    assert "0:00:0" in [line for line in printed.splitlines() if "/100000" in line][-1]


def test_a_stage_says_where_it_may_end_early(tmp_path, capsys):
    options = {"model": TINY_MODEL, "n_threads": 1, "stages.learning_rate": 1e-30}
    train(metal_frames(3), tmp_path / "run", epochs=9, patience=1, settings=options)
    printed = capsys.readouterr().out
    assert "parameters, 9 epochs, or 1 validation without a lower loss\n" in printed
    assert "stopped by patience (1 validation) after" in printed


def test_compiling_is_said_once_and_not_logged(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    monitor = Monitor(RunFolder(tmp_path / "run"), is_first=True, quiet=False, tensorboard=False)
    monitor.compiling()
    with monitor.task_shown("reading"):
        monitor.compiling()
    assert capsys.readouterr().out == "compiling kernels (once, about half a minute)\n"
    assert not (tmp_path / "run" / "log.txt").exists()


@pytest.mark.parametrize("stage", ["s", "a-stage-with-a-name-of-some-forty-letters"])
def test_the_bar_fits_into_80_columns(tmp_path, monkeypatch, stage):
    text = io.StringIO()
    terminal = Console(file=text, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("lrc_ase.training.monitor.new_console", lambda **_: terminal)
    monitor = Monitor(RunFolder(tmp_path), is_first=True, quiet=False, tensorboard=False)
    progress = Progress(epoch=998, step=9000, seconds=1.0)
    loop = SimpleNamespace(
        stage=StageConfiguration(name=stage), n_epochs=1000, n_batches=20, progress=progress, n_atoms_done=123456
    )  # fmt: skip
    with monitor.task_shown(stage, total=9999):
        monitor.step(loop)
        line = "".join(segment.text for segment in terminal.render(monitor.bar.get_renderable()))
    assert "999/1000" in line
    assert "atoms/s" in line
    assert len(line.rstrip("\n")) <= 80
    assert line.count("\n") <= 1


@pytest.mark.parametrize(("time_limit", "left"), [(None, "0:05:10"), (5.0, "0:03:30"), (1.0, "0:00:00")])
def test_the_bar_tells_loss_speed_and_time_left(tmp_path, time_limit, left):
    """15500 of 20000 steps are left after 4500 in 90 s; the first 60 s were spent before the run was resumed."""
    monitor = Monitor(RunFolder(tmp_path), is_first=True, quiet=True, tensorboard=False)
    monitor.seconds_before = 60.0
    progress = Progress(epoch=4, step=4500, seconds=90.0, sums=ErrorSums(loss=6.0, n_structures=3))
    stage = StageConfiguration(name="s", time_limit=time_limit)
    loop = SimpleNamespace(stage=stage, n_epochs=1000, n_batches=20, progress=progress, n_atoms_done=9000)
    with monitor.task_shown("s", total=20000):
        monitor.step(loop)
        (task,) = monitor.bar.tasks
    assert (task.completed, task.description) == (4500, "s 5/1000")
    assert task.fields["status"] == f"loss 2.00e+00  300 atoms/s  {left} left"


def test_tensorboard_gets_the_metrics(configuration, tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, path):
            assert path == tmp_path / "run" / "tensorboard"

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train(configuration(tensorboard=True), tmp_path / "run", quiet=True)
    steps = [entry[2] for entry in written if entry[0] == "only/validation_forces_rmse"]
    assert steps == [3, 6]
    assert written[-1] == "closed"


def test_tensorboard_that_is_not_installed_is_named(configuration, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigurationError, match=r"needs the package tensorboard: install it with `pip install"):
        train(configuration(tensorboard=True), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
