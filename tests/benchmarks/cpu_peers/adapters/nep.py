"""NEP on the CPU by calorine: random weights, the defaults of GPUMD (4.x) for architecture and cutoffs."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from calorine.calculators import CPUNEP

RADIAL_CUTOFF, ANGULAR_CUTOFF = 8.0, 4.0
N_RADIAL, N_ANGULAR, BASIS, L_MAX, NEURONS = 4, 4, 8, 4, 30
"""Keywords n_max, basis_size, l_max (with the 4-body term 2, without the 5-body term) and neuron."""
BOX = 20.0
"""Edge of the periodic cell of a molecule, Angstrom: the program knows periodic cells alone."""


def calculator(atoms: Atoms, model: str, precision: str, folder: Path) -> Calculator:
    """Return the calculator."""
    if not atoms.pbc.any():
        atoms.set_cell(3 * [BOX])
        atoms.pbc = True
        atoms.center()
    path = folder / "nep.txt"
    elements = sorted(set(atoms.symbols))
    n_descriptors = (N_RADIAL + 1) + (N_ANGULAR + 1) * L_MAX + (N_ANGULAR + 1)
    n_network = len(elements) * (n_descriptors + 2) * NEURONS + 1
    n_expansion = len(elements) ** 2 * (BASIS + 1) * (N_RADIAL + 1 + N_ANGULAR + 1)
    weights = 0.1 * np.random.default_rng(0).normal(size=n_network + n_expansion)
    header = (
        f"nep4 {len(elements)} {' '.join(elements)}\n"
        f"cutoff {RADIAL_CUTOFF:g} {ANGULAR_CUTOFF:g} 500 200\n"
        f"n_max {N_RADIAL} {N_ANGULAR}\nbasis_size {BASIS} {BASIS}\nl_max {L_MAX} 2 0\nANN {NEURONS} 0\n"
    )
    numbers = [*weights, *np.ones(n_descriptors)]  # the last ones scale the descriptor
    path.write_text(header + "".join(f"{number:.7e}\n" for number in numbers))
    return CPUNEP(str(path), atoms=atoms)


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {name: version(name) for name in ("calorine", "ase")}
