r"""The jobs that every program of the comparison does.

Random points in a cubic box of 0.1 atoms per cubic Angstrom carry weights f, neutral in total; with the smeared
screened Coulomb kernel :math:`\hat\phi(k) = 4\pi e^{-s^2k^2/2} / (k^2 + \lambda^2)`, s = 1 Angstrom, lambda = 0.3 per
Angstrom (0, without the wave k = 0, for programs that know Coulomb alone), wanted are

    field      u_i = sum over j and images of phi(x_i - x_j) f_j, without phi(0) f_i
    forces     u and F = - gradient by positions of E = 1/2 sum f.u, what molecular dynamics needs
    gradient   u and the gradient by positions of sum c.u with a given c, what a network on top of u asks for
    training   gradients of sum |F - F_target|^2 by f and by (amplitude, log lambda): a second derivative
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["DENSITY", "JOBS", "SCREENING", "SMEARING", "Problem", "relative_error"]

JOBS = ("field", "forces", "gradient", "training")
DENSITY = 0.1
SMEARING = 1.0
SCREENING = 0.3


@dataclass(frozen=True)
class Problem:
    """Inputs, equal for all; positions and weights are numbers that float32 holds exactly."""

    n_atoms: int
    n_channels: int = 1
    precision: str = "float64"
    accuracy: float = 1e-4
    """Relative l2 error of u to be reached."""
    threads: int = 1
    screening: float = SCREENING

    @property
    def length(self) -> float:
        """Edge of the box, Angstrom."""
        return float(np.float32((self.n_atoms / DENSITY) ** (1 / 3)))

    @property
    def kernel_at_origin(self) -> float:
        """phi(0), which u leaves out."""
        damping = self.screening * SMEARING / math.sqrt(2)
        return math.sqrt(2 / math.pi) / SMEARING - self.screening * math.exp(damping**2) * math.erfc(damping)

    @cached_property
    def positions(self) -> np.ndarray:
        """(n_atoms, 3), Angstrom."""
        return (self._numbers(0).random((self.n_atoms, 3), np.float32) * np.float32(self.length)).astype(self.precision)

    @cached_property
    def weights(self) -> np.ndarray:
        """(n_atoms, n_channels), neutral to rounding."""
        weights = self._numbers(1).standard_normal((self.n_atoms, self.n_channels), np.float32)
        return (weights - weights.mean(axis=0)).astype(self.precision)

    @cached_property
    def cotangent(self) -> np.ndarray:
        """(n_atoms, n_channels), the c of job 'gradient'."""
        return self._numbers(2).standard_normal((self.n_atoms, self.n_channels), np.float32).astype(self.precision)

    @cached_property
    def force_targets(self) -> np.ndarray:
        """(n_atoms, 3), the F_target of job 'training'."""
        return self._numbers(3).standard_normal((self.n_atoms, 3), np.float32).astype(self.precision)

    def multiplier(self, k_squared: np.ndarray) -> np.ndarray:
        """Multiplier over the volume, with the wave k = 0 left out where the kernel is unscreened."""
        screened = k_squared + self.screening**2
        safe = np.where(screened == 0, 1.0, screened)
        table = 4 * math.pi / self.length**3 * np.exp(-0.5 * SMEARING**2 * k_squared) / safe
        return np.where(screened == 0, 0.0, table)

    def _numbers(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.n_atoms, stream])


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    """Relative l2 error."""
    return float(np.linalg.norm(np.asarray(found, np.float64) - exact) / np.linalg.norm(exact))
