"""Phonons of rock salt, and the Born effective charges that split them at the zone center."""

from __future__ import annotations

import sys
import tempfile

from ase import units
from ase.build import bulk
from ase.phonons import Phonons

import lrc_ase

atoms = bulk("NaCl", "rocksalt", a=5.6)
calculator = lrc_ase.load(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    phonons = Phonons(atoms, calculator, supercell=(2, 2, 2), delta=0.01, name=f"{folder}/phonons")
    phonons.run()
    phonons.read(acoustic=True)
    for name, wave in {"Gamma": (0, 0, 0), "X": (0.5, 0, 0.5), "L": (0.5, 0.5, 0.5)}.items():
        energies = phonons.band_structure([wave])[0] / units.invcm  # negative: an unstable mode
        print(f"{name:6}" + ", ".join(f"{energy:.0f}" for energy in energies) + " cm^-1")
# in a large cell, as the flow of charge is seen in units of the cell
large = atoms.repeat(2)
charges = calculator.get_born_effective_charges(large)
print("Born effective charges in e: " + ", ".join(f"{large[i].symbol} {charges[i].trace() / 3:+.3f}" for i in (0, 1)))
