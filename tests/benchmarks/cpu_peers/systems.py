"""Structures that all programs are timed on, and a motion that is the same for all of them.

No data set is needed. Atoms move at thermal velocities, forwards and then back. Their masses are scaled up, so that the
forces of an untrained potential do not bend the way: every program sees the same positions at every step, and neighbor
lists age as they do in a simulation at 300 K.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

SYSTEMS = {"acetylacetone": 15, "water 192": 192, "water 1536": 1536}
"""Names of the structures, and their numbers of atoms."""
TEMPERATURE = 300.0
TIMESTEP = 0.5
"""Femtoseconds."""
HALF_PERIOD = 40
"""Steps in one direction: 20 fs, in which hydrogen atoms move by 0.5 Angstrom on average, oxygen atoms by 0.14."""
MASS_SCALE = 1e10

# the enol form, relaxed with GFN2-xTB
_ACETYLACETONE = """
C -0.349 1.272 0.177
C 0.304 0.018 -0.088
C -0.366 -1.161 0.033
O -1.634 -1.218 0.396
C 0.274 -2.488 -0.235
O -1.533 1.341 0.519
C 0.492 2.511 0.016
H 1.338 0.021 -0.385
H 1.121 -2.640 0.431
H 0.639 -2.532 -1.258
H -0.456 -3.276 -0.077
H -1.945 -0.277 0.542
H -0.105 3.396 0.221
H 0.885 2.561 -0.997
H 1.334 2.472 0.704
"""
_WATER_SPACING = 3.1045
"""Edge of the cube that one molecule has at 1 g/cm^3, Angstrom."""


def structure(name: str) -> Atoms:
    """Return one of `SYSTEMS`."""
    return acetylacetone() if name == "acetylacetone" else water(SYSTEMS[name])


def acetylacetone() -> Atoms:
    """Return one molecule in open space."""
    rows = [line.split() for line in _ACETYLACETONE.split("\n") if line]
    return Atoms([row[0] for row in rows], [[float(value) for value in row[1:]] for row in rows])


def water(n_atoms: int) -> Atoms:
    """Return rigid molecules of random orientation on a cubic lattice, at the density of the liquid."""
    edge = round((n_atoms / 3) ** (1 / 3))
    if 3 * edge**3 != n_atoms:
        raise ValueError(f"`n_atoms` must be 3 times a cube, got {n_atoms}")
    rng = np.random.default_rng(0)
    half_angle = np.radians(104.5) / 2
    bonds = 0.97 * np.array([[np.sin(half_angle), np.cos(half_angle), 0], [-np.sin(half_angle), np.cos(half_angle), 0]])
    positions = []
    for site in np.ndindex(edge, edge, edge):
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        oxygen = _WATER_SPACING * (np.array(site) + 0.5)
        positions += [oxygen, *(oxygen + bonds @ rotation)]
    return Atoms("OHH" * edge**3, positions, cell=3 * [_WATER_SPACING * edge], pbc=True)


def dynamics(atoms: Atoms) -> VelocityVerlet:
    """Return dynamics of `atoms`, whose calculator is set, at the speeds of `TEMPERATURE`."""
    rng = np.random.default_rng(1)
    speeds = np.sqrt(units.kB * TEMPERATURE / atoms.get_masses())
    velocities = rng.normal(size=(len(atoms), 3)) * speeds[:, None]
    atoms.set_masses(MASS_SCALE * atoms.get_masses())
    atoms.set_velocities(velocities)
    return VelocityVerlet(atoms, TIMESTEP * units.fs)


class Motion:
    """Move atoms forwards and back by whole numbers of steps."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.dynamics = dynamics(atoms)
        self.left = HALF_PERIOD
        """Steps until the atoms turn around."""

    def run(self, n_steps: int) -> None:
        """Take `n_steps` steps of `VelocityVerlet`."""
        while n_steps:
            count = min(n_steps, self.left)
            self.dynamics.run(count)
            self.left -= count
            n_steps -= count
            if self.left == 0:
                self.atoms.set_momenta(-self.atoms.get_momenta())
                self.left = HALF_PERIOD
