"""SevenNet: the universal potential 7net-0 that the package brings along."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from sevenn.calculator import SevenNetCalculator


def calculator(atoms: Atoms, model: str, precision: str, folder: Path) -> Calculator:
    """Return the calculator."""
    torch.set_num_threads(1)
    return SevenNetCalculator(model, device="cpu")


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {name: version(name) for name in ("sevenn", "torch", "e3nn", "ase")}
