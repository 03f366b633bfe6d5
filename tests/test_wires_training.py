"""Every field of a training configuration changes what it should: one pair of values per field.

A field without an entry in `CASES` fails `test_every_field_of_a_configuration_has_a_case`. Runs are deterministic, so a
field that nobody reads leaves the observed values equal to the last bit, and its case fails.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from training_frames import TINY_MODEL, metal_frames, molecules

from lrc_ase.dataset import LabelKeys, write_frames
from lrc_ase.files.tensors import read_tensors
from lrc_ase.models import settings
from lrc_ase.training import configuration, parse_configuration, train

CLASSES = [
    configuration.TrainFile,
    configuration.DataSetConfiguration,
    configuration.ModelConfiguration,
    configuration.LossConfiguration,
    configuration.StageConfiguration,
    configuration.TrainingConfiguration,
    settings.LongRangeSettings,
    settings.SphereSettings,
    settings.PonitaSettings,
    settings.PaperSettings,
    settings.ZBLSettings,
    settings.D3Settings,
    LabelKeys,
]
TIMES = ("seconds",)
"""Columns of the metrics that differ between equal runs."""


@dataclass(frozen=True)
class Run:
    """Results of a training."""

    weights: dict[str, bytes]
    """Bytes of each tensor of the potential."""
    description: dict[str, Any]
    """Header of the potential."""
    metrics: list[dict[str, str]]
    """Rows of metrics.csv without times."""
    log: str
    folder: Path


@dataclass(frozen=True)
class Case:
    """Another value of one field, and what must differ from the run without it."""

    keys: str
    """Dotted path in the configuration; integers index sequences."""
    value: Any
    observe: Callable[[Run], Any] = lambda run: run.weights
    base: dict[str, Any] = field(default_factory=dict)
    """Other settings of both runs, by dotted path."""


def rows(run: Run) -> int:
    """Return the number of validated epochs."""
    return len(run.metrics)


def shapes(run: Run) -> dict[str, int]:
    """Return the size of each tensor."""
    return {name: len(content) for name, content in run.weights.items()}


def training_errors(run: Run) -> list[str]:
    """Return the training loss of each row: that of the current weights, not of their running mean."""
    return [row["train_loss"] for row in run.metrics]


def stages(run: Run) -> list[str]:
    """Return the stage of each row."""
    return [row["stage"] for row in run.metrics]


def baselines(run: Run) -> list[dict[str, Any]]:
    """Return the settings of the baselines in the potential file."""
    return run.description["model"]["baseline"]


def watched_energy_error(run: Run) -> str:
    """Return the error on the watched frames."""
    return run.metrics[0]["watched_energy_rmse"]


FILE, OTHER_FILE, LABELS = "frames.traj", "others.traj", "labels.extxyz"
OPEN_LABELS = "open.extxyz"
FIRST_START, SECOND_START = "first.safetensors", "second.safetensors"
ABSENT = "absent"
"""Value that takes a key out of the configuration."""
PONITA = {"model.descriptor": {"name": "ponita", "n_orientations": 6, "n_layers": 1, "n_channels": 4, "n_basis": 4}}
PAPER = {"model.descriptor": {"name": "paper", "widths": [2, 4]}}
TWO_BLOCKS = {"model.descriptor.n_blocks": 2}
FOREIGN_LABELS = {"data.set.train.0.path": LABELS}
DIPOLES = {"data.set.train.0.path": OPEN_LABELS, "stages.0.loss.dipole": 1.0}
BORN_CHARGES = {"data.set.train.0.path": OPEN_LABELS, "stages.0.loss.born_effective_charges": 1.0}
VALIDATED = {"data.set.validation": [OTHER_FILE]}

CASES = {
    "TrainFile.path": Case("data.set.train.0.path", OTHER_FILE),
    "TrainFile.weight": Case("data.set.train.0.weight", 5.0),
    "DataSetConfiguration.train": Case("data.set.train", [FILE, OTHER_FILE]),
    "DataSetConfiguration.validation": Case("data.set.validation", [OTHER_FILE], lambda run: run.metrics),
    "DataSetConfiguration.validation_fraction": Case("data.set.validation_fraction", 0.5),
    "DataSetConfiguration.config_type_weights": Case(
        "data.set.config_type_weights", {"dense": 5.0}, base=FOREIGN_LABELS
    ),
    "DataSetConfiguration.keys": Case("data.set.keys", {"energy": "wrong_energy"}, base=FOREIGN_LABELS),
    "LabelKeys.energy": Case("data.set.keys.energy", "wrong_energy", base=FOREIGN_LABELS),
    "LabelKeys.forces": Case("data.set.keys.forces", "wrong_forces", base=FOREIGN_LABELS),
    "LabelKeys.stress": Case("data.set.keys.stress", "wrong_stress", base=FOREIGN_LABELS),
    "LabelKeys.virial": Case("data.set.keys.virial", "wrong_virial", base=FOREIGN_LABELS),
    "LabelKeys.charge": Case("data.set.keys.charge", "wrong_charge", base=FOREIGN_LABELS),
    "LabelKeys.dipole": Case("data.set.keys.dipole", "wrong_dipole", base=DIPOLES),
    "LabelKeys.born_effective_charges": Case("data.set.keys.born_effective_charges", "wrong_born", base=BORN_CHARGES),
    "ModelConfiguration.elements": Case("model.elements", ["Cu", "Ag", "Au"], shapes),
    "ModelConfiguration.preset": Case("model.preset", "accurate", shapes),
    "ModelConfiguration.cutoff": Case("model.cutoff", 4.5),
    "ModelConfiguration.descriptor": Case("model.descriptor", PAPER["model.descriptor"], shapes),
    "ModelConfiguration.long_range": Case("model.long_range", TINY_MODEL["long_range"] | {"n_channels": 2}, shapes),
    "ModelConfiguration.baseline": Case("model.baseline", [], baselines),
    "ZBLSettings.ranges": Case("model.baseline", [{"zbl": {"ranges": {"Cu-Au": 1.5}}}], baselines),
    "ZBLSettings.wall": Case("model.baseline", [{"zbl": {"wall": 20.0}}], baselines),
    "ModelConfiguration.hidden": Case("model.hidden", [8, 8], shapes),
    "ModelConfiguration.average_neighbors": Case("model.average_neighbors", 50.0),
    "ModelConfiguration.energy_scale": Case("model.energy_scale", 3.0),
    "LongRangeSettings.n_channels": Case("model.long_range.n_channels", 2, shapes),
    "LongRangeSettings.electrostatics": Case("model.long_range.electrostatics", False, shapes),
    "LongRangeSettings.charges": Case("model.long_range.charges", "shifted", shapes),
    "LongRangeSettings.n_transfers": Case("model.long_range.n_transfers", 2, shapes),
    "LongRangeSettings.polarizable": Case("model.long_range.polarizable", True, shapes),
    "LongRangeSettings.n_dipoles": Case("model.long_range.n_dipoles", 2, shapes),
    "LongRangeSettings.n_tensors": Case("model.long_range.n_tensors", 1, shapes),
    "LongRangeSettings.eps_inf": Case("model.long_range.eps_inf", 2.5, lambda run: run.description["model"]),
    "LongRangeSettings.compositions": Case("model.long_range.compositions", {"Cu": 1, "Au": -1}),
    "LongRangeSettings.smearing": Case("model.long_range.smearing", 2.0),
    "LongRangeSettings.accuracy": Case("model.long_range.accuracy", 1e-6),
    "LongRangeSettings.n_features": Case("model.long_range.n_features", 3, shapes),
    "SphereSettings.name": Case("model.descriptor", PAPER["model.descriptor"], shapes),
    "SphereSettings.n_radial": Case("model.descriptor.n_radial", 5, shapes),
    "SphereSettings.n_channels": Case("model.descriptor.n_channels", 5, shapes),
    "SphereSettings.degrees": Case("model.descriptor.degrees", [1]),
    "SphereSettings.n_blocks": Case("model.descriptor.n_blocks", 2, shapes),
    "SphereSettings.n_neighbor_features": Case("model.descriptor.n_neighbor_features", 3, shapes, TWO_BLOCKS),
    "SphereSettings.neighbor_degree": Case("model.descriptor.neighbor_degree", 1, shapes, TWO_BLOCKS),
    "SphereSettings.compression": Case("model.descriptor.compression", 0.5),
    "PonitaSettings.name": Case("model.descriptor", PAPER["model.descriptor"], shapes, PONITA),
    "PonitaSettings.n_orientations": Case("model.descriptor.n_orientations", 8, shapes, PONITA),
    "PonitaSettings.n_layers": Case("model.descriptor.n_layers", 2, shapes, PONITA),
    "PonitaSettings.n_channels": Case("model.descriptor.n_channels", 5, shapes, PONITA),
    "PonitaSettings.n_basis": Case("model.descriptor.n_basis", 5, shapes, PONITA),
    "PonitaSettings.degree": Case("model.descriptor.degree", 2, shapes, PONITA),
    "PonitaSettings.widening": Case("model.descriptor.widening", 2, shapes, PONITA),
    "PonitaSettings.rotate_grid": Case("model.descriptor.rotate_grid", True, base=PONITA),
    "PaperSettings.name": Case("model.descriptor", PONITA["model.descriptor"], shapes, PAPER),
    "PaperSettings.widths": Case("model.descriptor.widths", [2, 5], shapes, PAPER),
    "PaperSettings.envelope": Case("model.descriptor.envelope", False, base=PAPER),
    "PaperSettings.inverse_mean": Case("model.descriptor.inverse_mean", 0.1, base=PAPER),
    "PaperSettings.inverse_deviation": Case("model.descriptor.inverse_deviation", 0.3, base=PAPER),
    "LossConfiguration.energy": Case("stages.0.loss.energy", 1.0),
    "LossConfiguration.forces": Case("stages.0.loss.forces", 3.0),
    "LossConfiguration.stress": Case("stages.0.loss.stress", 0.0),
    "LossConfiguration.dipole": Case("stages.0.loss.dipole", 2.0, base=DIPOLES),
    "LossConfiguration.born_effective_charges": Case("stages.0.loss.born_effective_charges", 2.0, base=BORN_CHARGES),
    "LossConfiguration.function": Case("stages.0.loss.function", "huber"),
    "LossConfiguration.huber_delta": Case("stages.0.loss.huber_delta", 0.01, base={"stages.0.loss.function": "huber"}),
    "StageConfiguration.name": Case("stages.0.name", "renamed", lambda run: run.metrics[0]["stage"]),
    "StageConfiguration.data": Case("stages.0.data", ["set"], base={"data.more": {"train": [OTHER_FILE]}}),
    "StageConfiguration.model": Case("stages.0.model", "short-range", shapes),
    "StageConfiguration.train": Case("stages.0.train", "short-range-part"),
    "StageConfiguration.epochs": Case("stages.0.epochs", 3, rows),
    "StageConfiguration.batch_size": Case("stages.0.batch_size", 1),
    "StageConfiguration.optimizer": Case("stages.0.optimizer", "adamw"),
    "StageConfiguration.learning_rate": Case("stages.0.learning_rate", 1e-3),
    "StageConfiguration.schedule": Case("stages.0.schedule", "constant"),
    "StageConfiguration.final_learning_rate": Case("stages.0.final_learning_rate", 0.5),
    "StageConfiguration.warmup": Case("stages.0.warmup", 0.5),
    "StageConfiguration.weight_decay": Case("stages.0.weight_decay", 0.5),
    "StageConfiguration.loss": Case("stages.0.loss", {"energy": 1.0}),
    "StageConfiguration.ema_decay": Case("stages.0.ema_decay", 0.0),
    "StageConfiguration.gradient_clip": Case("stages.0.gradient_clip", 1e-3, base={"stages.0.optimizer": "adamw"}),
    "StageConfiguration.validate_every": Case(
        "stages.0.validate_every", 2, lambda run: [row["validation_loss"] == "" for row in run.metrics]
    ),
    "StageConfiguration.patience": Case(
        "stages.0.patience", 1, rows, {"stages.0.epochs": 8, "stages.0.learning_rate": 1e-30, **VALIDATED}
    ),
    "TrainingConfiguration.data": Case("data.more", {"train": [OTHER_FILE]}),
    "TrainingConfiguration.model": Case("model.cutoff", 4.5),
    "TrainingConfiguration.references": Case(
        "references", {"Cu": 1.0, "Au": 2.0}, lambda run: run.weights["references"]
    ),
    "TrainingConfiguration.stages": Case(
        "stages", [{"name": name, "epochs": 1, "batch_size": 2} for name in ("one", "two")], stages
    ),
    "TrainingConfiguration.start": Case("start", SECOND_START, base={"model": ABSENT, "start": FIRST_START}),
    "TrainingConfiguration.watch": Case("watch", [OTHER_FILE], watched_energy_error),
    "TrainingConfiguration.ensemble": Case("ensemble", 2, shapes),
    "TrainingConfiguration.leave_out": Case("leave_out", 0.5, base={"ensemble": 2}),
    "TrainingConfiguration.seed": Case("seed", 1),
    # nothing to compile in another precision
    "TrainingConfiguration.dtype": Case("dtype", "float64", training_errors, PAPER | {"stages.0.model": "short-range"}),
    "TrainingConfiguration.watch_keys": Case(
        "watch_keys", {"energy": "wrong_energy"}, watched_energy_error, {"watch": [LABELS]}
    ),
}

ELSEWHERE = {
    "LabelKeys.polarizability": "tests/test_electric_labels.py: no loss weighs it",
    "StageConfiguration.accumulate": "tests/test_training_loop.py: steps are equal, memory is less",
    "StageConfiguration.time_limit": "tests/test_training_endings.py",
    "TrainingConfiguration.keep_dipoles": "tests/test_kept_dipoles.py",
    "TrainingConfiguration.test": "tests/test_final_errors.py: rows of the table at the end",
    "TrainingConfiguration.remarks": "tests/test_training_run.py: they survive a resume",
    "TrainingConfiguration.skip_unlabelled": "tests/test_training_labels.py: an error without it",
    "TrainingConfiguration.cache": "tests/test_cache.py: results are equal",
    "TrainingConfiguration.n_workers": "tests/test_cache.py",
    "TrainingConfiguration.device": "tests/test_training_run.py: an absent device is refused",
    "TrainingConfiguration.n_threads": "tests/test_wires_training.py: what torch is told",
    "TrainingConfiguration.tensorboard": "tests/test_training_monitor.py",
    "TrainingConfiguration.checkpoint_every": "tests/test_training_interruption.py",
    "ZBLSettings.name": "tests/test_core_repulsion_training.py: another name is refused",
    "D3Settings.name": "tests/test_dispersion.py",
    "D3Settings.functional": "tests/test_dispersion.py: its parameters",
    "D3Settings.damping": "tests/test_dispersion.py: against the library",
    "D3Settings.three_body": "tests/test_dispersion.py: among the parameters",
    "D3Settings.cutoff": "tests/test_dispersion.py: against the library",
    "D3Settings.parameters": "tests/test_dispersion.py: against the library",
    "PaperSettings.distance_mean": "tests/test_paper_descriptor.py: one dimension alone",
    "PaperSettings.distance_deviation": "tests/test_paper_descriptor.py: one dimension alone",
}
"""Fields whose effect is no difference of results, and the test that watches it."""


@pytest.fixture(scope="module")
def folder(plain_descriptor: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two sets of frames, one of them with second labels, and a potential to start from."""
    folder = tmp_path_factory.mktemp("wires")
    ase.io.write(folder / FILE, metal_frames(6))
    ase.io.write(folder / OTHER_FILE, metal_frames(4, seed=5))
    frames = metal_frames(6)
    for atoms in frames:
        atoms.info["wrong_energy"] = 1.1 * atoms.get_potential_energy()
        atoms.info["wrong_stress"] = 1.5 * atoms.get_stress()
        atoms.info["wrong_virial"] = 2.0 * atoms.get_stress(voigt=False) * atoms.get_volume()
        atoms.info["wrong_charge"] = 1.0
        atoms.arrays["wrong_forces"] = 0.5 * atoms.get_forces()
        atoms.info["config_type"] = "dense" if atoms.symbols.count("Au") > 1 else "dilute"
    ase.io.write(folder / LABELS, frames)
    frames = molecules(6)
    for atoms in frames:
        atoms.info["wrong_dipole"] = -atoms.calc.results["dipole"]
        atoms.arrays["wrong_born"] = -atoms.calc.results["born_effective_charges"].reshape(-1, 9)
    write_frames(folder / OPEN_LABELS, frames)
    for seed, name in enumerate((FIRST_START, SECOND_START)):
        output = folder / f"start-{seed}"
        train(parse_configuration(content({"seed": seed}), folder=folder), output)
        (output / "potential.safetensors").rename(folder / name)
    return folder


