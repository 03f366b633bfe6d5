"""``lrc-ase train``: each option reaches the run; a template that trains; longer runs."""

from __future__ import annotations

import ase.io
import pytest
import yaml
from test_cli import lrc_ase
from training_frames import metal_frames

from lrc_ase.training import load_configuration
from lrc_ase.training.configuration_keys import template

TINY = (
    "--set=model.descriptor={n_radial: 4, n_channels: 4, degrees: [1, 1]}",
    "--set=model.long_range={n_channels: 1, n_features: 2, smearing: 1.5}",
    "--set=model.hidden=[8]",
    "--threads=1",
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """File with six frames whose labels have names of their own."""
    path = tmp_path_factory.mktemp("frames") / "frames.extxyz"
    renamed = []
    for atoms in metal_frames(6):
        copy = atoms.copy()
        copy.info["my_energy"], copy.arrays["my_forces"] = atoms.get_potential_energy(), atoms.get_forces()
        renamed.append(copy)
    ase.io.write(path, renamed)
    return path


@pytest.fixture(scope="module")
def run(frames, tmp_path_factory):
    """Run folder of a training with all options."""
    folder = tmp_path_factory.mktemp("run") / "my run"
    keys = ["--energy-key", "my_energy", "--forces-key", "my_forces"]
    options = ["--epochs", 2, "--cutoff", 3.5, "--batch-size", 2, "--patience", 7, "--time-limit", 30, "--seed", 3]
    code, output = lrc_ase(
        "train", f"{frames}@:4", "--test", f"{frames}@4:", *keys, *options, *TINY, "--dtype", "float64", "-o", folder
    )
    assert code == 0, output
    assert "test frames.extxyz@4:" in output
    assert "meV/atom" in output
    use = f"lrc-ase md '{folder}' start.cif --temperature 300"
    assert output.endswith(f"finished: {folder}/potential.safetensors\nreport: {folder}/report.html\nuse it: {use}\n")
    return folder


def test_each_option_reaches_the_run(run, frames):
    configuration = load_configuration(run / "configuration.yaml")
    (stage,) = configuration.stages
    assert (stage.epochs, stage.batch_size, stage.patience, stage.time_limit) == (2, 2, 7, 30.0)
    assert (configuration.model.cutoff, configuration.seed, configuration.dtype) == (3.5, 3, "float64")
    assert configuration.model.hidden == (8,)
    assert configuration.test == (f"{frames}@4:",)
    keys = configuration.data["frames"].keys
    assert (keys.energy, keys.forces) == ("my_energy", "my_forces")


def test_a_finished_run_is_made_longer(run):
    code, output = lrc_ase("train", "--resume", "--epochs", 3, "-o", run)
    assert code == 0, output
    assert "goes on from epoch 2 to 3" in output
    assert len((run / "metrics.csv").read_text().splitlines()) == 4
    code, output = lrc_ase("train", run, "--resume", "--epochs", 4)
    assert code == 0, output
    assert "goes on from epoch 3 to 4" in output
    code, output = lrc_ase("train", "--resume", "--set", "model.cutoff=3", "-o", run)
    assert code == 1
    assert "--resume alone takes everything from the run folder, 'model.cutoff' too" in output


def test_the_template_is_printed_and_nothing_else(tmp_path):
    code, output = lrc_ase("train", "--template")
    assert code == 0
    assert output == template()
    assert "data" in yaml.safe_load(output)


def test_a_wrong_key_is_one_line(frames, tmp_path):
    code, output = lrc_ase("train", frames, "--set", "stages.lerning_rate=1e-3", "-o", tmp_path / "run")
    assert code == 1
    assert output == ("Error: options: unknown key 'stages[0].lerning_rate'; did you mean 'stages[0].learning_rate'?\n")
