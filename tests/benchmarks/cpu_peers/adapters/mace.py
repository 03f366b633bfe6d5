"""MACE with random weights: the settings of the errors on acetylacetone, and two smaller sizes."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from e3nn import o3
from mace.calculators import MACECalculator
from mace.modules import ScaleShiftMACE, interaction_classes

CUTOFF = 5.0
HIDDEN = {"published": "256x0e + 256x1o + 256x2e", "128-1": "128x0e + 128x1o", "64-0": "64x0e"}
"""`published`: arXiv:2206.07697, Appendix A.5.1. `128-1` is the size of MACE-OFF medium."""


def calculator(atoms: Atoms, model: str, precision: str, folder: Path) -> Calculator:
    """Return the calculator: two layers, correlation 3, l up to 3 in both."""
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, precision))
    torch.manual_seed(0)
    numbers = sorted(set(atoms.numbers.tolist()))
    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    network = ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps(HIDDEN[model]),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=14.0 if len(atoms) == 15 else 52.0,
        atomic_numbers=numbers,
        correlation=3,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    return MACECalculator(models=network, device="cpu", default_dtype=precision)


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {name: version(name) for name in ("mace-torch", "torch", "e3nn", "ase")}
