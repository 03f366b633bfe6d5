"""Label pairs of an ion and a water molecule with GFN1-xTB.

python examples/ion_water/make_dataset.py [--output examples/ion_water]

Na+ or Cl- stands 2.1 (Cl-: 2.9) to 9 Angstrom from the oxygen of a water molecule, which is turned at random and
distorted like at room temperature. `train.extxyz` and `test.extxyz` hold such pairs; `scan.extxyz` pulls Na+ from the
oxygen of an undistorted molecule along its symmetry axis, to 15 Angstrom. A total charge stands in `info["charge"]`.
Needs tblite (`pip install ".[dataset]"`) and takes seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from tblite.ase import TBLite

CLOSEST = {"Na": 2.1, "Cl": 2.9}
CHARGE = {"Na": 1, "Cl": -1}
FARTHEST = 9.0
DISTORTION = 0.04  # Angstrom, of every coordinate
SCAN = np.concatenate([np.arange(2.1, 6.0, 0.1), np.arange(6.0, 15.01, 0.25)])


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    output = parser.parse_args().output
    generator = np.random.default_rng(0)
    pairs = [labeled(random_pair(ion, generator)) for _ in range(150) for ion in CHARGE]
    write(output / "train.extxyz", pairs[:240])
    write(output / "test.extxyz", pairs[240:])
    write(output / "scan.extxyz", [labeled(pair_on_axis(distance)) for distance in SCAN])


def random_pair(ion: str, generator: np.random.Generator) -> Atoms:
    """Return an ion at a random place around a distorted water molecule."""
    water = molecule("H2O")
    water.positions -= water.positions[0]
    water.positions += generator.normal(scale=DISTORTION, size=water.positions.shape)
    direction = generator.normal(size=3)
    distance = generator.uniform(CLOSEST[ion], FARTHEST)
    return with_ion(water, ion, distance * direction / np.linalg.norm(direction))


def pair_on_axis(distance: float) -> Atoms:
    """Return Na+ on the symmetry axis of water, on the side of the oxygen."""
    water = molecule("H2O")
    water.positions -= water.positions[0]
    toward_hydrogen = water.positions[1:].sum(axis=0)
    return with_ion(water, "Na", -distance * toward_hydrogen / np.linalg.norm(toward_hydrogen))


def with_ion(water: Atoms, ion: str, position: np.ndarray) -> Atoms:
    """Return water with an ion; positions are rounded to what the file will hold."""
    atoms = Atoms(ion, positions=[position]) + water
    atoms.positions = np.round(atoms.positions, 8)
    atoms.info["charge"] = CHARGE[ion]
    return atoms


def labeled(atoms: Atoms) -> Atoms:
    """Return the structure with its GFN1-xTB energy and forces."""
    calculator = TBLite(method="GFN1-xTB", charge=atoms.info["charge"], verbosity=0)
    calculator.calculate(atoms, ["energy", "forces"], [])
    energy, forces = calculator.results["energy"], calculator.results["forces"]
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


if __name__ == "__main__":
    main()
