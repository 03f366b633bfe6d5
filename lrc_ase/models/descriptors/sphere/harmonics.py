r"""Real spherical harmonics, and the quadrature of the sphere by orbits of sign flips.

Every real harmonic is even or odd in x, in y and in z, and thus belongs to one of eight parity classes. All tensors of
the descriptor hold their harmonics class by class, in the order of `harmonic_order`. A flip of the sign of x, y or z
maps a Lebedev rule to itself. Its points form orbits of up to eight points that differ in signs. The values of a
function at the points of an orbit are sums and differences of its eight class sums at one of them (a Walsh-Hadamard
transform).

Source of the rules: Lebedev, Laikov, *A quadrature formula for the sphere of the 131st algebraic order of accuracy*
(1999), by way of `scipy.integrate.lebedev_rule`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.integrate import lebedev_rule
from scipy.special import sph_harm_y

__all__ = [
    "Quadrature",
    "gaunt_terms",
    "harmonic_order",
    "normalization",
    "parity_class",
    "quadrature",
    "real_spherical_harmonics",
]

_LEBEDEV_DEGREES = (3, 5, 7, 9, 11, 15, 17, 19, 21, 23, 25, 29, 31, 35)  # rules with positive weights


def real_spherical_harmonics(directions: np.ndarray, max_degree: int) -> np.ndarray:
    """Compute orthonormal real spherical harmonics at unit vectors (n, 3): (n, (max_degree + 1)^2) by degree."""
    pairs = [(degree, order) for degree in range(max_degree + 1) for order in range(-degree, degree + 1)]
    return np.stack([_harmonic(directions, *pair) for pair in pairs], axis=-1)


def _harmonic(directions: np.ndarray, degree: int, order: int) -> np.ndarray:
    x, y, z = directions.T
    # SciPy's order of arguments: polar angle, then azimuth; rounding may leave z beyond 1
    value = sph_harm_y(degree, abs(order), np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x))
    # sqrt(2): real and imaginary part share the norm of the complex harmonic
    if order < 0:
        return math.sqrt(2) * value.imag
    return value.real if order == 0 else math.sqrt(2) * value.real


def parity_class(degree: int, order: int) -> int:
    """Return the parity class of a harmonic: bits 1, 2, 4 are set if it is odd in x, y, z."""
    # Re (x + iy)^m (order >= 0) is even in y, Im odd; the powers of x and y sum to m, those of all three to the degree
    odd_y = order < 0
    odd_x = (abs(order) - odd_y) % 2
    return odd_x + 2 * odd_y + 4 * ((degree - abs(order)) % 2)


def harmonic_order(max_degree: int) -> list[tuple[int, int]]:
    """Return degree and order (l, m) of all harmonics, sorted by parity class, then by degree."""
    pairs = [(degree, order) for degree in range(max_degree + 1) for order in range(-degree, degree + 1)]
    return sorted(pairs, key=lambda pair: (parity_class(*pair), pair))


def normalization(degree: int, order: int) -> float:
    r"""Return the factor that normalizes the product of two functions to a harmonic on the unit sphere.

    The functions are :math:`d^m P_l(z)/dz^m` and the real or imaginary part of :math:`(x + iy)^m`, m = abs(order).
    """
    m = abs(order)
    # (-1)^m is the Condon-Shortley phase of `real_spherical_harmonics`
    ratio = math.factorial(degree - m) / math.factorial(degree + m)
    return (-1) ** m * math.sqrt((2 * degree + 1) / (4 * math.pi) * ratio * (1 if m == 0 else 2))


@dataclass(frozen=True)
class Quadrature:
    """Points and weights on the unit sphere in orbits of sign flips, weights summing to one."""

    points: np.ndarray
    """One point of each orbit, (n_orbits, 3), no coordinate negative."""
    weights: np.ndarray
    """Weight of every single point of an orbit, (n_orbits,)."""

    def orbit(self, index: int) -> np.ndarray:
        """Return the 2, 4 or 8 points of an orbit, (n_points, 3)."""
        signs = np.array([[1 - 2 * (flip >> axis & 1) for axis in range(3)] for flip in range(8)])
        return np.unique(signs * self.points[index], axis=0)


def quadrature(degree: int) -> Quadrature:
    """Return the smallest Lebedev rule that is exact for polynomials of this degree (at most 35)."""
    points, weights = lebedev_rule(next(known for known in _LEBEDEV_DEGREES if known >= min(degree, 35)))
    keys, first = np.unique(np.round(np.abs(points.T), 9), axis=0, return_index=True)
    # one point of each orbit, from the rule itself: rounded coordinates serve to compare alone
    chosen = np.where(keys == 0, 0.0, np.abs(points.T[first]))
    return Quadrature(chosen, weights[first] / (4 * math.pi))


@lru_cache(maxsize=16)
def gaunt_terms(max_degree: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the terms of products of a density with a vector, both on the sphere.

    The product of :math:`Y_{lm}(\hat n)` and :math:`\sqrt 3\, \hat n_\mu` has degrees L = l - 1 and L = l + 1. Row t of
    the first array holds (L > l, row of LM, row of lm, mu) with rows in `harmonic_order`; entry t of the second array
    is :math:`\sqrt 3 \int Y_{LM} Y_{lm} \hat n_\mu\, d\Omega`. Terms with L > `max_degree` are left out.
    """
    order = harmonic_order(max_degree)
    rule = quadrature(2 * max_degree + 1)  # degree of Y_LM Y_lm n: exact
    orbits = [rule.orbit(index) for index in range(len(rule.points))]
    points = np.concatenate(orbits)
    weights = np.repeat(4 * math.pi * rule.weights, [len(orbit) for orbit in orbits])
    columns = [degree * (degree + 1) + m for degree, m in order]
    harmonics = real_spherical_harmonics(points, max_degree)[:, columns]
    integrals = math.sqrt(3) * np.einsum("p,pa,pb,pm->abm", weights, harmonics, harmonics, points)
    terms = np.argwhere(np.abs(integrals) > 1e-9)  # selection rules: the others are zero up to rounding
    rises = [order[high][0] > order[low][0] for high, low, _ in terms]
    return np.column_stack([np.array(rises, np.int64), terms]), integrals[tuple(terms.T)]
