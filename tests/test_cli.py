"""The command line as a user meets it, on a potential trained for a moment on copper by ASE's embedded-atom model."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from rich.console import Console
from typer.testing import CliRunner

from lrc_ase import load_potential, save_potential
from lrc_ase.cli import app
from lrc_ase.files.strict_json import finite
from lrc_ase.structures.domain import DOMAIN_KEY

CONFIGURATION = """
data:
  frames: {{train: {folder}/frames.extxyz, validation_fraction: 0.25}}
model:
  cutoff: 4.0
  descriptor: {{name: sphere, n_radial: 4, n_channels: 4, degrees: [1, 1]}}
  long_range: {{n_channels: 1, n_features: 2}}
  hidden: [8]
stages:
  - {{name: only, epochs: 2, batch_size: 2, model: full-range}}
"""


def lrc_ase(*arguments: object) -> tuple[int, str]:
    """Exit code and all output of a command."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Folder with frames, a configuration and a run of it."""
    path = tmp_path_factory.mktemp("cli")
    frames = []
    for seed in range(4):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05 * (seed + 1), seed=seed)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    write(path / "frames.extxyz", frames)
    (path / "run.yaml").write_text(CONFIGURATION.format(folder=path))
    code, output = lrc_ase("train", path / "run.yaml", "-o", path / "run", "--debug")
    assert code == 0, output
    return path


@pytest.fixture(scope="module")
def potential(folder: Path) -> Path:
    """The trained potential."""
    return folder / "run" / "potential.safetensors"


