"""The examples run as a reader would run them."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from structures import potential

from lrc_ase import save_potential

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("01_layer.py", "relative error of the forces"),
        ("02_train_from_python.py", "charges in e: Na +"),
        ("03_own_descriptor.py", "charges ["),
    ],
)
def test_example_runs(name, expected, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relaxation.py", "surface energy"),
        ("dynamics.py", "MTK, constant pressure"),
        ("constraints.py", "tetragonal as it began"),
        ("barrier.py", "energies along the path"),
        ("vibrations.py", "Born effective charges of oxygen"),
        ("phonons.py", "Born effective charges in e: Na"),
        ("combined.py", "read "),
    ],
)
def test_workflow_runs(name, expected, tmp_path, monkeypatch, capsys):
    """Few steps with an untrained potential: only the program is tested. An equation of state needs a minimum."""
    file = "nacl" if name == "relaxation.py" else str(tmp_path / "potential.safetensors")
    if file != "nacl":
        save_potential(file, potential())
    script = tmp_path / name
    text = (EXAMPLES / "workflows" / name).read_text()
    script.write_text(re.sub(r"^STEPS(.*) = \d+", r"STEPS\1 = 2", text, count=1, flags=re.MULTILINE))
    monkeypatch.setattr(sys, "argv", [name, file])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
    assert expected in capsys.readouterr().out


def test_workflow_of_several_processes_runs(tmp_path):
    file = tmp_path / "potential.safetensors"
    save_potential(file, potential())
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, str(EXAMPLES / "workflows" / "processes.py"), str(file)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.split(": ")[1].split(",")[0] == last.split(":")[1].split()[0]


def test_active_learning_of_aluminium_runs(tmp_path):
    """The shipped settings with short trainings."""
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    settings = yaml.safe_load((EXAMPLES / "learn/aluminium.yaml").read_text())
    settings["starts"] = str(EXAMPLES / "learn" / settings["starts"])
    settings["training"] |= {"first_epochs": 5, "epochs": 5, "final_epochs": 5}
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "lrc_ase.cli", "learn", str(tmp_path / "learn.yaml"), "-o", str(tmp_path / "run")]
    short = ["--teacher-calls", "40", "--length", "0.1", "--frames", "8"]
    small = ["--set", "model.descriptor.n_channels=4", "--set", "model.descriptor.degrees=[1,1]"]
    done = subprocess.run([*command, *short, *small], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "force error of the final potential" in done.stdout
    assert (tmp_path / "run/report.html").exists()
