"""Writes the crystal that the examples of this folder start from: ``start.extxyz`` and ``start.data``."""

from __future__ import annotations

import ase.io
from ase.build import bulk

atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
atoms.rattle(0.05, seed=0)
atoms.wrap()
ase.io.write("start.extxyz", atoms)
ase.io.write("start.data", atoms, format="lammps-data", specorder=["Na", "Cl"], masses=True, atom_style="charge")
print(f"{len(atoms)} atoms in start.extxyz and start.data")
