"""The options that name labels, on every command that reads frames."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from typer.testing import CliRunner

from lrc_ase import LongRangeSettings, ModelSettings, Potential, build_model, save_potential
from lrc_ase.cli import app
from lrc_ase.cli.console import read_structure
from lrc_ase.dataset import LabelKeys
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.structures.charge import total_charge
from lrc_ase.training import load_configuration


def lrc_ase(*arguments: object) -> tuple[int, str]:
    """Exit code and all output of a command."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Frames whose labels stand under names of their author, and untrained potentials."""
    path = tmp_path_factory.mktemp("keys")
    frames = []
    for seed in range(3):
        atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
        atoms.rattle(0.05, seed=seed)
        rng = np.random.default_rng(seed)
        atoms.info = {"E": -20.0 - seed, "W": np.eye(3), "Q": 1.0, "energy_of_another_method": "none"}
        atoms.info |= {"D": rng.normal(size=3), "A": np.eye(3)}
        atoms.arrays["F"] = rng.normal(size=(len(atoms), 3))
        atoms.arrays["born"] = rng.normal(size=(len(atoms), 9))
        frames.append(atoms)
    write(path / "frames.extxyz", frames)
    settings = ModelSettings(
        elements=("Na", "Cl"),
        cutoff=4.0,
        average_neighbors=12.0,
        hidden=(4,),
        long_range=LongRangeSettings(n_channels=1),
    )
    members = [build_model(settings, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    save_potential(path / "two.safetensors", Potential(Ensemble(members), torch.zeros(2, dtype=torch.float64), {}))
    return path


ELECTRIC_KEYS = ("--dipole-key", "D", "--born-key", "born", "--polarizability-key", "A")
KEYS = ("--energy-key", "E", "--forces-key", "F", "--virial-key", "W", *ELECTRIC_KEYS, "--charge-key", "Q")


def row(output: str, name: str) -> str:
    """Return the second column of a table without the lines between columns."""
    (line,) = [line for line in output.splitlines() if line.strip("│ ").startswith(name)]
    return re.split(r"\s{2,}|│", line.strip("│ "))[-1].strip()


@pytest.mark.parametrize("command", ["data", "evaluate", "train"])
def test_every_label_has_an_option(command):
    _, output = lrc_ase(command, "--help")
    (panel,) = re.findall(r"Names of labels ─(.*?)╰", output, re.DOTALL)
    assert len(re.findall(r"--[a-z]+-key ", panel)) == len(LabelKeys.model_fields)


def test_data_reads_labels_under_the_names_of_its_options(folder):
    code, output = lrc_ase("data", folder / "frames.extxyz", *KEYS)
    assert code == 0, output
    assert row(output, "with energy") == row(output, "with forces") == row(output, "with stress") == "all"
    assert row(output, "with Born effective charges") == row(output, "with polarizability") == "all"
    assert row(output, "total charges") == "+1 (3)"
    assert "dipole left out: along periodic directions a dipole is known up to cell vectors (3 of 3 frames" in output
    assert "Note: frames.extxyz: stress = -virial / volume, virial read from info entry 'W' (3 of 3 frames" in output


def test_evaluate_reads_labels_under_the_names_of_its_options(folder):
    code, output = lrc_ase("evaluate", folder / "two.safetensors", folder / "frames.extxyz")
    assert code == 1
    assert "no energy, forces, stress, dipole or Born effective charges in any of the 3 frames" in output
    code, output = lrc_ase("evaluate", folder / "two.safetensors", folder / "frames.extxyz", *KEYS)
    assert code == 0, output
    code, output = lrc_ase("evaluate", folder / "two.safetensors", folder / "frames.extxyz", *KEYS[:-1], "nothing")
    assert code == 1
    assert "frames.extxyz@0: no charge under the key 'nothing'" in output


def test_select_needs_no_label_and_reads_the_charge_of_its_option(folder, tmp_path):
    arguments = ["select", folder / "two.safetensors", folder / "frames.extxyz", "-n", 1]
    assert lrc_ase(*arguments, "-o", tmp_path / "a.extxyz")[0] == 0
    code, output = lrc_ase(*arguments, "-o", tmp_path / "b.extxyz", "--charge-key", "nothing")
    assert code == 1
    assert "frames.extxyz@0: no charge under the key 'nothing'" in output


def test_select_looks_at_no_labels(folder, tmp_path):
    atoms = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.5]], info={"REF_energy": -1.0, "dft_energy": -2.0})
    write(tmp_path / "contradictory.extxyz", [atoms, atoms])
    code, output = lrc_ase(
        "select", folder / "two.safetensors", tmp_path / "contradictory.extxyz", "-n", 1, "-o", tmp_path / "a.extxyz"
    )
    assert code == 0, output


