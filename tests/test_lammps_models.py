"""Models other than the default in LAMMPS: the numbers of ASE on one process and on two."""

from __future__ import annotations

import json

import pytest
from lammps_runs import TESTS, beyond, needs_lammps, under_mpi
from structures import salt_with_repulsion, salt_with_terms, salt_with_two_blocks

from lrc_ase import save_potential

pytestmark = pytest.mark.slow


@needs_lammps
@pytest.mark.parametrize("n_processes", [1, 2])
@pytest.mark.parametrize(
    ("make", "further"),
    [
        (salt_with_two_blocks, "balanced"),
        (lambda: salt_with_two_blocks(neighbor_degree=1, compression=4.0), "balanced"),
        (salt_with_terms, "field"),
        (salt_with_repulsion, "balanced"),
    ],
    ids=["two blocks", "two blocks with vectors", "dipoles and tensors", "core repulsion"],
)
def test_lammps_finds_what_ase_finds(make, further, n_processes, tmp_path):
    """With two blocks owners of ghosts pass on features; dipoles need the field at all atoms."""
    save_potential(tmp_path / "salt.safetensors", make())
    cases = "triclinic", "empty process", "smaller than the cutoff", further
    arguments = "lammps", "salt.safetensors", "found.json", *cases
    under_mpi(n_processes, TESTS / "lammps_cases.py", *arguments, folder=tmp_path)
    actual = json.loads((tmp_path / "found.json").read_text())
    assert {name: beyond(outcome) for name, outcome in actual.items() if beyond(outcome)} == {}
    assert {name: outcome["drift"] for name, outcome in actual.items() if not outcome["drift"] < 2e-5} == {}