def test_train_leaves_a_complete_run_folder(folder):
    names = {path.name for path in (folder / "run").iterdir()}
    assert names >= {
        "configuration.yaml",
        "log.txt",
        "metrics.csv",
        "potential.safetensors",
        "learning-curve.png",
        "parity.png",
        "report.html",
    }
    page = (folder / "run" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 7
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "the page must not load anything"


def test_train_takes_frames_alone_and_resumes_a_finished_run(folder, tmp_path):
    code, output = lrc_ase("train", f"{folder}/frames.extxyz@:2", "--epochs", 1, "-o", tmp_path / "run", "--quiet")
    assert code == 0, output
    code, output = lrc_ase("train", "--resume", "-o", tmp_path / "run")
    assert code == 0, output
    code, output = lrc_ase("train", f"{folder}/frames.extxyz@:2", "-o", tmp_path / "run")
    assert code == 1
    assert "already holds a run" in output
    code, output = lrc_ase("train", "--resume", "--seed", 3, "-o", tmp_path / "run")
    assert code == 1
    assert "leave the other options out" in output


def test_info_names_model_elements_and_units(potential):
    code, output = lrc_ase("info", potential)
    assert code == 0, output
    assert "model: full-range" in output
    assert re.search(r"element references: Au -?[0-9.]+ eV, Cu -?[0-9.]+ eV|Cu -?[0-9.]+ eV", output)
    for name, unit in {
        "cutoff": "Angstrom",
        "long_range.smearing": "Angstrom",
        "energy_scale": "eV",
        "validation.energy_mae": "meV/atom",
        "validation.forces_rmse": "meV/Angstrom",
        "training_domain.shortest_distances.Cu-Cu": "Angstrom",
        "training_domain.largest_force": "eV/Angstrom",
        "training_domain.total_charges": "e",
    }.items():
        assert re.search(rf"^{re.escape(name)}: [-0-9.e]+ {re.escape(unit)}$", output, re.MULTILINE), (name, output)
    assert lrc_ase("info", potential.parent)[1] == output


def test_info_as_json_holds_settings_and_digest(potential):
    code, output = lrc_ase("info", potential, "--json")
    content = json.loads(output)
    loaded = load_potential(potential)
    assert code == 0
    assert content["settings"] == loaded.settings.model_dump(mode="json")
    assert content["element_references"] == dict(zip(loaded.settings.elements, loaded.references.tolist(), strict=True))
    assert (content["digest"], content["n_members"], content["dtype"]) == (loaded.digest(), 1, "float32")
    assert content["n_parameters"] == sum(each.numel() for each in loaded.model.parameters())
    assert content["description"]["training_domain"] == finite(loaded.description["training_domain"])


def test_evaluate_compares_potentials_side_by_side(folder, potential, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(potential.read_bytes())
    frames = folder / "frames.extxyz"
    arguments = ["--plot", tmp_path / "parity.png", "--report", tmp_path / "report"]
    code, output = lrc_ase("evaluate", potential.parent, other, frames, *arguments)
    assert code == 0, output
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report" / "report.html").exists()
    assert (tmp_path / "report" / "other" / "errors.json").exists()
    assert (tmp_path / "report" / potential.parent.name / "errors.json").exists()
    code, output = lrc_ase("evaluate", potential, frames, "--report", tmp_path / "report")
    assert code == 1
    assert "already holds a report" in output
    assert lrc_ase("evaluate", potential) == (
        1,
        "Error: give at least one potential (a .safetensors file, a run folder or a shipped name) and one file of "
        f"frames; taken for potentials: {potential}\n",
    )
    code, output = lrc_ase("evaluate", "no-such-run", frames)
    assert code == 1
    assert output.endswith(f"one file of frames; taken for frames: no-such-run, {frames}\n")


def test_relax_writes_the_structure_and_refuses_to_overwrite(folder, potential, tmp_path):
    output_file = tmp_path / "relaxed.cif"
    arguments = ["relax", potential, f"{folder}/frames.extxyz@0", "--cell", "--fmax", 0.05, "-o", output_file]
    code, output = lrc_ase(*arguments, "--steps", 2)
    assert code in (0, 1)
    assert "after 2 steps" in output or code == 0
    assert len(read(output_file)) == 4
    code, output = lrc_ase(*arguments)
    assert code == 1
    assert "exists already" in output


def test_atoms_closer_than_in_training_are_warned_of(folder, potential, tmp_path):
    trained = load_potential(potential)
    assert 1.9 < trained.description[DOMAIN_KEY]["shortest_distances"]["Cu-Cu"] < 2.6
    sparse = {DOMAIN_KEY: {"shortest_distances": {"Cu-Cu": 3.5}}}
    save_potential(tmp_path / "sparse.safetensors", replace(trained, description=sparse))
    arguments = [f"{folder}/frames.extxyz@0", "--steps", 1, "-o", tmp_path / "relaxed.cif", "--overwrite"]
    for file, expected in ((potential, 0), (tmp_path / "sparse.safetensors", 1)):
        _, output = lrc_ase("relax", file, *arguments)
        assert len(re.findall(r"Warning: atoms \d+ \(Cu\) and \d+ \(Cu\) are", output)) == expected


def test_md_writes_trajectory_log_plot_and_restart_and_says_how_fast_it_was(folder, potential, tmp_path):
    arguments = [f"{folder}/frames.extxyz@0", "-t", 300, "-n", 4, "--log-every", 2, "--write-every", 2]
    code, output = lrc_ase("md", potential, *arguments, "-o", tmp_path / "md.xsf")
    assert code == 0, output
    assert re.search(r"4 steps of 4 atoms in .* ms per step, [\d.e+-]+ ns/day\)", output)
    assert len(read(tmp_path / "md.xsf", ":")) == len(read(tmp_path / "md.traj", ":")) == 3
    assert (tmp_path / "md.csv").read_text().count("\n") == 4
    assert (tmp_path / "md.png").read_bytes().startswith(b"\x89PNG")
    for name in ("md.xsf", "md.csv", "md.png", "md.restart.npz"):
        assert f"  {tmp_path / name}\n" in output


def test_md_and_relax_show_a_progress_bar_on_a_terminal(folder, potential, tmp_path, monkeypatch):
    """The bar shows step, temperature and speed, or the largest force; it disappears at the end."""
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=160)
    monkeypatch.setattr("lrc_ase.cli.console.console", terminal)
    structure = f"{folder}/frames.extxyz@0"
    code, output = lrc_ase("md", potential, structure, "-t", 300, "-n", 30, "-o", tmp_path / "md.traj")
    assert code == 0, output
    assert re.search(r"nvt .*30/30 \d+ K, [\d.e+-]+ ns/day", screen.getvalue())
    lrc_ase("relax", potential, structure, "--steps", 3, "-o", tmp_path / "relaxed.cif")
    assert re.search(r"relax .*/3 fmax [\d.]+ eV/Angstrom", screen.getvalue())


def test_md_stops_far_outside_the_training_set_and_keeps_the_last_sane_frame(folder, potential, tmp_path):
    trained = load_potential(potential)
    weak = {DOMAIN_KEY: {"largest_force": 1e-3}}
    save_potential(tmp_path / "weak.safetensors", replace(trained, description=weak))
    arguments = ["md", tmp_path / "weak.safetensors", f"{folder}/frames.extxyz@0", "-t", 300, "-n", 5]
    arguments += ["-o", tmp_path / "md.traj"]
    code, output = lrc_ase(*arguments)
    assert code == 1
    error = output.strip().splitlines()[-1]
    assert error.startswith("Error: stopped at step 0: far outside the training set: the force on atom")
    assert len(read(tmp_path / "md.last-sane.extxyz")) == 4
    code, output = lrc_ase(*arguments, "--extrapolate", "--overwrite")
    assert code == 0, output


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_md_continues_bit_for_bit(folder, potential, tmp_path, ensemble):
    """An extended run equals a run in one piece: neighbor list, mesh, thermostat and noise included."""
    start = ["md", potential, f"{folder}/frames.extxyz@0", "--repeat", 2, 2, 2, "--ensemble", ensemble]
    start += ["--temperature", 600, "--timestep", 2, "--restart-every", 5, "--write-every", 5, "--log-every", 5]
    for name, steps in (("straight", 20), ("parts", 10)):
        code, output = lrc_ase(*start, "--steps", steps, "-o", tmp_path / f"{name}.traj")
        assert code == 0, output
    code, output = lrc_ase(*start, "--steps", 20, "-o", tmp_path / "parts.traj", "--resume")
    assert code == 0, output
    straight, parts = (read(tmp_path / f"{name}.traj", ":") for name in ("straight", "parts"))
    assert len(straight) == len(parts) == 5
    for left, right in zip(straight, parts, strict=True):
        np.testing.assert_array_equal(left.positions, right.positions)
        np.testing.assert_array_equal(left.get_momenta(), right.get_momenta())
        np.testing.assert_array_equal(left.cell.array, right.cell.array)
    assert (tmp_path / "straight.csv").read_text() == (tmp_path / "parts.csv").read_text()


def test_md_stopped_by_ctrl_c_says_how_to_go_on(folder, potential, tmp_path):
    arguments = ["md", potential, f"{folder}/frames.extxyz@0", "-t", 300, "-n", 1000000, "-o", tmp_path / "md.extxyz"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "lrc_ase.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )
    log = tmp_path / "md.csv"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 12) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "--resume goes on" in output
    assert "Traceback" not in output
    code, output = lrc_ase(*arguments[:-4], "-n", 110, "-o", tmp_path / "md.extxyz", "--resume")
    assert code == 0, output


def test_debug_shows_the_traceback(potential, tmp_path):
    result = CliRunner().invoke(app, ["info", str(tmp_path / "none.safetensors"), "--debug"])
    assert isinstance(result.exception, ValueError)
