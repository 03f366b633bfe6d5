r"""Finite-size correction of charged periodic cells: the energy of the net charge with its images and a background."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from scipy.special import erfc

from lrc_ase.models.long_range import COULOMB_CONSTANT

__all__ = ["image_charge_energy"]


def image_charge_energy(charge: float, cell: np.ndarray) -> float:
    r"""Compute the energy in eV of a point charge Q with its periodic images in a uniform neutralizing background.

    .. math:: \tfrac12 k_e Q^2 \Big[\sum_{R\ne0}\frac{\mathrm{erfc}(\eta R)}{R}
              + \frac{4\pi}{V}\sum_{k\ne0}\frac{e^{-k^2/4\eta^2}}{k^2} - \frac{\pi}{\eta^2 V}
              - \frac{2\eta}{\sqrt\pi}\Big],

    The energy is negative; in a cube it is :math:`-2.837297\, k_e Q^2 / 2L`. Subtracted from the energy of a charged
    molecule in a periodic box, it leaves an error of order :math:`1/V` against open boundaries (Makov and Payne,
    doi:10.1103/PhysRevB.51.4014). In a crystal it is the correction of a charged defect at permittivity 1.

    Parameters
    ----------
    charge
        Total charge, e.
    cell
        Cell vectors as rows, (3, 3), Angstrom; all three directions periodic.

    Raises
    ------
    ValueError
        The cell has no volume.
    """
    cell = np.asarray(cell, dtype=float)
    volume = abs(float(np.linalg.det(cell))) if cell.shape == (3, 3) else 0.0
    if not (math.isfinite(volume) and volume > 1e-12):
        raise ValueError(f"`cell` must have shape (3, 3) and a volume, got {cell.tolist()}")
    # the splitting parameter that balances both sums for a cube; the result does not depend on it
    splitting = math.sqrt(math.pi) / volume ** (1 / 3)
    reciprocal = 2 * math.pi * np.linalg.inv(cell).T
    lengths = _lengths(cell, _TERMS / splitting)
    waves = _lengths(reciprocal, 2 * _TERMS * splitting)
    potential = (erfc(splitting * lengths) / lengths).sum()
    potential += 4 * math.pi / volume * (np.exp(-(waves**2) / (4 * splitting**2)) / waves**2).sum()
    # the background of the short-range part, and the charge's interaction with its own Gaussian cloud
    potential -= math.pi / (splitting**2 * volume) + 2 * splitting / math.sqrt(math.pi)
    return float(0.5 * COULOMB_CONSTANT * charge**2 * potential)


_TERMS = 6.0
"""Both sums end at exp(-36) of their first terms."""


def _lengths(vectors: np.ndarray, cutoff: float) -> np.ndarray:
    """Return the lengths below `cutoff` of all lattice vectors except zero; `vectors` are the basis, as rows."""
    # distances between lattice planes: they bound the indices of vectors within the cutoff, in a skewed cell too
    heights = 1 / np.linalg.norm(np.linalg.inv(vectors), axis=0)
    ranges = [range(-int(cutoff // height), int(cutoff // height) + 1) for height in heights]
    lengths = np.linalg.norm(np.array(list(product(*ranges)), dtype=float) @ vectors, axis=1)
    return lengths[(lengths > 0) & (lengths < cutoff)]
