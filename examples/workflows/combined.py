"""A sum of potentials, a database of results, and checkpoints that spare the second run its work."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import ase.db
from ase.build import bulk
from ase.calculators.checkpoint import CheckpointCalculator
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator

import lrc_ase

calculator = lrc_ase.load(sys.argv[1])
atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
atoms.rattle(0.05, seed=0)

# a dispersion correction of your choice stands here in earnest
atoms.calc = SumCalculator([calculator, LennardJones(sigma=3.0, epsilon=1e-3, rc=9.0)])
print(f"with Lennard-Jones {atoms.get_potential_energy():.4f} eV")
atoms.calc = calculator
print(f"without            {atoms.get_potential_energy():.4f} eV")

with tempfile.TemporaryDirectory() as folder:
    with ase.db.connect(Path(folder) / "results.db") as database:
        number = database.write(atoms, remark="rattled")
        row = database.get(number)
    print(f"row {row.id}: {row.formula}, largest force {row.fmax:.4f} eV/Angstrom, charges {row.charges[:2].round(3)}")
    for run in ("computed", "read"):
        copied = atoms.copy()
        copied.calc = CheckpointCalculator(lrc_ase.load(sys.argv[1]), db=str(Path(folder) / "checkpoints.db"))
        print(f"{run:8} {copied.get_potential_energy():.4f} eV")
