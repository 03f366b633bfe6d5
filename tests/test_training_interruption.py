"""Signals, kills and full disks: a run goes on as if nothing had happened."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_training_run import assert_same_run, finished
from training_frames import two_stage_configuration, write_frames

from lrc_ase.training import TrainingInterrupted, load_configuration, train, write_configuration
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.run_folder import RunFolder, RunFolderError
from lrc_ase.training.stage_runs import Run

__all__ = ["finished"]  # a fixture

SCRIPT = """
import os, sys
from lrc_ase.training import TrainingInterrupted, load_configuration, train
try:
    resume = os.path.exists(os.path.join(sys.argv[2], "configuration.yaml"))
    train(load_configuration(sys.argv[1]), sys.argv[2], resume=resume, quiet=True)
except TrainingInterrupted as stop:
    sys.exit(str(stop))
"""


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize("steps", [(1,), (3, 5), (9, 10, 15)])
def test_a_signal_keeps_the_state_after_any_step(finished, tmp_path, monkeypatch, number, name, steps):
    # 3 steps an epoch, 9 in the first stage, 6 in the second
    run = tmp_path / "run"
    handler = signal.getsignal(number)
    average = StageLoop._average
    done = [0]

    def average_and_signal(loop):
        average(loop)
        done[0] += 1
        if done[0] in steps:
            signal.raise_signal(number)

    monkeypatch.setattr(StageLoop, "_average", average_and_signal)
    configuration = load_configuration(finished / "train.yaml")
    for index in range(len(steps)):
        with pytest.raises(TrainingInterrupted, match=f"stopped by {name} in epoch .* go on with --resume"):
            train(configuration, run, resume=index > 0, quiet=True)
        assert signal.getsignal(number) is handler
    train(None, run, resume=True, quiet=True)
    assert_same_run(finished / "run", run)


def test_a_signal_in_the_last_validation_of_a_stage_stops_the_next_one(finished, tmp_path, monkeypatch):
    finish_epoch = StageLoop._finish_epoch

    def finish_and_signal(loop):
        record = finish_epoch(loop)
        if loop.stage.name == "first" and loop.finished:
            signal.raise_signal(signal.SIGTERM)
        return record

    monkeypatch.setattr(StageLoop, "_finish_epoch", finish_and_signal)
    with pytest.raises(TrainingInterrupted, match="stopped by SIGTERM in epoch 1 of stage 'second'"):
        train(load_configuration(finished / "train.yaml"), tmp_path / "run", quiet=True)
    train(None, tmp_path / "run", resume=True, quiet=True)
    assert_same_run(finished / "run", tmp_path / "run")


def start(configuration, run, script=SCRIPT):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", script, str(configuration), str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).resolve().parents[1],
    )


def wait_for(path, text, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.005)
    raise AssertionError(f"no {text!r} in {path}: {process.stderr.read()}")


def test_ctrl_c_ends_a_process_with_one_line(finished, tmp_path):
    run = tmp_path / "run"
    process = start(finished / "train.yaml", run)
    wait_for(run / "log.txt", "first epoch 1", process)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message.startswith("stopped by Ctrl-C in epoch ")
    assert len(message.splitlines()) == 1
    train(load_configuration(finished / "train.yaml"), run, resume=True, quiet=True)
    assert_same_run(finished / "run", run)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(finished, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished / "run" / "configuration.yaml", run)
    (run / ".checkpoint.safetensors.abcd").write_text("half a checkpoint")
    (run / "metrics.csv").write_text((finished / "run" / "metrics.csv").read_text())
    train(None, run, resume=True, quiet=True)
    assert_same_run(finished / "run", run)
    assert not list(run.glob(".*"))


def test_killed_process_resumes_bit_equal(finished, tmp_path):
    run = tmp_path / "run"
    process = start(finished / "train.yaml", run)
    wait_for(run / "log.txt", "second epoch 1", process)
    process.kill()
    process.communicate(timeout=60)
    train(None, run, resume=True, quiet=True)
    assert_same_run(finished / "run", run)


@pytest.mark.parametrize("failing", range(1, 5))
def test_a_full_disk_keeps_the_last_checkpoint(finished, tmp_path, monkeypatch, failing):
    # potentials and checkpoints are written in turn at every end of an epoch
    monkeypatch.setattr("lrc_ase.training.stage_runs.SECONDS_BETWEEN_FILES", 0.0)
    sync, calls = os.fsync, [0]

    def full(descriptor):
        calls[0] += 1
        if calls[0] == 1 + failing:  # the configuration comes first
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    run = tmp_path / "run"
    with pytest.raises(
        RunFolderError, match=r"cannot write .*safetensors: No space left on device; the last checkpoint"
    ):
        train(load_configuration(finished / "train.yaml"), run, quiet=True)
    assert not list(run.glob(".*"))
    train(None, run, resume=True, quiet=True)
    assert_same_run(finished / "run", run)


@pytest.mark.parametrize(
    ("seconds", "minutes", "expected"),
    [(2.0, 5.0, [6, 9]), (2.0, 0.1, [4, 8, 9]), (20.0, 0.5, [2, 3, 5, 6, 8, 9])],
    ids=["short epochs", "short minutes", "long epochs"],
)
def test_files_are_written_as_often_as_asked(tmp_path, monkeypatch, seconds, minutes, expected):
    """Three epochs of three steps that take `seconds`: after `checkpoint_every`, and at ends of epochs after 10 s."""
    write_frames(tmp_path)
    clock, saved = [0.0], []
    average, save = StageLoop._average, Run._save

    def average_slowly(loop):
        average(loop)
        clock[0] += seconds

    def save_and_note(run, loop):
        saved.append(loop.progress.step)
        save(run, loop)

    monkeypatch.setattr(StageLoop, "_average", average_slowly)
    monkeypatch.setattr(Run, "_save", save_and_note)
    monkeypatch.setattr("lrc_ase.training.stage_runs.time", SimpleNamespace(monotonic=lambda: clock[0]))
    data, stages = {"small": {"train": "small.traj"}}, [{"name": "only", "epochs": 3, "batch_size": 2}]
    configuration = two_stage_configuration(tmp_path, data=data, stages=stages, checkpoint_every=minutes)
    train(configuration, tmp_path / "run", quiet=True)
    assert saved == expected


def test_a_log_that_cannot_be_written_is_named(finished, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.log_file.unlink()
    folder.log_file.mkdir()
    with pytest.raises(RunFolderError, match=r"cannot write to .*run: Is a directory; the last checkpoint is kept"):
        folder.log("text")


FORKS = """
import os, sys
from lrc_ase.training import load_configuration, train
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            resume = os.path.exists(os.path.join(sys.argv[2], "configuration.yaml"))
            train(load_configuration(sys.argv[1]), sys.argv[2], resume=resume, quiet=True)
        finally:
            os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs in forks, which have imported everything")
