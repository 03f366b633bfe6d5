"""Relax rock salt with its cell, then its equation of state and elastic constants."""

from __future__ import annotations

import sys

import numpy as np
from ase import units
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

import lrc_ase

STEPS = 200

atoms = bulk("NaCl", "rocksalt", a=5.7, cubic=True)
atoms.calc = lrc_ase.load(sys.argv[1])
FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=STEPS)
print(f"lattice constant {atoms.cell.lengths()[0]:.3f} Angstrom, {atoms.get_potential_energy() / 8:.4f} eV per atom")

volumes, energies = [], []
for scale in np.linspace(0.98, 1.02, 7):
    strained = atoms.copy()
    strained.calc = atoms.calc
    strained.set_cell(atoms.cell.array * scale, scale_atoms=True)
    volumes.append(strained.get_volume())
    energies.append(strained.get_potential_energy())
_, _, modulus = EquationOfState(volumes, energies, eos="sj").fit()
print(f"bulk modulus {modulus / units.GPa:.1f} GPa")

# column of the elastic constants: stress by strain along x, atoms relaxed at each strain (here fixed by symmetry)
sides = []
for strain in (1e-3, -1e-3):
    strained = atoms.copy()
    strained.calc = atoms.calc
    strained.set_cell(atoms.cell.array @ np.diag([1 + strain, 1, 1]), scale_atoms=True)
    sides.append(strained.get_stress())
column = (sides[0] - sides[1]) / 2e-3 / units.GPa
print(f"C11 {column[0]:.1f} GPa, C12 {column[1]:.1f} GPa")

surface = atoms.repeat((1, 1, 2))
surface.pbc = (True, True, False)  # any vacuum will do: it is never read
surface.set_constraint(FixAtoms([atom.index for atom in surface if atom.z < 1.0]))
surface.calc = atoms.calc
FIRE(surface, logfile=None).run(fmax=0.02, steps=STEPS)
print(
    f"surface energy {(surface.get_potential_energy() - 2 * atoms.get_potential_energy()) / 2:.3f} eV per cell and side"
)
