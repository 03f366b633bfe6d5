r"""Trainable radial Fourier multipliers :math:`\hat\phi_\theta(k)`, one file per kernel.

Each is a module that turns wave numbers into a table with channels last, and gives the same kernel in real space, for
pair sums and for the self term. Parameters are few and start as float64; positive ones are stored as logarithms.
Conventions: :math:`\hat\phi(k) = \int \phi(x) e^{-ik\cdot x} dx`; 4 pi beta / k^2 is the Coulomb kernel beta / r.
"""

from __future__ import annotations

from lrc_ase.layer.kernels.band_limited import BandLimited
from lrc_ase.layer.kernels.combined import Matrix, Repeated, Stack
from lrc_ase.layer.kernels.coulomb import Coulomb
from lrc_ase.layer.kernels.exponential import Exponential
from lrc_ase.layer.kernels.gaussian_sum import GaussianSum
from lrc_ase.layer.kernels.inverse_power import InversePower
from lrc_ase.layer.kernels.multiplier import Multiplier, WaveNumbers, apply_kernel
from lrc_ase.layer.kernels.radial_spline import RadialSpline
from lrc_ase.layer.kernels.yukawa import Yukawa

__all__ = [
    "BandLimited",
    "Coulomb",
    "Exponential",
    "GaussianSum",
    "InversePower",
    "Matrix",
    "Multiplier",
    "RadialSpline",
    "Repeated",
    "Stack",
    "WaveNumbers",
    "Yukawa",
    "apply_kernel",
]
