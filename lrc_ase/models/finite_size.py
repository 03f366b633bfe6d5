r"""What a charged periodic cell has too much: the energy of its net charge with its images and their background."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from scipy.special import erfc

from lrc_ase.models.long_range import COULOMB_CONSTANT

__all__ = ["image_charge_energy"]


def image_charge_energy(charge: float, cell: np.ndarray) -> float:
    r"""Energy in eV of a point charge Q with its own images in a uniform neutralizing background.

    .. math:: \tfrac12 k_e Q^2 \Big[\sum_{R\ne0}\frac{\mathrm{erfc}(\eta R)}{R}
              + \frac{4\pi}{V}\sum_{k\ne0}\frac{e^{-k^2/4\eta^2}}{k^2} - \frac{\pi}{\eta^2 V}
              - \frac{2\eta}{\sqrt\pi}\Big],

    negative; :math:`-2.837297\, k_e Q^2 / 2L` in a cube. A charged molecule's energy in a periodic box less this one
    goes to the open result as :math:`1/V` (Makov and Payne, doi:10.1103/PhysRevB.51.4014). In a charged crystal it is
    the correction of a charged defect with permittivity 1.

    Parameters
    ----------
    charge
        Total charge, e.
    cell
        Cell vectors as rows, (3, 3), Angstrom; all three directions periodic.

    Raises
    ------
    ValueError
        A cell without volume.
    """
    cell = np.asarray(cell, dtype=float)
    volume = abs(float(np.linalg.det(cell))) if cell.shape == (3, 3) else 0.0
    if not (math.isfinite(volume) and volume > 1e-12):
        raise ValueError(f"`cell` must have shape (3, 3) and a volume, got {cell.tolist()}")
    splitting = math.sqrt(math.pi) / volume ** (1 / 3)
    reciprocal = 2 * math.pi * np.linalg.inv(cell).T
    lengths = _lengths(cell, _TERMS / splitting)
    waves = _lengths(reciprocal, 2 * _TERMS * splitting)
    potential = (erfc(splitting * lengths) / lengths).sum()
    potential += 4 * math.pi / volume * (np.exp(-(waves**2) / (4 * splitting**2)) / waves**2).sum()
    potential -= math.pi / (splitting**2 * volume) + 2 * splitting / math.sqrt(math.pi)
    return float(0.5 * COULOMB_CONSTANT * charge**2 * potential)


_TERMS = 6.0
"""Both sums end at exp(-36) of their first terms."""


def _lengths(vectors: np.ndarray, cutoff: float) -> np.ndarray:
    """Lengths below `cutoff` of the lattice's vectors but for zero."""
    heights = 1 / np.linalg.norm(np.linalg.inv(vectors), axis=0)
    ranges = [range(-int(cutoff // height), int(cutoff // height) + 1) for height in heights]
    lengths = np.linalg.norm(np.array(list(product(*ranges)), dtype=float) @ vectors, axis=1)
    return lengths[(lengths > 0) & (lengths < cutoff)]