def test_twenty_random_kills_change_nothing(tmp_path):
    write_frames(tmp_path, n_small=8, n_large=4)
    configuration = two_stage_configuration(tmp_path, epochs=150, checkpoint_every=0.005)
    write_configuration(tmp_path / "train.yaml", configuration)
    train(configuration, tmp_path / "whole", quiet=True)
    rng = np.random.default_rng(0)
    run = tmp_path / "run"
    with start(tmp_path / "train.yaml", run, script=FORKS) as process:
        for _ in range(20):
            process.stdin.write("again\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            begin = (run / "log.txt").read_text().count("epoch") if run.exists() else 0
            wait_for_epochs(run / "log.txt", begin + int(rng.integers(1, 12)), child)
            time.sleep(float(rng.uniform(0, 0.2)))
            os.kill(child, signal.SIGKILL)
            assert process.stdout.readline() == "ended\n"
        process.stdin.close()
    assert 20 < (run / "log.txt").read_text().count("epoch") < 300, "killed too early or too late"
    train(None, run, resume=True, quiet=True)
    assert_same_run(tmp_path / "whole", run)


def wait_for_epochs(path, count, child):
    """Wait until a log holds so many epochs; the process must be alive."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().count("epoch") >= count:
            return
        os.kill(child, 0)
        time.sleep(0.005)
    raise AssertionError(f"no {count} epochs in {path}")
