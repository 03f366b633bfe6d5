"""Damaged files, 200 cases of each kind, seeded: one clean line of the promised class, or equal results."""

import csv
import json
import random
import time
import warnings

import numpy as np
import pytest
import torch
import yaml
from damage import damaged_bytes, damaged_tree
from rewriting import rewrite
from structures import potential, settings, water
from test_restart_files import copper
from training_frames import TINY_MODEL

from lrc_ase import LRCCalculator, Potential
from lrc_ase.dataset import LabelledGraph
from lrc_ase.files.errors import PotentialFileError
from lrc_ase.files.potential_file import load_potential, save_potential
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import LongRangeSettings, ModelSettings, SphereSettings
from lrc_ase.simulation import MDSettings, run_md
from lrc_ase.simulation.output import ThermodynamicLog
from lrc_ase.simulation.restart import read_restart
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from lrc_ase.training.configuration import (
    ConfigurationError,
    StageConfiguration,
    TrainingConfiguration,
    load_configuration,
)
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.progress import Progress
from lrc_ase.training.run_folder import METRIC_COLUMNS, RunFolder, RunFolderError

pytestmark = pytest.mark.slow

CASES = range(200)
LONGEST_LINE = 600
SLOWEST = 5.0
"""Seconds that one case may take on a busy machine; a hang takes for ever, a bomb a minute."""


def outcome(read, promised, path):
    """Return what `read` returns, None for a clean error of the promised class; fail on anything else."""
    started = time.monotonic()
    refusal = None
    try:
        result = read()
    except promised as error:
        result, refusal = None, error
    assert time.monotonic() - started < SLOWEST
    if refusal is not None:
        lines = str(refusal).split("\n")
        assert type(refusal) is promised, repr(refusal)
        assert len(lines) == 1, lines[:3]
        assert max(map(len, lines)) < LONGEST_LINE + len(str(path)), refusal
        assert path.name in lines[0], refusal
    return result


@pytest.fixture(scope="module")
def tiny_potential():
    descriptor = SphereSettings(n_radial=2, n_channels=2, degrees=(1, 1))
    model = build_model(settings(descriptor=descriptor, long_range=LongRangeSettings(n_channels=1), hidden=(4,)))
    domain = {"shortest_distances": {"H-O": 0.9}, "total_charges": [0.0], "neighbors": [1, 9], "largest_force": 9.0}
    return Potential(model, potential().references, {"remarks": ["a remark"], "training_domain": domain, "epoch": 3})


def assert_same(loaded, expected):
    assert loaded.settings == expected.settings
    assert loaded.description == expected.description
    assert torch.equal(loaded.references, expected.references)
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_bytes_of_a_potential_file(tiny_potential, tmp_path):
    path = tmp_path / "potential.safetensors"
    save_potential(path, tiny_potential)
    content = path.read_bytes()
    for seed in CASES:
        path.write_bytes(damaged_bytes(random.Random(seed), content))
        loaded = outcome(lambda: load_potential(path), PotentialFileError, path)
        if loaded is not None:
            assert_same(loaded, tiny_potential)


def test_signed_headers_of_potential_files(tiny_potential, tmp_path):
    """A potential that loads can be evaluated, or ASE's errors refuse the structure."""
    path = tmp_path / "potential.safetensors"
    save_potential(path, tiny_potential)
    content = path.read_bytes()
    n_loaded = 0
    for seed in CASES:
        path.write_bytes(content)

        def damage(header, seed=seed):
            damaged = damaged_tree(random.Random(seed), header)
            header.clear()
            header.update(damaged)

        rewrite(path, damage)
        loaded = outcome(lambda: load_potential(path), PotentialFileError, path)
        if loaded is not None:
            n_loaded += 1
            atoms = water()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                atoms.calc = LRCCalculator(loaded)
                if n_loaded < 20:  # the rest would take long
                    assert np.isfinite(atoms.get_potential_energy())
    assert 5 < n_loaded < 150


@pytest.fixture(scope="module")
def loop():
    """A training stage of three frames of water, one step old."""
    generator = torch.Generator().manual_seed(0)
    model_settings = ModelSettings.model_validate({**TINY_MODEL, "elements": ["H", "O"]})
    atoms = water()
    graphs = [
        LabelledGraph(
            neighbor_graph(atoms, model_settings.elements, model_settings.cutoff),
            energy=torch.zeros(1, dtype=torch.float64),
            forces=torch.randn(3, 3, generator=generator, dtype=torch.float64),
            stress=torch.full((1, 3, 3), torch.nan, dtype=torch.float64),
            weight=torch.ones(1, dtype=torch.float64),
        )
        for _ in range(3)
    ]
    stage = StageConfiguration(name="one", epochs=1, batch_size=2)
    made = StageLoop(build_model(model_settings, generator=generator), stage, graphs, [], force_scale=1.0, seed=0)

    class Quiet:
        def step_done(self, loop):
            pass

        def epoch_done(self, loop, record):
            pass

        def log(self, text):
            raise AssertionError(text)

    made.run(Quiet())
    return made


def run_values(loop):
    return {"stage": 0, "progress": loop.progress.to_json(), "fingerprint": "abc"}


def test_bytes_of_a_checkpoint(loop, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, loop.tensors(), run_values(loop))
    content = path.read_bytes()
    expected = {name: tensor.clone() for name, tensor in loop.tensors().items()}
    for seed in CASES:
        path.write_bytes(damaged_bytes(random.Random(seed), content))
        loaded = outcome(lambda: load_checkpoint(path, n_stages=1), CheckpointError, path)
        if loaded is not None:
            tensors, values = loaded
            assert values == run_values(loop)
            assert tensors.keys() == expected.keys()
            assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


