"""Rock salt with some ions, a distance, or its symmetry held fixed."""

from __future__ import annotations

import sys

import numpy as np
from ase import units
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLengths, FixSymmetry
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

import lrc_ase
from lrc_ase.simulation import thermalize

STEPS = 50

calculator = lrc_ase.load(sys.argv[1])
perfect = bulk("NaCl", "rocksalt", a=5.7, cubic=True)

atoms = perfect.copy()
atoms.rattle(0.1, seed=0)
atoms.set_constraint(FixAtoms([0, 1]))
atoms.calc = calculator
BFGS(atoms, logfile=None).run(fmax=0.02, steps=STEPS)
print(f"two ions fixed: forces on them {np.abs(atoms.get_forces(apply_constraint=False)[:2]).max():.3f} eV/Angstrom")

atoms = perfect.copy()
atoms.set_constraint(FixBondLengths([(0, 1)]))
atoms.calc = calculator
thermalize(atoms, 300, np.random.default_rng(0))
VelocityVerlet(atoms, 1.0 * units.fs).run(STEPS)
print(f"a distance fixed in dynamics: {atoms.get_distance(0, 1, mic=True):.6f} Angstrom")

atoms = perfect.copy()
atoms.set_cell(atoms.cell.array * [1, 1, 1.02], scale_atoms=True)
atoms.set_constraint(FixSymmetry(atoms))  # needs spglib
atoms.calc = calculator
BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=STEPS)
print("tetragonal as it began: " + ", ".join(f"{length:.4f}" for length in atoms.cell.lengths()) + " Angstrom")
