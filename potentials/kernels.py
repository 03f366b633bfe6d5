r"""Radial pair kernels of the paper's black box: exponential (eq. 3) and screened Coulomb (eqs. 6-8).

Both are values: frozen, compared by content, the same object for d = 1, 2, 3. The dimension enters each method,
because the screened Coulomb kernel is the Green's function of :math:`-\Delta + \mu^2`, a different function of r in
each d. Distances are in Angstrom, `mu` in 1/Angstrom, kernel values in eV.

These are free-space kernels; `lrc_ase.potentials.torus` makes them periodic.

Source: Peng, Lin, Ying, Zepeda-Nunez, section 3.1, doi:10.48550/arXiv.2010.05295.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import k0, k1

Array = NDArray[np.float64]


def check_dimension(dimension: int) -> None:
    """Raise ValueError unless `dimension` is 1, 2 or 3."""
    if dimension not in (1, 2, 3):
        raise ValueError(f"`dimension` must be 1, 2 or 3, got {dimension!r}")


def _distances(distance: ArrayLike) -> Array:
    distance = np.asarray(distance, dtype=float)
    if np.any(distance < 0.0):
        raise ValueError(f"`distance` must not be negative, got {distance.min()}; pass the norm of the displacement")
    return distance


@dataclass(frozen=True)
class Kernel(ABC):
    r"""A radial kernel whose Fourier transform is :math:`c\,(k^2 + \mu^2)^{-s}`; `mu` > 0 in 1/Angstrom."""

    mu: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mu) and self.mu > 0.0):
            raise ValueError(f"`mu` must be positive and finite (1/Angstrom), got {self.mu!r}")

    @property
    def terms(self) -> tuple[tuple[float, Kernel], ...]:
        """Return weights and kernels that sum to this one: a single term of weight 1."""
        return ((1.0, self),)

    @abstractmethod
    def value(self, distance: ArrayLike, dimension: int) -> Array:
        """Evaluate the kernel at `distance` (any shape, Angstrom); a singular kernel is infinite at zero."""

    @abstractmethod
    def derivative(self, distance: ArrayLike, dimension: int) -> Array:
        """Differentiate by the distance; at zero from the right."""

    @abstractmethod
    def is_singular(self, dimension: int) -> bool:
        """Return True if the value grows without bound as the distance goes to zero."""

    @abstractmethod
    def fourier_form(self, dimension: int) -> tuple[float, float]:
        r"""Return amplitude c and power s of the transform :math:`c\,(k^2 + \mu^2)^{-s}`."""

    def fourier(self, k_squared: ArrayLike, dimension: int) -> Array:
        r"""Evaluate the transform :math:`\int \psi(|x|)\,e^{-i k\cdot x}\,dx` at `k_squared` (1/Angstrom^2)."""
        amplitude, power = self.fourier_form(dimension)
        return amplitude * (np.asarray(k_squared, dtype=float) + self.mu**2) ** -power

    def fourier_derivative(self, k_squared: ArrayLike, dimension: int) -> Array:
        """Differentiate `fourier` by `k_squared`."""
        amplitude, power = self.fourier_form(dimension)
        return -power * amplitude * (np.asarray(k_squared, dtype=float) + self.mu**2) ** (-power - 1.0)


@dataclass(frozen=True)
class Exponential(Kernel):
    r"""Exponential kernel :math:`\psi(r) = e^{-\mu r}` for d = 1, 2, 3 (eq. 3).

    Transforms: :math:`2\mu/(k^2+\mu^2)`, :math:`2\pi\mu/(k^2+\mu^2)^{3/2}`, :math:`8\pi\mu/(k^2+\mu^2)^2`.

    >>> float(Exponential(mu=2.0).value(0.0, dimension=3))
    1.0
    """

    def value(self, distance: ArrayLike, dimension: int) -> Array:
        check_dimension(dimension)
        return np.exp(-self.mu * _distances(distance))

    def derivative(self, distance: ArrayLike, dimension: int) -> Array:
        return -self.mu * self.value(distance, dimension)

    def is_singular(self, dimension: int) -> bool:
        check_dimension(dimension)
        return False

    def fourier_form(self, dimension: int) -> tuple[float, float]:
        check_dimension(dimension)
        amplitude = {1: 2.0, 2: 2.0 * math.pi, 3: 8.0 * math.pi}[dimension] * self.mu
        return amplitude, (dimension + 1) / 2


@dataclass(frozen=True)
class ScreenedCoulomb(Kernel):
    r"""Screened Coulomb (Yukawa) kernel, :math:`-\Delta\psi + \mu^2\psi = \delta` in free space (eqs. 6, 7).

    :math:`e^{-\mu r}/2\mu` for d = 1, :math:`K_0(\mu r)/2\pi` for d = 2, :math:`e^{-\mu r}/4\pi r` for d = 3; the
    transform is :math:`1/(k^2+\mu^2)` in each. There is no factor 4 pi: weight the kernel in a `Mixture` for that.

    >>> float(ScreenedCoulomb(mu=0.5).value(0.0, dimension=1))
    1.0
    """

    def value(self, distance: ArrayLike, dimension: int) -> Array:
        check_dimension(dimension)
        distance = _distances(distance)
        if dimension == 1:
            return np.exp(-self.mu * distance) / (2.0 * self.mu)
        if dimension == 2:
            return k0(self.mu * distance) / (2.0 * math.pi)
        with np.errstate(divide="ignore"):
            return np.exp(-self.mu * distance) / (4.0 * math.pi * distance)

    def derivative(self, distance: ArrayLike, dimension: int) -> Array:
        check_dimension(dimension)
        distance = _distances(distance)
        if dimension == 1:
            return -0.5 * np.exp(-self.mu * distance)
        if dimension == 2:
            return -self.mu * k1(self.mu * distance) / (2.0 * math.pi)
        with np.errstate(divide="ignore"):
            return -np.exp(-self.mu * distance) * (self.mu + 1.0 / distance) / (4.0 * math.pi * distance)

    def is_singular(self, dimension: int) -> bool:
        check_dimension(dimension)
        return dimension > 1

    def fourier_form(self, dimension: int) -> tuple[float, float]:
        check_dimension(dimension)
        return 1.0, 1.0


@dataclass(frozen=True)
class Mixture:
    r"""Weighted sum of kernels, :math:`\alpha_1\psi^{\mu_1} + \alpha_2\psi^{\mu_2} + \dots` (paper, section 5).

    `terms` holds pairs (weight, kernel), the weights in eV. Transform and derivatives are those of the sum.

    >>> mixture = Mixture(((0.9, Exponential(mu=10.0)), (0.1, Exponential(mu=1.0))))
    >>> float(mixture.value(0.0, dimension=2))
    1.0
    """

    terms: tuple[tuple[float, Kernel], ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("`terms` must hold at least one (weight, kernel) pair, got none")
        for weight, kernel in self.terms:
            if not math.isfinite(weight):
                raise ValueError(f"the weights in `terms` must be finite, got {weight!r}")
            if not isinstance(kernel, Kernel):
                raise TypeError(f"`terms` must hold (weight, Kernel) pairs, got a {type(kernel).__name__} as kernel")

    def value(self, distance: ArrayLike, dimension: int) -> Array:
        """Sum the weighted values of the terms at `distance` (any shape, Angstrom)."""
        return np.asarray(sum(weight * kernel.value(distance, dimension) for weight, kernel in self.terms))

    def derivative(self, distance: ArrayLike, dimension: int) -> Array:
        """Sum the weighted derivatives of the terms by the distance."""
        return np.asarray(sum(weight * kernel.derivative(distance, dimension) for weight, kernel in self.terms))

    def fourier(self, k_squared: ArrayLike, dimension: int) -> Array:
        """Sum the weighted Fourier transforms of the terms at `k_squared` (1/Angstrom^2)."""
        return np.asarray(sum(weight * kernel.fourier(k_squared, dimension) for weight, kernel in self.terms))

    def is_singular(self, dimension: int) -> bool:
        """Return True if any term is singular at zero distance."""
        return any(kernel.is_singular(dimension) for _, kernel in self.terms)
