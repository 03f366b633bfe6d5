"""Calculators with one planted fault each, to see that a check notices it."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT


class Faulty(Calculator):
    """EMT, whose results pass through `spoil` on the way out."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, base: Calculator | None = None) -> None:
        super().__init__()
        self.base = EMT() if base is None else base
        self.n_calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.n_calls += 1
        inner = self.atoms.copy()
        inner.calc = self.base
        results = {"energy": inner.get_potential_energy(), "forces": inner.get_forces()}
        if inner.cell.rank == 3 and inner.pbc.all():
            results["stress"] = inner.get_stress()
        self.results = self.spoil(self.atoms, results)
        self.results["free_energy"] = self.results["energy"]

    def spoil(self, atoms: Atoms, results: dict) -> dict:
        return results


class ScaledForces(Faulty):
    """Forces 1 % too large."""

    def spoil(self, atoms, results):
        return results | {"forces": 1.01 * results["forces"]}


class ScaledStress(Faulty):
    def spoil(self, atoms, results):
        return results | {"stress": 1.01 * results["stress"]}


class Driving(Faulty):
    """Forces with a part along the last displacement, which pumps energy into every motion."""

    before: np.ndarray | None = None
    strength = 2.0

    def spoil(self, atoms, results):
        step = 0.0 if self.before is None or len(self.before) != len(atoms) else atoms.positions - self.before
        self.before = atoms.positions.copy()
        return results | {"forces": results["forces"] + self.strength * step}


class Exploding(Driving):
    """Forces that pump more energy in than a thermostat takes out."""

    strength = 100.0


class Anisotropic(Faulty):
    """Energy of a field along z that sees how far atoms are from the plane through their center."""

    def spoil(self, atoms, results):
        z = atoms.positions[:, 2] - atoms.positions[:, 2].mean()
        forces = results["forces"].copy()
        forces[:, 2] -= 0.02 * z
        return results | {"energy": results["energy"] + 0.01 * float(z @ z), "forces": forces}


class Anchored(Faulty):
    """Energy that depends on the distance from the origin of the coordinates."""

    def spoil(self, atoms, results):
        return results | {"energy": results["energy"] + 1e-3 * float(np.abs(atoms.positions).sum())}


class Numbered(Faulty):
    """Energy that depends on the number of an atom."""

    def spoil(self, atoms, results):
        forces = results["forces"].copy()
        forces[0] *= 1.1
        return results | {"forces": forces}


class Rounded(Faulty):
    """Coordinates in half precision, as of a model whose positions lose digits far from the origin."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        rounded = atoms.copy()
        rounded.positions = rounded.positions.astype(np.float16).astype(float)
        super().calculate(rounded, properties, system_changes)
        self.atoms = atoms.copy()


class Unwrapped(Faulty):
    """Forces from coordinates as they are given, without images."""

    def spoil(self, atoms, results):
        return results | {"forces": results["forces"] + 0.01 * np.sin(atoms.positions / 3)}


class NotExtensive(Faulty):
    """Energy with the square of a sum over all atoms, so that two copies are not twice the energy of one."""

    def spoil(self, atoms, results):
        return results | {"energy": results["energy"] + 1e-2 * len(atoms) ** 2}


class Hole(Faulty):
    """Energy that falls without end where two atoms come closer than 1.5 Angstrom."""

    def spoil(self, atoms, results):
        distances = atoms.get_all_distances(mic=bool(atoms.pbc.any())) + 10 * np.eye(len(atoms))
        close = np.clip(1.5 - distances, 0, None)
        return results | {"energy": results["energy"] - 500.0 * float((close**2).sum())}


class Rough(Faulty):
    """Energy with ripples over the volume, 5 meV per atom high."""

    def spoil(self, atoms, results):
        ripple = 5e-3 * len(atoms) * float(np.sin(40 * atoms.get_volume() / len(atoms)))
        return results | {"energy": results["energy"] + ripple}


class Crumbling(Faulty):
    """Energy that is lower by 1 eV per atom where a direction is open."""

    def spoil(self, atoms, results):
        return results | {"energy": results["energy"] - (0.0 if atoms.pbc.all() else 1.0) * len(atoms)}


class Stiff(Faulty):
    """Stress that is a fifth too large."""

    def spoil(self, atoms, results):
        return results | {"stress": 1.2 * results["stress"]}


class Swelling(Faulty):
    """Stress with a pressure of 160 GPa on top."""

    def spoil(self, atoms, results):
        return results | {"stress": results["stress"] - np.array([1.0, 1, 1, 0, 0, 0])}


class AllToAll(Faulty):
    """Energy with the square of a sum over the positions of all atoms: forces do not decay with the distance."""

    def spoil(self, atoms, results):
        directions = np.where(np.arange(len(atoms)) % 2, 1.0, -1.0)
        total = float(directions @ atoms.positions[:, 0])
        forces = results["forces"].copy()
        forces[:, 0] -= 0.02 * total * directions
        return results | {"energy": results["energy"] + 0.01 * total**2, "forces": forces}


class Forceless(Faulty):
    """Atoms that do not feel each other."""

    def spoil(self, atoms, results):
        return results | {"energy": 0.0, "forces": 0.0 * results["forces"]}
