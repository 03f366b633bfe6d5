"""Rattled crystals and molecules, labelled by potentials of ASE."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential

from lrc_ase.dataset import LabelledFrame

CALCULATORS = {
    "Cu": EMT,
    "Ar": lambda: LennardJones(sigma=3.405, epsilon=0.0103, rc=8.0, smooth=True),
    "N": lambda: MorsePotential(epsilon=9.8, r0=1.1, rho0=2.9),
}


def frame_of(atoms, name="frame"):
    """Labels of EMT, Lennard-Jones or Morse for an `Atoms`."""
    copy = atoms.copy()
    copy.calc = CALCULATORS[atoms.get_chemical_symbols()[0]]()
    stress = copy.get_stress(voigt=False) if atoms.pbc.all() else np.full((3, 3), np.nan)
    return LabelledFrame(atoms, copy.get_potential_energy(), copy.get_forces(), stress, name)


def rattled(atoms, n_frames, amplitude, *, strain=0.0, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(n_frames):
        copy = atoms.copy()
        if strain:
            deformation = rng.normal(0, strain, (3, 3))
            copy.set_cell(copy.cell.array @ (np.eye(3) + (deformation + deformation.T) / 2), scale_atoms=True)
        copy.positions += rng.normal(0, amplitude, copy.positions.shape)
        frames.append(frame_of(copy, f"rattled@{number}"))
    return frames


def scaled(frames, *, energy=1.0, forces=1.0, stress=1.0):
    return [
        replace(f, energy=energy * f.energy, forces=forces * f.forces, stress=stress * f.stress) for f in frames
    ]  # fmt: skip
