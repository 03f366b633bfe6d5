"""The examples run as a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from structures import potential

from lrc_ase import save_potential

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
        ("barrier.py", "energies along the path"),
        ("vibrations.py", "Born effective charges of oxygen"),
        ("phonons.py", "Born effective charges in e: Na"),
        ("combined.py", "read "),
        ("processes.py", "through a socket"),
    ],
)
def test_workflow_runs(name, expected, tmp_path):
    """With an untrained potential, so that numbers mean nothing, and few steps."""
    save_potential(tmp_path / "potential.safetensors", potential())
    text = (EXAMPLES / "workflows" / name).read_text()
    script = tmp_path / name
    script.write_text(re.sub(r"STEPS(.*) = \d+", r"STEPS\1 = 2", text, count=1))
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, str(script), str(tmp_path / "potential.safetensors")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
