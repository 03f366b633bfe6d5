"""``lrc-ase compile``: what comes after it compiles nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from structures import salt_with_terms
from typer.testing import CliRunner

from lrc_ase.cli import app
from lrc_ase.files.potential_file import save_potential

RUNS = """
import sys
from itertools import product
import numpy as np
from ase.build import bulk, molecule
from lrc_ase import LRCCalculator
from lrc_ase.compiled.compilation_time import compilation_timed

with compilation_timed() as clock:
    for potential, dtype in product(sys.argv[1:], ("float64", "float32")):
        calculator = LRCCalculator(potential, dtype=dtype)
        for repeat, pbc in (((3, 3, 3), True), ((1, 1, 1), True), ((2, 2, 1), (True, True, False)), ((1, 1, 1), False)):
            atoms = bulk("NaCl", "rocksalt", a=5.7, cubic=True).repeat(repeat)
            atoms.pbc = pbc
            atoms.rattle(0.05, seed=0)
            atoms.calc = calculator
            atoms.get_potential_energy(), atoms.get_forces()
            if atoms.pbc.all():
                atoms.get_stress()
            calculator.get_born_effective_charges(atoms)
    assert np.isfinite(atoms.get_forces()).all()
print(f"{clock.seconds:.2f} seconds")
"""
TRAINS = """
import sys
from training_frames import metal_frames
from lrc_ase import train
from lrc_ase.compiled.compilation_time import compilation_timed

with compilation_timed() as clock:
    train(metal_frames(3, repeat=(2, 1, 1)), sys.argv[1], epochs=1, model="fast")
print(f"{clock.seconds:.2f} seconds")
"""


def seconds_of(code, cache, *arguments):
    path = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": path}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return float(finished.stdout.splitlines()[-1].split()[0])


def compiled(cache, *arguments):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "lrc_ase.cli", "compile", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_evaluations_after_it_compile_nothing(tmp_path):
    cache, dipoles = tmp_path / "cache", str(tmp_path / "dipoles.safetensors")
    save_potential(dipoles, salt_with_terms(n_tensors=0))
    first = compiled(cache, "nacl", dipoles)
    assert [line.rpartition(" in ")[0] for line in first.splitlines()] == [
        "nacl, float64: compiled",
        "nacl, float32: compiled",
        f"{dipoles}, float64: compiled",
        f"{dipoles}, float32: compiled",
    ]
    assert seconds_of(RUNS, cache, "nacl", dipoles) == 0
    assert compiled(cache, "nacl", "--dtype", "float32") == "nacl, float32: nothing left to compile\n"


@pytest.mark.slow
def test_trainings_after_it_compile_nothing(tmp_path):
    compiled(tmp_path / "cache", "--training", "--dtype", "float32")
    assert seconds_of(TRAINS, tmp_path / "cache", tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nacl", "--dtype", "float16"], "must be float32 or float64"),
        (["no-such-potential"], "no-such-potential"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message):
    result = CliRunner().invoke(app, ["compile", *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