def content(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run of a second, with some settings changed."""
    made: dict[str, Any] = {
        "data": {"set": {"train": [{"path": FILE}], "validation_fraction": 0.34, "keys": {}}},
        "model": json.loads(json.dumps(TINY_MODEL)),
        "stages": [{"name": "only", "epochs": 2, "batch_size": 2, "learning_rate": 0.02, "loss": {}}],
        "n_threads": 1,
    }
    for keys, value in changes.items():
        *path, last = (int(key) if key.isdigit() else key for key in keys.split("."))
        target: Any = made
        for key in path:
            target = target[key]
        if value == ABSENT:
            del target[last]
        else:
            target[last] = value
    return made


@cache  # a run that was forgotten would meet its folder
def run(folder: Path, changes: str) -> Run:
    """Train with the settings in `changes`, as JSON, and read what came out."""
    output = folder / f"run-{abs(hash(changes))}"
    train(parse_configuration(content(json.loads(changes)), folder=folder), output)
    tensors, metadata = read_tensors(output / "potential.safetensors")
    with (output / "metrics.csv").open(newline="") as file:
        metrics = [{name: row[name] for name in row if name not in TIMES} for row in csv.DictReader(file)]
    return Run(
        {name: np.atleast_1d(tensor.numpy()).tobytes() for name, tensor in tensors.items()},
        json.loads(metadata["lrc_ase"]),
        metrics,
        (output / "log.txt").read_text(),
        output,
    )


def test_every_field_of_a_configuration_has_a_case():
    fields = {f"{kind.__name__}.{name}" for kind in CLASSES for name in kind.model_fields}
    assert fields == set(CASES) | set(ELSEWHERE)
    assert not set(CASES) & set(ELSEWHERE)


def test_every_test_elsewhere_names_its_setting():
    root = Path(__file__).resolve().parents[1]
    for name, place in ELSEWHERE.items():
        assert name.split(".")[1] in (root / place.split(":")[0]).read_text(), name


@pytest.mark.parametrize("name", CASES)
def test_field_changes_what_it_should(folder, name):
    case = CASES[name]
    without = run(folder, json.dumps(case.base))
    # a value inside of a mapping that the base replaces needs the base first
    changed = run(folder, json.dumps({**case.base, case.keys: case.value}))
    assert case.observe(without) != case.observe(changed)


def test_equal_runs_are_equal_so_that_a_difference_means_something(folder):
    first, second = (run.__wrapped__(folder, changes) for changes in ('{"seed": 0}', '{"dtype": "float32"}'))
    assert first.weights == second.weights
    assert first.metrics == second.metrics


def test_torch_is_told_the_number_of_threads(folder, monkeypatch):
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    run(folder, json.dumps({"n_threads": 3}))
    assert told[0] == 3
