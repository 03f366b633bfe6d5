"""CHGNet: the universal potential that the package brings along."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from chgnet.model.dynamics import CHGNetCalculator

BOX = 20.0
"""Edge of the periodic cell of a molecule, Angstrom: the program knows periodic cells alone."""


def calculator(atoms: Atoms, model: str, precision: str, folder: Path) -> Calculator:
    """Return the calculator."""
    torch.set_num_threads(1)
    if not atoms.pbc.any():
        atoms.set_cell(3 * [BOX])
        atoms.pbc = True
        atoms.center()
    return CHGNetCalculator(use_device="cpu", on_isolated_atoms="ignore")


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {name: version(name) for name in ("chgnet", "torch", "ase")}
