"""Velocities at the start of a run have the temperature that was asked for, with and without held atoms."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import fcc111
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian

from lrc_ase.simulation import thermalize


def mean_temperature(atoms, n_free):
    """Temperature of 300 drawings from the kinetic energy, by the equipartition of `n_free` momenta."""
    energies = []
    for seed in range(300):
        thermalize(atoms, 300.0, np.random.default_rng(seed))
        energies.append(atoms.get_kinetic_energy())
    return 2 * float(np.mean(energies)) / (n_free * units.kB)


def slab(*constraints):
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    atoms.set_constraint(constraints)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "n_free"),
    [
        (slab(), 33),  # 12 atoms without the motion of their center
        (slab(FixAtoms([0, 1, 2, 3])), 24),
        (slab(FixCartesian([0, 1, 2, 3], (False, False, True))), 30),  # drift along x and y is removed, none along z
    ],
    ids=["free", "held", "held along z"],
)
def test_start_has_the_temperature(atoms, n_free):
    assert mean_temperature(atoms, n_free) == pytest.approx(300.0, rel=0.04)


def test_bonds_of_fixed_length_do_not_hold_the_center_of_mass():
    atoms = Atoms("N2", [[0, 0, 0], [0, 0, 1.1]])
    atoms.set_constraint(FixBondLengths([[0, 1]]))
    thermalize(atoms, 300.0, np.random.default_rng(0))
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-10
    assert np.abs(atoms.get_momenta()).max() > 0.1
