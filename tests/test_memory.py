"""Memory that is freed and needed again stays with the process where it is told to."""

import ctypes
import subprocess
import sys

import pytest

from lrc_ase import LongRangeConvolution, LRCCalculator, Yukawa
from lrc_ase.layer.memory import keep_freed_memory, reuse_small_meshes

FAULTS = """
import resource, sys, torch
from lrc_ase.layer.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def touch():
    torch.ones(2**23)  # 32 MiB, and 64 MiB beside it
    torch.ones(2**24)
for _ in range(5):  # a heap grows a few times before it fits
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


LAYER_FAULTS = """
import resource, sys, torch
from lrc_ase import LongRangeConvolution, Yukawa
from lrc_ase.layer.memory import reuse_small_meshes
if sys.argv[1] == "keep":
    reuse_small_meshes()
layer = LongRangeConvolution(Yukawa([0.3, 0.6, 0.9], smearing=1.0), mesh_shape=(40, 40, 40), smearing=1.0)
positions, cell = torch.rand(50, 3, dtype=torch.float64), 20 * torch.eye(3, dtype=torch.float64)[None]
weights = torch.rand(50, 3, dtype=torch.float64)
with torch.no_grad():
    for _ in range(5):
        layer(weights, positions, cell)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        layer(weights, positions, cell)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

on_glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc"
)


@pytest.mark.slow
@pytest.mark.parametrize("script", [FAULTS, LAYER_FAULTS], ids=["arrays", "layer"])
@on_glibc
def test_arrays_that_are_freed_and_needed_again_cost_no_fresh_pages(script):
    faults = {}
    for mode in ("keep", "give back"):
        run = subprocess.run([sys.executable, "-c", script, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(run.stdout)
    assert 4 * faults["keep"] < faults["give back"]


def test_calculators_keep_small_meshes_and_layers_do_not():
    reuse_small_meshes.cache_clear()
    LongRangeConvolution(Yukawa([0.3], smearing=1.0), smearing=1.0)
    assert reuse_small_meshes.cache_info().currsize == 0
    LRCCalculator("nacl")
    assert reuse_small_meshes.cache_info().currsize == 1


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert not keep_freed_memory()
