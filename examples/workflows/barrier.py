"""The way of a sodium ion into the vacancy beside it, by a nudged elastic band."""

from __future__ import annotations

import sys

from ase.build import bulk
from ase.mep import NEB
from ase.optimize import FIRE

import lrc_ase

STEPS = 30

calculator = lrc_ase.load(sys.argv[1])
perfect = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
first = perfect.copy()
del first[2]
last = perfect.copy()
last.positions[0] = perfect.positions[2]  # the ion at the origin goes where atom 2 was
del last[2]
for end in (first, last):
    end.info["charge"] = -1.0  # a vacancy of Na+ leaves the cell with -1; a uniform background makes up for it
    end.calc = calculator
    FIRE(end, logfile=None).run(fmax=0.05, steps=STEPS)
images = [first, *(first.copy() for _ in range(3)), last]
for image in images:
    image.info["charge"] = -1.0
    image.calc = calculator
band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
band.interpolate(mic=True)
FIRE(band, logfile=None).run(fmax=0.1, steps=STEPS)
energies = [image.get_potential_energy() - first.get_potential_energy() for image in images]
print("energies along the path in eV: " + ", ".join(f"{energy:.3f}" for energy in energies))
