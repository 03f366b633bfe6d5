"""Vibrations of a water molecule, and how strongly they absorb light."""

from __future__ import annotations

import sys
import tempfile

from ase.build import molecule
from ase.optimize import BFGS
from ase.vibrations import Infrared

import lrc_ase

STEPS = 50

atoms = molecule("H2O")
atoms.calc = lrc_ase.load(sys.argv[1])
BFGS(atoms, logfile=None).run(fmax=1e-3, steps=STEPS)
with tempfile.TemporaryDirectory() as folder:
    infrared = Infrared(atoms, name=f"{folder}/infrared")
    infrared.run()
    infrared.summary()
print("Born effective charges of oxygen in e:")
print(atoms.calc.get_born_effective_charges(atoms)[0].round(3))
