"""Small labelled frames for tests of the training: two metals under ASE's effective-medium potential."""

from __future__ import annotations

from itertools import product

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from lrc_ase.training.configuration import TrainingConfiguration, parse_configuration

TINY_MODEL = {
    "cutoff": 4.0,
    "descriptor": {"n_radial": 4, "n_channels": 4, "degrees": [1, 1]},
    "long_range": {"n_channels": 1, "n_features": 2, "smearing": 1.5},
    "hidden": [8],
}


def metal_frames(n_frames: int, *, seed: int = 0, repeat: tuple[int, int, int] = (1, 1, 1)) -> list[Atoms]:
    """Rattled cells of CuAu in varying proportion, with energy, forces and stress."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        atoms = bulk("Cu", "fcc", a=3.9, cubic=True) * repeat
        atoms.symbols[rng.permutation(len(atoms))[: rng.integers(1, len(atoms))]] = "Au"
        atoms.positions += 0.08 * rng.normal(size=atoms.positions.shape)
        atoms.calc = EMT()
        labels = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


def molecules(n_frames: int, *, seed: int = 0) -> list[Atoms]:
    """Open clusters of CuAu, with dipole and Born effective charges of charge that moves from gold to copper."""
    rng = np.random.default_rng(seed)
    frames = []
    for periodic in metal_frames(n_frames, seed=seed):
        atoms = Atoms(periodic.numbers, periodic.positions + 0.1 * rng.normal(size=periodic.positions.shape))
        dipole, born = np.zeros(3), np.zeros((len(atoms), 3, 3))
        for gold, copper in product(np.flatnonzero(atoms.numbers == 79), np.flatnonzero(atoms.numbers == 29)):
            vector = atoms.positions[copper] - atoms.positions[gold]
            charge = 0.5 * np.exp(-(vector @ vector) / 9.0)
            # derivative of charge times vector by the position of copper
            slope = charge * (np.eye(3) - 2 / 9.0 * np.outer(vector, vector))
            dipole += charge * vector
            born[copper] += slope
            born[gold] -= slope
        labels = {name: periodic.calc.results[name] for name in ("energy", "forces")}
        atoms.calc = SinglePointCalculator(atoms, dipole=dipole, born_effective_charges=born, **labels)
        frames.append(atoms)
    return frames


def write_frames(folder, *, n_small: int = 6, n_large: int = 3) -> None:
    """Write small.traj and large.traj to `folder`."""
    ase.io.write(folder / "small.traj", metal_frames(n_small))
    ase.io.write(folder / "large.traj", metal_frames(n_large, seed=1, repeat=(2, 1, 1)))


def two_stage_configuration(folder, *, epochs: int = 3, **changes) -> TrainingConfiguration:
    """Two-scale run on the files of `write_frames` with a model of a few dozen parameters."""
    return parse_configuration(
        {
            "data": {"small": {"train": "small.traj"}, "large": {"train": "large.traj"}},
            "model": TINY_MODEL,
            "stages": [
                {"name": "first", "data": "small", "model": "short-range", "epochs": epochs, "batch_size": 2},
                {"name": "second", "data": "large", "epochs": epochs, "batch_size": 1},
            ],
            "n_threads": 1,
            **changes,
        },
        folder=folder,
    )
