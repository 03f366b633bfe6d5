"""The process that compiles the kernels computes the same bits as those that load them from the cache."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lrc_ase

PACKAGE = Path(lrc_ase.__file__).parent
SCRIPT = Path(__file__).with_name("cold_and_warm.py")


def run_all_kernels(cache):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(PACKAGE.parent)}
    output = subprocess.run([sys.executable, SCRIPT], env=environment, check=True, capture_output=True, text=True)
    return [line.split() for line in output.stdout.splitlines()]


@pytest.mark.slow
def test_cold_and_warm_kernels_compute_the_same_bits(tmp_path):
    """Training in float32 amplifies a last digit until validation losses differ by a fifth."""
    cold, warm = run_all_kernels(tmp_path), run_all_kernels(tmp_path)
    assert {origin for *_, origin in cold} == {"compiled"}
    assert {origin for *_, origin in warm} == {"loaded"}
    assert [line[:2] for line in cold] == [line[:2] for line in warm]
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if calls_compiled(path)}
    assert {module for _, _, module, _ in cold} == modules, "a module whose kernels do not run in cold_and_warm.py"


def calls_compiled(path):
    return re.search(r"(?<!def )\bcompiled\(", path.read_text()) is not None


def test_kernels_and_their_functions_are_made_in_one_place():
    """A function that is compiled apart from the kernels that call it gets other bits when it is loaded with them."""
    code = re.compile(r"^(?!\s*(?:>>>|\.\.\.)).*(?:\bn?jit\(|@n?jit\b)", re.MULTILINE)  # examples do not count
    users = [path.name for path in PACKAGE.rglob("*.py") if code.search(path.read_text())]
    assert sorted(users) == ["compilation.py", "launch.py"]  # the other one is Triton's
