"""Mistakes of users: each gives one clear line, a non-zero exit code, and leaves nothing half done."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from test_cli import folder, lrc_ase, potential
from typer.main import get_command
from typer.testing import CliRunner

from lrc_ase.cli import app
from lrc_ase.cli.console import naming_options

__all__ = ["folder", "potential"]  # fixtures


def broken_run(folder: Path, tmp_path: Path, old: bytes, new: bytes) -> Path:
    """Copy of the finished run with something else in its checkpoint."""
    run = tmp_path / f"broken-{new[:3].decode()}"
    if not run.exists():
        shutil.copytree(folder / "run", run)
    checkpoint = run / "checkpoint.safetensors"
    shutil.copy(folder / "run" / "checkpoint.safetensors", checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes().replace(old, new))
    return run


def bad_input(case: str, folder: Path, potential: Path, tmp_path: Path) -> list[object]:
    """Arguments of a command with one mistake."""
    structure = f"{folder}/frames.extxyz@0"
    frames = folder / "frames.extxyz"
    argon = bulk("Ar", cubic=True)
    argon.calc = SinglePointCalculator(argon, energy=0.0, forces=np.zeros((4, 3)))
    write(tmp_path / "labelled-argon.extxyz", argon)
    (tmp_path / "foreign.safetensors").write_bytes(b"nothing of the kind")
    (tmp_path / "empty.xyz").write_text("0\n\n")
    (tmp_path / "text.cif").write_text("not a structure")
    (tmp_path / "typo.yaml").write_text((folder / "run.yaml").read_text().replace("cutoff", "cutof"))
    write(tmp_path / "argon.xyz", bulk("Ar", cubic=True))
    nan = bulk("Cu", cubic=True)
    nan.positions[0] = np.nan
    write(tmp_path / "nan.extxyz", nan)
    output = ["-o", tmp_path / "out.traj"]
    return {
        "no potential": ["md", tmp_path / "none.safetensors", structure, "-t", 300, *output],
        "foreign potential": ["md", tmp_path / "foreign.safetensors", structure, "-t", 300, *output],
        "no structure": ["md", potential, tmp_path / "none.cif", "-t", 300, *output],
        "empty structure": ["md", potential, tmp_path / "empty.xyz", "-t", 300, *output],
        "unreadable structure": ["relax", potential, tmp_path / "text.cif", *output],
        "unknown element": ["md", potential, tmp_path / "argon.xyz", "-t", 300, *output],
        "positions not finite": ["relax", potential, tmp_path / "nan.extxyz", *output],
        "no temperature": ["md", potential, structure, "-e", "npt", *output],
        "wrong ensemble": ["md", potential, structure, "-e", "nph", "-t", 300, *output],
        "wrong dtype": ["md", potential, structure, "-t", 300, "--dtype", "float16", *output],
        "wrong repeat": ["md", potential, structure, "-t", 300, "--repeat", 0, 1, 1, *output],
        "no folder": ["md", potential, structure, "-t", 300, "-o", tmp_path / "nowhere" / "md.traj"],
        "nothing to resume": ["md", potential, structure, "-t", 300, "--resume", *output],
        "misspelt key": ["train", tmp_path / "typo.yaml", "-o", tmp_path / "run"],
        "no frames": ["train", tmp_path / "none.extxyz", "-o", tmp_path / "run"],
        "no labels": ["train", tmp_path / "argon.xyz", "-o", tmp_path / "run"],
        "nothing to train on": ["train", "-o", tmp_path / "run"],
        "no potential to start from": [
            "train",
            frames,
            "--from",
            tmp_path / "none.safetensors",
            "-o",
            tmp_path / "run",
        ],
        "foreign start": ["train", frames, "--from", tmp_path / "foreign.safetensors", "-o", tmp_path / "run"],
        "wrong device": ["train", frames, "--device", "warp", "-o", tmp_path / "run"],
        "wrong training dtype": ["train", frames, "--dtype", "float16", "-o", tmp_path / "run"],
        "unreadable frames": ["train", tmp_path / "text.cif", "-o", tmp_path / "run"],
        "empty slice": ["train", f"{frames}@100:", "-o", tmp_path / "run"],
        "output is a file": ["train", frames, "-o", tmp_path / "text.cif"],
        "output in a file": ["train", frames, "-o", tmp_path / "text.cif" / "run"],
        "cache in a file": ["train", frames, "--cache", tmp_path / "text.cif" / "cache", "-o", tmp_path / "run"],
        "nothing to go on with": ["train", "--resume", "-o", tmp_path / "run"],
        "checkpoint of another version": [
            "train",
            "--resume",
            "-o",
            broken_run(folder, tmp_path, b'version\\": 3', b'version\\": 9'),
        ],
        "foreign checkpoint": [
            "train",
            "--resume",
            "-o",
            broken_run(folder, tmp_path, b"lrc_ase_checkpoint", b"abc_ase_checkpoint"),
        ],
        "no frames to evaluate": ["evaluate", potential, tmp_path / "none.xyz"],
        "element to evaluate": ["evaluate", potential, tmp_path / "labelled-argon.extxyz"],
        "single model to select by": ["select", potential, frames, "-o", tmp_path / "chosen.traj"],
        "data that is not there": ["data", tmp_path / "none.xyz"],
    }[case]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no potential", "none.safetensors does not exist"),
        ("foreign potential", "foreign.safetensors is truncated or no safetensors file"),
        ("no structure", "none.cif does not exist"),
        ("empty structure", "holds no atoms"),
        ("unreadable structure", "ASE cannot read it"),
        ("unknown element", "unknown element Ar: this model knows Cu"),
        ("positions not finite", "positions are not finite"),
        ("no temperature", "npt ensemble needs a --temperature"),
        ("wrong ensemble", "must be nve, nvt or npt"),
        ("wrong dtype", "--dtype must be float32 or float64"),
        ("wrong repeat", "--repeat must be three numbers"),
        ("no folder", "nowhere does not exist"),
        ("nothing to resume", "no restart file"),
        ("misspelt key", "did you mean 'model.cutoff'"),
        ("no frames", "no file matches"),
        ("no labels", "argon.xyz@0 has no energy"),
        ("nothing to train on", "needs either data files"),
        ("no potential to start from", "none.safetensors does not exist"),
        ("foreign start", "foreign.safetensors is truncated or no safetensors file"),
        ("wrong device", "torch knows no device 'warp'"),
        ("wrong training dtype", "dtype: Input should be 'float32' or 'float64', got 'float16'"),
        ("unreadable frames", "ASE cannot read"),
        ("empty slice", "holds no frame"),
        ("output is a file", "is a file, not a folder"),
        ("output in a file", "cannot write to"),
        ("cache in a file", "Not a directory"),
        ("nothing to go on with", "holds no run to resume"),
        ("checkpoint of another version", "has checkpoint version 9, this lrc-ase continues version 3"),
        ("foreign checkpoint", "is no checkpoint of lrc-ase"),
        ("no frames to evaluate", "no file matches"),
        ("element to evaluate", "unknown element Ar: this model knows Cu"),
        ("single model to select by", "needs the potential of an ensemble"),
        ("data that is not there", "no file matches"),
    ],
)
def test_mistake_gives_one_clear_line(case, message, folder, potential, tmp_path):
    code, output = lrc_ase(*bad_input(case, folder, potential, tmp_path))
    assert code == 1, output
    assert message in output
    assert output.strip().count("\n") == 0
    assert output.startswith("Error: ")
    assert not (tmp_path / "out.traj").exists()
    assert not (tmp_path / "run").exists()


def test_messages_name_options_for_arguments(potential, folder):
    start = folder / "frames.extxyz"
    code, output = lrc_ase("md", potential, start, "--temperature", 30000)
    assert code == 1
    assert "--temperature must lie between 0 and --max-temperature = 20000 K" in output


def test_a_reader_that_stops_early_is_no_error(potential):
    command = f"{sys.executable} -u -m lrc_ase.cli info {potential} | head -1; echo ${{PIPESTATUS[0]}}"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert finished.stdout.splitlines()[1] in ("0", "141")
    assert finished.stderr == ""


@pytest.mark.parametrize("name", sorted(get_command(app).commands))
def test_options_of_every_command_are_known_to_its_errors(name):
    command = getattr(import_module(f"lrc_ase.cli.{name}"), name)
    assert naming_options("`no_such_option` and `output`", command).startswith("`no_such_option` and ")
    if name in ("md", "relax", "check"):
        assert naming_options("`output`", command) == "--output"


def test_without_an_mpi_library_the_way_to_one_is_told(tmp_path, monkeypatch):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py/__init__.py").write_text("raise RuntimeError('cannot load MPI library\\nlibmpi.so: no file')")
    monkeypatch.delitem(sys.modules, "mpi4py", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    actual = CliRunner().invoke(app, ["lammps", "nacl", str(tmp_path / "in.run")])
    assert actual.exit_code == 1
    assert "mpi4py finds no MPI library: `pip install mpich` brings one, on a cluster load" in actual.output
    assert "(libmpi.so: no file)" in actual.output
