"""The potential as pair_style mliap unified: the numbers of ASE, where LAMMPS was built for it."""

from __future__ import annotations

import json

import pytest
from lammps_runs import INPUT, TESTS, beyond, needs_lammps, under_mpi, write_start
from structures import potential

from lrc_ase import save_potential

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def has_mliap():
    from mpi4py import MPI  # noqa: F401 (before LAMMPS is started)

    lammps = pytest.importorskip("lammps").lammps

    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    actual = {"PYTHON", "ML-IAP"} <= set(lmp.installed_packages)
    lmp.close()
    return actual


@pytest.fixture
def potential_file(tmp_path):
    path = tmp_path / "potential.safetensors"
    save_potential(path, potential())
    return path


@pytest.fixture
def built(has_mliap):
    if not has_mliap:
        pytest.skip("needs a LAMMPS that was built with PYTHON and ML-IAP")


@needs_lammps
@pytest.mark.parametrize("n_processes", [1, 2])
def test_it_finds_what_ase_finds(built, n_processes, potential_file, tmp_path):
    under_mpi(n_processes, TESTS / "lammps_cases.py", "mliap", potential_file, "found.json", folder=tmp_path)
    actual = json.loads((tmp_path / "found.json").read_text())
    assert len(actual) == 10
    assert {name: beyond(results) for name, results in actual.items() if beyond(results)} == {}
    assert max(results["searches"] for results in actual.values()) < 90


@needs_lammps
def test_an_ordinary_input_runs(built, potential_file, tmp_path):
    write_start(tmp_path)
    (tmp_path / "in.run").write_text(INPUT)
    output = under_mpi(2, "-m", "lrc_ase.cli", "lammps", potential_file, "in.run", "--mliap", folder=tmp_path)
    assert "pair mliap" in output
    assert "Loop time" in output


BREAKS = """
import sys
sys.path.insert(0, {tests!r})
import lammps_cases as cases
from mpi4py import MPI
from lrc_ase.engines.mliap import attach

lmp = cases.start(MPI.COMM_WORLD, cases.crystal())
coupling = attach(lmp, {potential!r}, species=cases.TYPES)
lmp.commands_list([*cases.NVE, "run 2"])
if MPI.COMM_WORLD.Get_rank() == 1:
    coupling.evaluate = None
lmp.command("run 10")
print("went on")
"""


@needs_lammps
def test_what_breaks_one_process_ends_all(built, potential_file, tmp_path):
    (tmp_path / "breaks.py").write_text(BREAKS.format(tests=str(TESTS), potential=str(potential_file)))
    output = under_mpi(2, "breaks.py", folder=tmp_path, expect=1)
    assert "lrc-ase: step 2, process 1: 'NoneType' object is not callable" in output
    assert "went on" not in output


@needs_lammps
def test_a_lammps_without_it_is_told_what_to_build(has_mliap):
    if has_mliap:
        pytest.skip("this LAMMPS has it")
    import lammps_cases as cases
    from mpi4py import MPI

    from lrc_ase.engines.mliap import attach

    lmp = cases.start(MPI.COMM_SELF, cases.crystal((1, 1, 1)))
    with pytest.raises(ValueError, match=r"no Python interface of ML-IAP: build it with PKG_PYTHON, .* or use"):
        attach(lmp, potential(), species=cases.TYPES)
    lmp.close()