def test_stress_and_virial_keys_exclude_each_other(folder):
    code, output = lrc_ase("data", folder / "frames.extxyz", "--stress-key", "S", "--virial-key", "W")
    assert code == 1
    assert "give --stress-key or --virial-key, not both" in output


def train(folder, tmp_path, *options):
    """Train one epoch and return exit code, output and the log."""
    (tmp_path / "run.yaml").write_text(
        f"""
data: {{frames: {{train: {folder}/frames.extxyz, validation_fraction: 0.34, keys: {{energy: nowhere}}}}}}
model:
  cutoff: 4.0
  descriptor: {{n_radial: 4, n_channels: 4, degrees: [1, 1]}}
  long_range: {{n_channels: 1, n_features: 2, smearing: 1.5}}
  hidden: [4]
stages: [{{name: only, epochs: 1}}]
"""
    )
    code, output = lrc_ase("train", tmp_path / "run.yaml", "-o", tmp_path / "run", "-q", *options)
    log = tmp_path / "run" / "log.txt"
    return code, output, log.read_text() if log.exists() else ""


def test_train_reads_labels_under_the_names_of_its_options(folder, tmp_path):
    code, output, _ = train(folder, tmp_path)
    assert code == 1
    assert "has no energy under the key 'nowhere'" in output
    code, output, log = train(folder, tmp_path, *KEYS)
    assert code == 0, output
    assert "stress = -virial / volume, virial read from info entry 'W'" in log
    written = load_configuration(tmp_path / "run" / "configuration.yaml")
    assert written.data["frames"].keys.model_dump() == {
        "energy": "E",
        "forces": "F",
        "stress": None,
        "virial": "W",
        "charge": "Q",
        "dipole": "D",
        "born_effective_charges": "born",
        "polarizability": "A",
    }


def test_train_leaves_out_unlabelled_frames_when_asked(folder, tmp_path):
    frames = read(folder / "frames.extxyz", ":")
    bare = frames[0].copy()
    bare.info, bare.arrays = {"Q": 0}, {name: bare.arrays[name] for name in ("numbers", "positions")}
    write(tmp_path / "frames.extxyz", [*frames, bare])
    code, output, _ = train(tmp_path, tmp_path, *KEYS)
    assert code == 1
    assert "frames.extxyz@3 has no energy under the key 'E'" in output
    assert "--skip-unlabelled" in output
    code, output, log = train(tmp_path, tmp_path, *KEYS, "--skip-unlabelled")
    assert code == 0, output
    assert "1 frame without labels left out" in log


def test_resume_takes_no_names_of_labels(folder, tmp_path):
    for option in (KEYS[:2], ["--skip-unlabelled"]):
        code, output = lrc_ase("train", "--resume", "-o", tmp_path / "run", *option)
        assert code == 1
        assert "--resume alone takes everything from the run folder" in output


def test_structures_that_look_charged_are_doubted(tmp_path):
    atoms = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.5]])
    atoms.set_initial_charges([1, 0])
    write(tmp_path / "ion.traj", atoms)
    with pytest.warns(UserWarning, match=r"ion\.traj: initial charges sum to \+1 e but no total charge is named"):
        read_structure(str(tmp_path / "ion.traj"))


@pytest.mark.parametrize("name", ["charge", "REF_charge"])
@pytest.mark.parametrize("value", [1, "1"])
def test_charge_of_a_repeated_cell_is_repeated(tmp_path, name, value):
    atoms = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.5]], cell=[5, 5, 5], pbc=True, info={name: value})
    write(tmp_path / "ion.traj", atoms)
    assert total_charge(read_structure(str(tmp_path / "ion.traj"), (2, 2, 1))) == 4.0
