"""A few femtoseconds of rock salt at 300 K in each ensemble."""

from __future__ import annotations

import sys

import numpy as np
from ase import units
from ase.build import bulk
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

import lrc_ase
from lrc_ase.simulation import thermalize

STEPS, TIMESTEP, TEMPERATURE = 20, 1.0 * units.fs, 300.0

calculator = lrc_ase.load(sys.argv[1])
rng = np.random.default_rng(0)
integrators = {
    "velocity Verlet": lambda atoms: VelocityVerlet(atoms, TIMESTEP),
    "Langevin": lambda atoms: Langevin(
        atoms, TIMESTEP, temperature_K=TEMPERATURE, friction=0.01 / units.fs, fixcm=False, rng=rng
    ),
    "Bussi": lambda atoms: Bussi(atoms, TIMESTEP, TEMPERATURE, taut=100 * units.fs, rng=rng),
    "Nose-Hoover chain": lambda atoms: NoseHooverChainNVT(atoms, TIMESTEP, TEMPERATURE, tdamp=100 * units.fs),
    "MTK, constant pressure": lambda atoms: MTKNPT(
        atoms, TIMESTEP, TEMPERATURE, pressure_au=0.0, tdamp=100 * units.fs, pdamp=1000 * units.fs
    ),
}
for name, integrator in integrators.items():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.calc = calculator
    thermalize(atoms, TEMPERATURE, rng)
    before = atoms.get_total_energy()
    integrator(atoms).run(STEPS)
    change = (atoms.get_total_energy() - before) / len(atoms)
    print(f"{name:24} {atoms.get_temperature():6.1f} K, total energy {1000 * change:+.3f} meV/atom")
