"""Retraining of the potential of an `OnTheFlyCalculator`: when it begins, from what, and what becomes of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import ase.io
import pytest
import torch
from ase.calculators.calculator import CalculationFailed
from test_on_the_fly import EMT_TEACHER, emt, frame, potential
from training_frames import metal_frames

from lrc_ase import load_potential, save_potential
from lrc_ase.learning import OnTheFlyCalculator, on_the_fly
from lrc_ase.learning.retraining import Retraining, RetrainingError
from lrc_ase.training import load_configuration


class FakeRetraining:
    """A training of which the test decides when and how it ends."""

    def __init__(self, frames, folder, start, options):
        self.frames, self.folder, self.start, self.options = frames, folder, start, options
        self.has_ended, self.is_closed = False, False
        self.result: Path | Exception = Path()

    def wait(self):
        self.has_ended = True
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def close(self):
        self.is_closed = True


@pytest.fixture
def trainings(monkeypatch, tmp_path):
    """Return the list of trainings that were started; each gives the file `retrained.safetensors`."""
    save_potential(tmp_path / "retrained.safetensors", potential(3))
    started = []

    def start(*arguments):
        started.append(FakeRetraining(*arguments))
        started[-1].result = tmp_path / "retrained.safetensors"
        return started[-1]

    monkeypatch.setattr(on_the_fly, "Retraining", start)
    return started


def test_retraining_after_a_number_of_labels(tmp_path, trainings):
    with OnTheFlyCalculator(
        potential(),
        EMT_TEACHER,
        1e-9,
        labels=tmp_path / "labels.extxyz",
        retrain=2,
        known=tmp_path / "known.extxyz",
        training={"epochs": 7},
    ) as calculator:
        calculator.get_property("energy", frame(0))
        assert trainings == []
        calculator.get_property("energy", frame(1))
        assert calculator.potential.n_members == 3
        assert calculator.potential_path == tmp_path / "retrained.safetensors"
        calculator.get_property("energy", frame(2))
        calculator.get_property("energy", frame(2))
        assert len(trainings) == 1
        calculator.get_property("energy", frame(3))
    first, second = trainings
    potentials = tmp_path / "labels-potentials"
    assert [first.folder, second.folder] == [potentials / "1", potentials / "2"]
    assert first.options == {"epochs": 7}
    assert first.frames == [str(tmp_path / "known.extxyz"), str(potentials / "1-labels.extxyz")]
    assert len(ase.io.read(potentials / "1-labels.extxyz", ":")) == 2
    assert len(ase.io.read(potentials / "2-labels.extxyz", ":")) == 4
    # from the present weights, then from the retrained ones
    assert load_potential(first.start, dtype=torch.float64).digest() == potential().digest()
    assert second.start == str(tmp_path / "retrained.safetensors")
    with OnTheFlyCalculator(
        tmp_path / "retrained.safetensors", EMT_TEACHER, 1e-9, labels=tmp_path / "labels.extxyz", retrain=1
    ) as calculator:
        calculator.get_property("energy", frame(0))  # stored before: no new label
        assert len(trainings) == 2
        calculator.get_property("energy", frame(4))
    assert trainings[2].folder == potentials / "3"


def test_retraining_in_the_background(tmp_path, trainings):
    options = {"labels": tmp_path / "labels.extxyz", "retrain": 1, "background": True, "folder": tmp_path / "more"}
    with OnTheFlyCalculator(potential(), EMT_TEACHER, 1e-9, **options) as calculator:
        for seed in range(3):
            calculator.get_property("energy", frame(seed))
            assert calculator.potential.n_members == 2
        assert len(trainings) == 1  # one at a time
        trainings[0].has_ended = True
        calculator.get_property("energy", frame(0))  # with the new potential, whose deviations are above the threshold
        assert calculator.potential.n_members == 3
        calculator.get_property("energy", frame(3))
        assert trainings[1].folder == tmp_path / "more" / "2"
        calculator.finish_retraining()
        calculator.get_property("energy", frame(4))
    assert [training.is_closed for training in trainings] == [False, False, True]


def test_retraining_that_fails(tmp_path, trainings, monkeypatch):
    def failing(*arguments):
        trainings.append(FakeRetraining(*arguments))
        trainings[-1].result = RetrainingError("no memory")
        return trainings[-1]

    monkeypatch.setattr(on_the_fly, "Retraining", failing)
    with OnTheFlyCalculator(potential(), EMT_TEACHER, 1e-9, labels=tmp_path / "a.extxyz", retrain=1) as calculator:
        with pytest.raises(CalculationFailed, match="no memory"):
            calculator.get_property("energy", frame())
        assert len(calculator.labels) == 1
    with OnTheFlyCalculator(
        potential(), EMT_TEACHER, 1e-9, labels=tmp_path / "b.extxyz", retrain=1, background=True
    ) as calculator:
        calculator.get_property("energy", frame())
        with pytest.warns(UserWarning, match="no memory; the potential stays as it is"):
            calculator.finish_retraining()
        assert calculator.potential.n_members == 2


@pytest.mark.slow
def test_a_real_retraining_continues_the_potential(tmp_path):
    ase.io.write(tmp_path / "known.traj", metal_frames(22))
    training = {"epochs": 2, "batch_size": 4, "n_threads": 1, "settings": {"data.*.validation_fraction": 0.25}}
    with OnTheFlyCalculator(
        potential(),
        EMT_TEACHER,
        1e-9,
        labels=tmp_path / "labels.extxyz",
        retrain=2,
        known=[tmp_path / "known.traj"],
        training=training,
    ) as calculator:
        before = calculator.potential.digest()
        calculator.get_property("energy", frame(20))
        with pytest.warns(UserWarning, match="`threshold` is 1e-09 eV/Angstrom"):  # the new potential has a floor
            calculator.get_property("energy", frame(21))
        assert calculator.potential.digest() != before
        assert calculator.potential.n_members == 2
        folder = tmp_path / "labels-potentials" / "1"
        assert calculator.potential_path == (folder / "potential.safetensors").resolve()
        configuration = load_configuration(folder / "configuration.yaml")
        assert configuration.start == str(tmp_path / "labels-potentials" / "1-start.safetensors")
        assert configuration.stages[0].epochs == 2
        assert calculator.get_property("energy", frame(3)) == emt(frame(3)).get_potential_energy()


@pytest.mark.slow
def test_a_failed_training_says_why(tmp_path):
    retraining = Retraining([str(tmp_path / "missing.extxyz")], tmp_path / "run", "nacl", {"epochs": 1})
    with pytest.raises(RetrainingError, match=r"failed \(exit status 1\).*missing.extxyz"):
        retraining.wait()
    assert retraining.has_ended


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_training_ends_with_the_process_that_started_it(tmp_path):
    ase.io.write(tmp_path / "known.traj", metal_frames(12))
    program = f"""
import time
from pathlib import Path
from lrc_ase.learning.retraining import Retraining
training = Retraining([{str(tmp_path / "known.traj")!r}], Path({str(tmp_path / "run")!r}), "nacl", {{}})
print(training._popen.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        training = int(parent.stdout.readline())
        assert Path(f"/proc/{training}").exists()
        parent.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{training}").exists() and " Z " not in Path(f"/proc/{training}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