def test_signed_values_and_tensors_of_checkpoints(loop, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    original = {name: tensor.clone() for name, tensor in loop.tensors().items()}
    n_loaded = 0
    for seed in CASES:
        generator = random.Random(seed)
        values, tensors = run_values(loop), dict(original)
        if seed % 2:
            values = damaged_tree(generator, values)
        else:
            name = generator.choice([*tensors])
            tensor = tensors.pop(name)
            if generator.random() < 0.7:
                tensors[name] = torch.zeros(generator.choice([(), (0,), (2, 3), (1, 1, 1)]), dtype=tensor.dtype)
            if generator.random() < 0.3:
                tensors[generator.choice(["surplus", "model.surplus", "best.surplus"])] = tensor
        save_checkpoint(path, tensors, values)

        def resume():
            tensors, values = load_checkpoint(path, n_stages=1)
            try:
                loop.restore(tensors, Progress.from_json(values["progress"]))
            except CheckpointError as error:  # a loop does not know its file
                raise CheckpointError(f"{path}: {error}") from error
            return values

        n_loaded += outcome(resume, CheckpointError, path) is not None
    assert n_loaded < 120


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder with the files of a short run of molecular dynamics."""
    folder = tmp_path_factory.mktemp("run")
    run_md(copper(), MDSettings("npt", 6, temperature=300.0, log_every=1), folder / "md.traj")
    return folder


def test_bytes_of_a_restart_file(run, tmp_path):
    path = tmp_path / "md.restart.npz"
    content = (run / "md.restart.npz").read_bytes()
    expected = read_restart(run / "md.restart.npz")
    for seed in CASES:
        path.write_bytes(damaged_bytes(random.Random(seed), content))
        loaded = outcome(lambda: read_restart(path), ValueError, path)
        if loaded is not None:
            for name, value in vars(expected).items():
                np.testing.assert_equal(getattr(loaded, name), value)


def test_descriptions_in_restart_files(run, tmp_path):
    path = tmp_path / "md.restart.npz"
    arrays = dict(np.load(run / "md.restart.npz"))
    description = json.loads(str(arrays["description"]))
    for seed in CASES:
        arrays["description"] = np.array(json.dumps(damaged_tree(random.Random(seed), description)))
        np.savez(path, **arrays)
        loaded = outcome(lambda: read_restart(path), ValueError, path)
        if loaded is not None:
            assert loaded.step >= 0
            np.random.default_rng(0).bit_generator.state = loaded.random_state


def test_lines_of_a_log_of_molecular_dynamics(run, tmp_path):
    path = tmp_path / "md.csv"
    content = (run / "md.csv").read_bytes()
    original = list(csv.reader(content.decode().splitlines()))
    for seed in CASES:
        path.write_bytes(damaged_bytes(random.Random(seed), content))

        def resume():
            ThermodynamicLog(path, last_step=6).close()
            return True

        if outcome(resume, ValueError, path):
            header, *rows = csv.reader(path.read_text().splitlines())
            assert header == original[0]
            assert all(len(row) == len(header) and 0 <= int(row[0]) <= 6 for row in rows)
            assert all(np.isfinite([float(value) for value in row[:6]]).all() for row in rows)


def test_lines_of_the_metrics_of_a_training(tmp_path):
    folder = RunFolder(tmp_path)
    for epoch in range(1, 5):
        folder.add_metrics({"stage": "one", "epoch": epoch} | {name: 0.25 * epoch for name in METRIC_COLUMNS[2:]})
    content = folder.metrics.read_bytes()
    for seed in CASES:
        folder.metrics.write_bytes(damaged_bytes(random.Random(seed), content))

        def resume():
            folder.forget_metrics_after((), "one", 3)
            return True

        if not outcome(resume, RunFolderError, folder.metrics):
            continue
        rows = list(csv.DictReader(folder.metrics.read_text().splitlines()))
        assert all(row["stage"] == "one" and 0 <= int(row["epoch"]) <= 3 for row in rows)
        assert all(None not in row.values() for row in rows)


CONFIGURATION = {
    "data": {"frames": {"train": ["a.extxyz", {"path": "b.extxyz", "weight": 2.0}], "validation": "c.extxyz"}},
    "model": {"cutoff": 4.0, "elements": ["Na", "Cl"], "hidden": [8], "descriptor": {"name": "sphere", "n_radial": 4}},
    "references": {"Na": 1.0, "Cl": 2.0},
    "stages": [{"name": "one", "data": ["frames"], "epochs": 2, "loss": {"energy": 1.0}}],
}


def test_values_of_configurations(tmp_path):
    path = tmp_path / "train.yaml"
    n_loaded = 0
    for seed in CASES:
        path.write_text(yaml.safe_dump(damaged_tree(random.Random(seed), CONFIGURATION)))
        loaded = outcome(lambda: load_configuration(path), ConfigurationError, path)
        assert loaded is None or isinstance(loaded, TrainingConfiguration)
        n_loaded += loaded is not None
    assert 10 < n_loaded < 150


def test_bytes_of_configurations(tmp_path):
    path = tmp_path / "train.yaml"
    content = yaml.safe_dump(CONFIGURATION).encode()
    for seed in CASES:
        path.write_bytes(damaged_bytes(random.Random(seed), content))
        outcome(lambda: load_configuration(path), ConfigurationError, path)
