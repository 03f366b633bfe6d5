"""OpenMM on the CPU: the flexible SPC-Fw water model with PME, the floor that no learned potential reaches."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import openmm
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from openmm import unit

CUTOFF = 0.6
"""Nanometers: half of the smaller box."""
CHARGES = {"O": -0.82, "H": 0.41}
SIGMA, EPSILON = 0.3165492, 0.650299
BOND, BOND_CONSTANT = 0.1012, 443153.38
ANGLE, ANGLE_CONSTANT = 1.97641, 317.5656
"""Wu, Tepper and Voth, J. Chem. Phys. 124, 024503 (2006), doi:10.1063/1.2136877, in nm, kJ/mol and radians."""
KJ_PER_MOL = units.kJ / units.mol


class Water(Calculator):
    """Return energy and forces of a context."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, atoms: Atoms) -> None:
        super().__init__()
        system = openmm.System()
        bonds, angles, forces = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.NonbondedForce()
        for symbol in atoms.symbols:
            system.addParticle(1.0)
            forces.addParticle(CHARGES[symbol], SIGMA, EPSILON if symbol == "O" else 0.0)
        for first in range(0, len(atoms), 3):  # O, H, H
            bonds.addBond(first, first + 1, BOND, BOND_CONSTANT)
            bonds.addBond(first, first + 2, BOND, BOND_CONSTANT)
            angles.addAngle(first + 1, first, first + 2, ANGLE, ANGLE_CONSTANT)
            for pair in ((first, first + 1), (first, first + 2), (first + 1, first + 2)):
                forces.addException(*pair, 0.0, 1.0, 0.0)
        forces.setNonbondedMethod(openmm.NonbondedForce.PME)
        forces.setCutoffDistance(CUTOFF)
        for force in (bonds, angles, forces):
            system.addForce(force)
        system.setDefaultPeriodicBoxVectors(*(atoms.cell.array / 10))
        platform = openmm.Platform.getPlatformByName("CPU")
        self.context = openmm.Context(system, openmm.VerletIntegrator(0.0005), platform, {"Threads": "1"})

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:
        """Fill `results`."""
        super().calculate(atoms, properties, system_changes)
        self.context.setPositions(self.atoms.positions / 10)
        state = self.context.getState(getEnergy=True, getForces=True)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        self.results = {"energy": energy * KJ_PER_MOL, "forces": np.asarray(forces) * KJ_PER_MOL / 10}


def calculator(atoms: Atoms, model: str, precision: str, folder: Path) -> Calculator:
    """Return the calculator."""
    if "C" in atoms.symbols:
        raise ValueError("water alone")
    return Water(atoms)


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {name: version(name) for name in ("openmm", "ase")}
