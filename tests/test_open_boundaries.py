"""Energies of slabs, sheets, wires and clusters are smooth where builders put them, and follow no origin."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_forces
from structures import ELEMENTS, settings, shaken_model

from lrc_ase import LongRangeSettings, LRCCalculator, Potential

# coarse, so that an atom that jumps against the mesh changes the energy by far more than rounding
LONG_RANGE = LongRangeSettings(n_channels=2, accuracy=1e-4)


@pytest.fixture(scope="module")
def coarse_potential():
    return Potential(shaken_model(settings(long_range=LONG_RANGE)), torch.zeros(len(ELEMENTS), dtype=torch.float64))


@pytest.fixture(autouse=True)
def _always_the_mesh(monkeypatch):
    """Clusters of this size would otherwise be summed by pairs."""
    monkeypatch.setattr("lrc_ase.layer.boundaries._PAIRS_PER_MESH_POINT", 0.0)


def crystal(pbc):
    """NaCl of which one atom is the lowest along every open axis, at exactly 0."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.pbc = pbc
    atoms.rattle(0.1, seed=1)
    atoms.positions[0, ~atoms.pbc] = atoms.positions[:, ~atoms.pbc].min(axis=0) - 0.2
    atoms.positions[:, ~atoms.pbc] -= atoms.positions[0, ~atoms.pbc]
    return atoms


def sheet():
    """Exactly flat."""
    square = [[0, 0, 5], [2.8, 0.1, 5], [2.8, 2.9, 5], [0, 2.8, 5]]
    return Atoms("NaClNaCl", square, cell=[5.6, 5.6, 20], pbc=(True, True, False))


def layers():
    """Layers whose total height is a whole number of Angstrom."""
    atoms = bulk("NaCl", "rocksalt", a=6.0, cubic=True)
    atoms.pbc = (True, True, False)
    atoms.positions[:, :2] += 0.3 * np.random.default_rng(0).random((8, 2))
    return atoms


STRUCTURES = {
    "slab": lambda: crystal((True, True, False)),
    "wire": lambda: crystal((False, True, False)),
    "cluster": lambda: crystal(False),
    "sheet": sheet,
    "layers": layers,
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_forces_match_finite_differences(name, coarse_potential):
    atoms = STRUCTURES[name]()
    atoms.calc = LRCCalculator(coarse_potential)
    some = [0, len(atoms) - 1]
    error = calculate_numerical_forces(atoms, eps=1e-4, iatoms=some) - atoms.get_forces()[some]
    assert np.abs(error).max() < 1e-6 * np.abs(atoms.get_forces()).max()


@pytest.mark.parametrize("name", STRUCTURES)
def test_place_along_open_directions_is_never_seen(name, coarse_potential):
    atoms = STRUCTURES[name]()
    energies, forces = [], []
    for shift in (0.0, -1e-9, 0.217, -15.9, 1e3):
        moved = atoms.copy()
        moved.positions[:, ~atoms.pbc] += shift
        moved.calc = LRCCalculator(coarse_potential)
        energies.append(moved.get_potential_energy())
        forces.append(moved.get_forces())
    assert np.ptp(energies) < 1e-9
    assert np.ptp(forces, axis=0).max() < 1e-8
    assert np.abs(forces[0].sum(axis=0)[~atoms.pbc]).max() < 1e-10


@pytest.mark.parametrize("direction", [[0, 0, 5.6], [5.6, 0, 0], [3.3, 3.3, 3.3]])
def test_wire_may_tilt(direction, coarse_potential):
    """The box around a wire does not turn when the wire is tilted by a hair."""
    energies = []
    for tilt in ([1e-10, -1e-10, 2e-10], [-1e-10, 1e-10, -2e-10]):
        cell = np.zeros((3, 3))
        cell[2] = np.add(direction, tilt)
        atoms = Atoms("NaClNa", [[0, 0.1, 0.2], [1.3, 1.9, 2.1], [-1.2, 2.2, 1.1]], cell=cell, pbc=(False, False, True))
        atoms.calc = LRCCalculator(coarse_potential)
        energies.append(atoms.get_potential_energy())
    assert abs(energies[0] - energies[1]) < 1e-8
