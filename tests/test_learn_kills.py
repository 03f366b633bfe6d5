"""Runs of active learning that are killed at every moment end with the same labels and the same potential."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from learn_runs import assert_equal_runs, content, labels_of

from lrc_ase.learning.active_learning import learn
from lrc_ase.learning.label_store import LabelStore
from lrc_ase.learning.progress import Observer
from lrc_ase.learning.state import LearnFolder, LearnState


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("learn")
    return folder / "run", learn(content(folder), folder / "run")


@pytest.mark.parametrize("n_writes", [1, 2, 3, 4, 6, 7])
def test_killed_after_any_phase_a_run_ends_with_the_same_labels(finished, n_writes, tmp_path, monkeypatch):
    """Before each of the writes that end a phase, the phase is done and its end is not on disk."""
    write, count = LearnFolder.write, [0]

    def killing(folder: LearnFolder, state: LearnState) -> None:
        count[0] += 1
        if count[0] == n_writes + 1:
            raise Killed
        write(folder, state)

    monkeypatch.setattr(LearnFolder, "write", killing)
    with pytest.raises(Killed):
        learn(content(tmp_path), tmp_path / "run")
    monkeypatch.setattr(LearnFolder, "write", write)
    summary = learn(None, tmp_path / "run", resume=True)
    assert_equal_runs(tmp_path / "run", finished[0])
    assert summary.teacher_calls == 10


@pytest.mark.parametrize("n_epochs", [2, 4])
def test_killed_in_a_training_a_run_named_by_a_relative_path_goes_on(finished, n_epochs, tmp_path, monkeypatch):
    """Epochs 1 to 3 are those of the first training, 4 and 5 those of the second."""
    count = [0]

    class Killing(Observer):
        def phase(self, name: str, total: int) -> None:
            self.trains = name.endswith("training")

        def advance(self, done: int, status: str = "") -> None:
            count[0] += self.trains
            if count[0] == n_epochs:
                raise Killed

    monkeypatch.chdir(tmp_path)
    with pytest.raises(Killed):
        learn(content(tmp_path), "run", observer=Killing())
    learn(None, "run", resume=True)
    assert_equal_runs(tmp_path / "run", finished[0])


def test_killed_between_labels_none_is_computed_twice(finished, tmp_path, monkeypatch):
    add, count = LabelStore.add, [0]

    def killing(store: LabelStore, atoms, **info) -> bool:
        count[0] += 1
        if count[0] == 3:
            raise Killed
        return add(store, atoms, **info)

    monkeypatch.setattr(LabelStore, "add", killing)
    with pytest.raises(Killed):
        learn(content(tmp_path), tmp_path / "run")
    assert len(labels_of(tmp_path / "run")) == 2
    added: list[str] = []

    def noting(store: LabelStore, atoms, **info) -> bool:
        added.append(atoms.info["learn_frame"])
        return add(store, atoms, **info)

    monkeypatch.setattr(LabelStore, "add", noting)
    learn(None, tmp_path / "run", resume=True)
    assert len(added) == len(set(added)) == 8
    assert_equal_runs(tmp_path / "run", finished[0])


def size_of(folder) -> int:
    """Bytes of all files in a folder but locks; files may vanish meanwhile."""
    total = 0
    for path in folder.rglob("*[!k]"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size + 1
    return total


@pytest.mark.slow
def test_runs_survive_kill_9_at_random_moments(finished, tmp_path):
    """Each process is killed after the files have changed a random number of times."""
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump(content(tmp_path)))
    command = [sys.executable, "-m", "lrc_ase.cli", "learn"]
    run = tmp_path / "run"
    arguments = [str(tmp_path / "learn.yaml"), "-o", str(run)]
    rng = np.random.default_rng(0)
    n_kills = 0
    while n_kills < 6:
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, start_new_session=True)
        size, left = size_of(run), int(rng.integers(1, 8))
        while left and process.poll() is None:
            time.sleep(0.01)
            if (now := size_of(run)) != size:
                size, left = now, left - 1
        if process.poll() is not None:
            assert process.returncode == 0
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        n_kills += 1
        if (run / "state.json").exists():
            arguments = [str(run), "--resume"]
    subprocess.run([*command, str(run), "--resume"], check=True, stdout=subprocess.DEVNULL)
    assert n_kills == 6
    assert_equal_runs(run, finished[0])
