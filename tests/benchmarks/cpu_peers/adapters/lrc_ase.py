"""lrc-ase: the presets `fast` and `accurate` with the defaults of `lrc-ase train`, stopped after one epoch."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from lrc_ase import LRCCalculator
from lrc_ase.training import train


def calculator(atoms: Atoms, model: str, precision: str, folder: Path) -> Calculator:
    """Return the calculator of a potential that a training on random labels made: its settings are those of users."""
    run = folder.parents[1] / f"lrc_ase-{model}-{''.join(sorted(set(atoms.symbols)))}"  # for all sizes and precisions
    potential = run / "potential.safetensors"
    if not potential.exists():
        frames = [_labelled(atoms, seed) for seed in range(10)]
        train(frames, run, model=model, epochs=1, n_threads=1, quiet=True)
    return LRCCalculator(potential, dtype=precision)


def _labelled(atoms: Atoms, seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    frame.rattle(0.05, rng=rng)
    forces = rng.normal(size=(len(atoms), 3))
    energy = float(rng.normal())
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces - forces.mean(0))
    return frame


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {name: version(name) for name in ("lrc-ase", "torch", "numba", "ase")}
