"""`lrc-ase evaluate` as a user meets it: partial labels, several potentials, names from files, mistakes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from structures import potential, settings
from typer.testing import CliRunner

from lrc_ase import save_potential
from lrc_ase.cli import app
from lrc_ase.dataset import LabelKeys
from lrc_ase.evaluation import evaluate_frames


def lrc_ase(*arguments: object) -> tuple[int, str]:
    """Exit code and all output of a command, on a terminal of 80 columns."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    return result.exit_code, result.output


def crystals(*, labels=("energy", "forces"), n_frames=2, config_types=()):
    """Rattled cells of NaCl with labels of a made-up potential."""
    frames = []
    for seed in range(n_frames):
        atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
        atoms.rattle(0.05, seed=seed)
        results = {"energy": -7000.0 * 8, "forces": 0.1 * np.ones((8, 3)), "stress": 0.01 * np.ones(6)}
        atoms.calc = SinglePointCalculator(atoms, **{label: results[label] for label in labels})
        if config_types:
            atoms.info["config_type"] = config_types[seed]
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder that holds a potential as a training run does."""
    folder = tmp_path_factory.mktemp("runs") / "run[a]$_x"
    folder.mkdir()
    trained = potential(settings(long_range=None))
    trained.description["training_set"] = {"small": {"files": ["seen.extxyz@:5"]}}
    save_potential(folder / "potential.safetensors", trained)
    return folder


@pytest.mark.parametrize(
    ("labels", "columns", "remark"),
    [
        (("energy",), ["Energy"], "Force errors are not known"),
        (("forces",), ["Force"], "Energy errors are not known"),
        (("stress",), ["Stress"], "Energy errors are not known"),
        (("energy", "forces", "stress"), ["Energy", "Force", "Stress"], None),
    ],
)
def test_frames_with_a_part_of_the_labels_are_compared(run, tmp_path, labels, columns, remark):
    write(tmp_path / "frames.extxyz", crystals(labels=labels))
    code, output = lrc_ase("evaluate", run, tmp_path / "frames.extxyz", "--report", tmp_path / "out")
    assert code == 0, output
    heading = next(line for line in output.splitlines() if "Energy" in line or "Force" in line or "Stress" in line)
    assert [column for column in ("Energy", "Force", "Stress") if column in heading] == columns
    assert remark is None or remark in output
    assert "…" not in output
    errors = json.loads((tmp_path / "out" / "errors.json").read_text())["all"]
    assert (errors["energy_rmse"] is None) == ("energy" not in labels)
    assert (errors["forces_rmse"] is None) == ("forces" not in labels)
    assert (tmp_path / "out" / "stresses.csv").exists() == ("stress" in labels)


def test_dipoles_and_born_charges_have_a_table_and_files(tmp_path):
    save_potential(tmp_path / "charged.safetensors", potential())
    frames = []
    for seed in range(3):
        atoms = molecule("H2O")
        atoms.rattle(0.1, seed=seed)
        atoms.info["mu"] = np.array([0.1 * seed, 0.2, 0.3])
        atoms.arrays["born"] = np.eye(3).reshape(1, 9).repeat(3, axis=0)
        frames.append(atoms)
    write(tmp_path / "a.extxyz", frames)
    write(tmp_path / "b.extxyz", frames[:1])
    arguments = ["evaluate", tmp_path / "charged.safetensors", tmp_path / "a.extxyz", tmp_path / "b.extxyz"]
    code, output = lrc_ase(*arguments)
    assert code == 1
    assert "no energy, forces, stress, dipole or Born effective charges" in output
    code, output = lrc_ase(*arguments, "--dipole-key", "mu", "--born-key", "born", "--report", tmp_path / "out")
    assert code == 0, output
    assert "…" not in output
    table = output[output.index("Dipoles and Born effective charges") :]
    evaluation = evaluate_frames(
        potential(), frames, keys=LabelKeys(dipole="mu", born_effective_charges="born"), required=()
    )
    shown = re.search(r"^\s*a\.extxyz\s+3 +(\S+) +(\S+) +3 +(\S+) +(\S+)", table, re.MULTILINE).groups()
    keys = [f"{label}_{error}" for label in ("dipole", "born_effective_charges") for error in ("rmse", "r2")]
    assert [float(value) for value in shown] == pytest.approx([evaluation.metrics[key] for key in keys], rel=0.01)
    for name in ("dipoles.csv", "born-effective-charges.csv", "parity.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Dipoles and Born effective charges" in page


def test_mixed_frames_are_counted(run, tmp_path):
    write(tmp_path / "a.extxyz", crystals() + crystals(labels=("energy",)) + crystals(labels=()))
    code, output = lrc_ase("evaluate", run, tmp_path / "a.extxyz")
    assert code == 0, output
    assert "Note: Energy errors are of 4 of 6 frames: others have no such label." in output
    assert "Note: Force errors are of 2 of 6 frames: others have no such label." in output


def test_the_table_shows_what_the_python_call_returns(run, tmp_path):
    frames = crystals(config_types=["solid", "liquid"])
    write(tmp_path / "a.extxyz", frames)
    _, output = lrc_ase("evaluate", run, tmp_path / "a.extxyz")
    evaluation = evaluate_frames(potential(settings(long_range=None)), frames)
    table = output[output.index("Errors by config_type") :]
    for name, errors in evaluation.errors_by_config_type().items():
        row = re.search(rf"^\s*{name}\s+1 +(\S+) +(\S+) +(\S+) +(\S+)", table, re.MULTILINE).groups()
        shown = [float(value) for value in row]
        keys = ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse")
        assert shown == pytest.approx([errors[key] for key in keys], rel=0.01)


def test_potentials_stand_side_by_side_by_folder_file_and_name(run, tmp_path):
    write(tmp_path / "a.extxyz", crystals())
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((run / "potential.safetensors").read_bytes())
    code, output = lrc_ase("evaluate", run, copy, "nacl", tmp_path / "a.extxyz", "--report", tmp_path / "out")
    assert code == 0, output
    for name in ("run[a]$_x", "copy", "nacl"):
        assert re.search(rf"^\s*{re.escape(name)}\s+2 ", output, re.MULTILINE)
        assert (tmp_path / "out" / name / "errors.json").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Hardest frames of run[a]$_x" in page


def test_files_called_alike_in_two_folders_are_two_sets(run, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.extxyz", crystals())
    arguments = [tmp_path / "one" / "a.extxyz", tmp_path / "two" / "a.extxyz", "--report", tmp_path / "out"]
    code, output = lrc_ase("evaluate", run, *arguments)
    assert code == 0, output
    by_set = json.loads((tmp_path / "out" / "errors.json").read_text())["by_set"]
    assert [errors["n_frames"] for errors in by_set.values()] == [2, 2]


def test_evaluating_on_training_files_is_said(run, tmp_path):
    write(tmp_path / "seen.extxyz", crystals())
    _, output = lrc_ase("evaluate", run, tmp_path / "seen.extxyz")
    assert "was trained on files called seen.extxyz" in output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["bare.extxyz"],
            r"nothing to compare with: .* in any of the 2 frames; .*--energy-key",
        ),
        (
            ["a.extxyz", "--energy-key", "E0"],
            r"no energy under the key 'E0' in any of the 2 frames; the first",
        ),
        (["a.extxyz", "--plot", "x.foo"], r"--plot .*x\.foo: the name must end in one of .*\.png"),
        (["a.extxyz", "--plot", "absent/x.png"], r"the folder .*absent does not exist"),
        (["RUN/potential.safetensors", "a.extxyz"], r"the same potential is named twice"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_is_computed(run, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    write("bare.extxyz", crystals(labels=()))
    write("a.extxyz", crystals())
    code, output = lrc_ase("evaluate", run, *(argument.replace("RUN", str(run)) for argument in arguments))
    assert code == 1
    assert re.search(rf"\AError: {expected}", output), output
    assert output.count("\n") == 1
