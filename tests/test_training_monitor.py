"""What a run shows: lines with speed and time left, TensorBoard where it is installed."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from training_frames import two_stage_configuration, write_frames

from lrc_ase.training import ConfigurationError, train

STAGES = [{"name": "only", "epochs": 2, "batch_size": 2}]


@pytest.fixture
def configuration(tmp_path):
    write_frames(tmp_path)
    data = {"small": {"train": "small.traj"}}
    return lambda **changes: two_stage_configuration(tmp_path, data=data, stages=STAGES, **changes)


def test_lines_tell_speed_and_time_left(configuration, tmp_path, capsys):
    train(configuration(), tmp_path / "run")
    printed = capsys.readouterr().out
    assert "only epoch 1: train loss" in printed
    assert "atoms/s, 0:00:0" in printed
    assert "left" in printed
    train(configuration(), tmp_path / "quiet", quiet=True)
    assert capsys.readouterr().out == ""


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
