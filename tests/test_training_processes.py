"""Batches in parts and by several processes give the step of the whole batch."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training_ensemble import SETTINGS
from test_training_loop import ELEMENTS
from training_frames import metal_frames, two_stage_configuration, write_frames

from lrc_ase.dataset import label_frame, labelled_graph
from lrc_ase.files.potential_file import load_potential
from lrc_ase.training import train, write_configuration
from lrc_ase.training.configuration import LossConfiguration
from lrc_ase.training.losses import LabelCounts
from lrc_ase.training.processes import Processes, balanced_parts
from lrc_ase.training.references import fit_references
from lrc_ase.training.steps import batch_gradient, mean_errors
from lrc_ase.training.untrained import new_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
LOSS = LossConfiguration(stress=1.0)


@pytest.fixture(scope="module")
def graphs():
    """Frames of two sizes; one lacks a stress, one the force on an atom."""
    atoms = [*metal_frames(3), *metal_frames(2, seed=1, repeat=(2, 1, 1))]
    del atoms[1].calc.results["stress"]
    frames = [label_frame(each) for each in atoms]
    frames[2].forces[1] = np.nan
    references = fit_references(frames, ELEMENTS).values
    return [labelled_graph(frame, ELEMENTS, 4.0, references) for frame in frames]


def gradient_of(graphs, *, n_parts=1, size=1):
    """Gradient and errors of a batch, summed over `size` processes."""
    model = new_model(SETTINGS, n_members=1, seed=0).double()
    errors = [
        batch_gradient(model, graphs, LOSS, 0.5, n_parts=n_parts, processes=Processes(rank, size))()
        for rank in range(size)
    ]
    return torch.cat([parameter.grad.ravel() for parameter in model.parameters()]), sum(errors[1:], errors[0])


@pytest.mark.parametrize("n_parts", [2, 3, 7])
def test_parts_sum_to_the_gradient_of_the_batch(graphs, n_parts):
    expected, errors = gradient_of(graphs)
    actual, found_errors = gradient_of(graphs, n_parts=n_parts)
    assert torch.allclose(actual, expected, rtol=1e-10, atol=1e-12)
    assert found_errors.numbers() == pytest.approx(errors.numbers(), rel=1e-12)


@pytest.mark.parametrize(("size", "n_parts"), [(2, 1), (3, 2)])
def test_shares_of_processes_sum_to_the_gradient_of_the_batch(graphs, size, n_parts):
    expected, errors = gradient_of(graphs)
    actual, found_errors = gradient_of(graphs, n_parts=n_parts, size=size)
    assert torch.allclose(actual, expected, rtol=1e-10, atol=1e-12)
    assert found_errors.numbers() == pytest.approx(errors.numbers(), rel=1e-12)


def test_labels_are_counted_once(graphs):
    counts = LabelCounts.of(graphs)
    assert (counts.energies, counts.forces, counts.stresses) == (5, 3 * (12 + 16) - 3, 4 * 9)


def test_parts_hold_about_the_same_number_of_atoms():
    rng = np.random.default_rng(0)
    sizes = rng.integers(10, 200, size=32).tolist()
    parts = balanced_parts(sizes, 4)
    assert sorted(index for part in parts for index in part) == list(range(32))
    totals = [sum(sizes[index] for index in part) for part in parts]
    assert max(totals) - min(totals) < 0.05 * max(totals)
    assert balanced_parts([1], 3) == [[0], [], []]


def test_one_process_exchanges_nothing(graphs):
    processes = Processes()
    assert processes.is_first
    assert processes.any(True)
    assert not processes.any(False)
    assert processes.add_up_numbers([1.5, -2.0]) == [1.5, -2.0]
    model = new_model(SETTINGS, n_members=1, seed=0)
    assert mean_errors(model, graphs, LOSS, 0.5, batch_size=2)["loss"] > 0


def rows_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def torchrun(*arguments, program=("-m", "lrc_ase.cli")):
    """Run the command line or another program in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *map(str, arguments)], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240
    )


@pytest.mark.parametrize("ensemble", [1, 2])
def test_two_processes_train_like_one(tmp_path, ensemble):
    write_frames(tmp_path, n_small=8)
    data = {"small": {"train": "small.traj", "validation_fraction": 0.3}}
    # the basis of SOAP is arbitrary in its first steps, where rounding decides about it
    stages = [{"name": "only", "epochs": 2, "batch_size": 3, "optimizer": "adamw"}]
    configuration = two_stage_configuration(tmp_path, data=data, stages=stages, dtype="float64", ensemble=ensemble)
    write_configuration(tmp_path / "train.yaml", configuration)
    train(configuration, tmp_path / "one", quiet=True)
    finished = torchrun("train", tmp_path / "train.yaml", "-o", tmp_path / "two")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("element references") == 1
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert len(one) == len(two) == 2
    for expected, actual in zip(one, two, strict=True):
        for name in ("train_loss", "validation_loss", "train_forces_rmse", "validation_energy_mae"):
            assert float(actual[name]) == pytest.approx(float(expected[name]), rel=1e-6), name
    weights = [load_potential(tmp_path / name / "potential.safetensors").model.state_dict() for name in ("one", "two")]
    for name, tensor in weights[0].items():
        assert torch.allclose(weights[1][name], tensor, rtol=1e-6, atol=1e-8), name
    again = torchrun("train", "--resume", "--epochs", "3", "-o", tmp_path / "two")
    assert again.returncode == 0, again.stderr
    assert [row["epoch"] for row in rows_of(tmp_path / "two")] == ["1", "2", "3"]
    refused = torchrun("train", tmp_path / "train.yaml", "-o", tmp_path / "two")
    assert refused.returncode != 0
    assert "already holds a run" in refused.stderr


PROGRAM = """
import sys
from training_frames import metal_frames
from lrc_ase import train
train(metal_frames(6), sys.argv[1], epochs=1, settings={"model.descriptor.n_channels": 4})
"""


def test_two_processes_train_on_frames_from_memory(tmp_path):
    (tmp_path / "program.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n{PROGRAM}")
    finished = torchrun(tmp_path / "run", program=[str(tmp_path / "program.py")])
    assert finished.returncode == 0, finished.stderr
    assert len(rows_of(tmp_path / "run")) == 1
    assert (tmp_path / "run/training-frames.traj").exists()
