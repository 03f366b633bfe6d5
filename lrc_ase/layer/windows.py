r"""Spreading windows: smooth bumps of compact support that carry points to a mesh and back.

A window g is a function of x in mesh units with support :math:`|x| < P/2`. Each of the P unit intervals is one
polynomial, so that values and derivatives of any order come from one matrix product, without `exp` or branches, and the
Fourier transform is that of the very function used. A point at mesh coordinate x touches the P mesh points
:math:`\lfloor x - P/2\rfloor + 1 + p`; with :math:`t = x - P/2 - \lfloor x - P/2\rfloor \in [0, 1)` the window's value
there is a polynomial in t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.polynomial import chebyshev, polynomial
from scipy.interpolate import BSpline
from torch import Tensor

__all__ = ["Window", "bspline_window", "derivative_table", "gaussian_window", "semicircle_window"]


@dataclass(frozen=True, eq=False)
class Window:
    """A window of `n_points` points per direction, made by one of the functions of this module.

    `coefficients` (n_points, degree + 1) are those of each interval's polynomial in :math:`2t - 1`, lowest power first.
    """

    name: str
    n_points: int
    coefficients: np.ndarray

    def first_point(self, mesh_coordinates: Tensor) -> Tensor:
        """Return the index of the first mesh point touched, not wrapped, int64; same shape as `mesh_coordinates`."""
        return torch.floor(mesh_coordinates - self.n_points / 2).to(torch.int64) + 1

    def values(self, mesh_coordinates: Tensor, max_order: int) -> Tensor:
        """Evaluate the window and its derivatives at the points touched, (*shape, n_points, max_order + 1).

        Derivatives are by the mesh coordinate x of the atom.
        """
        shifted = mesh_coordinates - self.n_points / 2
        # t in [0, 1) goes to 2t - 1 in [-1, 1): powers of a symmetric interval lose the fewest digits
        variable = 2 * (shifted - torch.floor(shifted)) - 1
        degree = self.coefficients.shape[1] - 1
        powers = torch.stack([variable**power for power in range(degree + 1)], dim=-1)
        table = derivative_table(self, max_order).to(powers)
        return (powers @ table).reshape(*mesh_coordinates.shape, self.n_points, max_order + 1)

    def horner_table(self, dtype: np.dtype, width: int) -> np.ndarray:
        """Return coefficients for compiled kernels, highest power first, (degree + 1, width), then zeros."""
        return _horner_table(self, dtype, width)

    def fourier_transform(self, angular: np.ndarray) -> np.ndarray:
        r"""Transform :math:`\hat g(\theta) = \int g(x) e^{-i\theta x} dx`, real and even; theta per spacing."""
        # of the very polynomials that spread and gather, so that dividing by it cancels the window exactly
        nodes, weights = np.polynomial.legendre.leggauss(32)
        values = polynomial.polyval(nodes, self.coefficients.T)  # (n_points, n_nodes)
        # interval p at t holds the offset p + 1 - P/2 - t between mesh point and atom
        offsets = np.arange(self.n_points)[:, None] + 1 - self.n_points / 2 - (nodes + 1) / 2
        flat = np.cos(np.asarray(angular, dtype=float)[..., None] * offsets.ravel())
        return flat @ (values * weights / 2).ravel()


@lru_cache(maxsize=64)
def derivative_table(window: Window, max_order: int) -> Tensor:
    """Return coefficients of window and derivatives, (degree + 1, n_points * (max_order + 1)), lowest power first."""
    degree = window.coefficients.shape[1] - 1
    table = np.zeros((degree + 1, window.n_points, max_order + 1))
    current = window.coefficients.T.copy()
    for order in range(max_order + 1):
        table[: len(current), :, order] = current * 2.0**order  # d/dt = 2 d/d(2t - 1)
        current = polynomial.polyder(current, axis=0)
    return torch.from_numpy(table.reshape(degree + 1, -1))


@lru_cache(maxsize=64)
def _horner_table(window: Window, dtype: np.dtype, width: int) -> np.ndarray:
    padded = np.pad(window.coefficients[:, ::-1].T, ((0, 0), (0, width - window.n_points)))
    return np.ascontiguousarray(padded, dtype=dtype)


def _fit(name: str, n_points: int, function: Callable[[np.ndarray], np.ndarray], degree: int) -> Window:
    """Interpolate `function` of the offset (even) on every interval at Chebyshev points."""
    nodes = chebyshev.chebpts1(degree + 1)
    coefficients = np.zeros((n_points, degree + 1))
    for point in range(n_points):
        values = function(point + 1 - n_points / 2 - (nodes + 1) / 2)
        power = chebyshev.cheb2poly(chebyshev.chebfit(nodes, values, degree))  # without trailing zeros
        coefficients[point, : len(power)] = power
    return Window(name, n_points, coefficients)


def _joined(window: Window) -> Window:
    """Make the polynomials of neighboring intervals meet, and end at zero, by a linear correction of each.

    Without it the energy jumps whenever an atom gains or loses a mesh point. Errors of forces stay the same to 2%; to
    make slopes meet as well would double them.
    """
    outward = polynomial.polyval(1.0, window.coefficients.T)  # at the end of each interval that is nearer to -P/2
    inward = polynomial.polyval(-1.0, window.coefficients.T)
    ends = np.zeros(window.n_points + 1)
    ends[1:-1] = 0.5 * (outward[1:] + inward[:-1])
    coefficients = window.coefficients.copy()
    first, second = ends[:-1] - outward, ends[1:] - inward
    coefficients[:, 0] += 0.5 * (first + second)
    coefficients[:, 1] += 0.5 * (first - second)
    return Window(window.name, window.n_points, coefficients)


@lru_cache(maxsize=32)
def bspline_window(n_points: int) -> Window:
    """Return the cardinal B-spline of degree `n_points` - 1, exactly :math:`C^{P-2}`."""
    if n_points < 2:
        raise ValueError(f"`n_points` of a B-spline window must be at least 2, got {n_points}")
    knots = np.arange(n_points + 1) - n_points / 2
    spline = BSpline.basis_element(knots, extrapolate=False)
    return _fit(f"bspline{n_points}", n_points, lambda x: np.nan_to_num(spline(x)), n_points - 1)


@lru_cache(maxsize=32)
def semicircle_window(n_points: int, shape: float | None = None) -> Window:
    r"""Return the exponential of a semicircle, :math:`g(x) = \exp[\beta(\sqrt{1 - (2x/P)^2} - 1)]`.

    `shape` is beta / P; None takes the value tuned for a mesh whose waves are damped by a Gaussian smearing.

    Source: Barnett, Magland, af Klinteberg, SIAM J. Sci. Comput. 41, C479 (2019), doi:10.1137/18M120885X.
    """
    if n_points < 3:
        raise ValueError(f"`n_points` of a semicircle window must be at least 3, got {n_points}")
    beta = n_points * (_SEMICIRCLE_SHAPE if shape is None else shape)

    def value(x: np.ndarray) -> np.ndarray:
        return np.exp(beta * (np.sqrt(np.maximum(1 - (2 * x / n_points) ** 2, 0)) - 1))

    return _joined(_fit(f"semicircle{n_points}", n_points, value, n_points + 4))


@lru_cache(maxsize=32)
def gaussian_window(n_points: int, width: float) -> Window:
    r"""Return the paper's mollifier, :math:`g(x) = \exp(-x^2 / (2 w^2))` with w = `width` in mesh units, cut at P/2.

    The paper's :math:`g_\tau(x) = \exp(-x^2/(4\tau))` on a torus scaled to 2 pi (its appendix B) has
    :math:`\tau = 12 / L_{FFT}^2`, that is :math:`w = \sqrt{2\tau} L_{FFT} / (2\pi) = \sqrt{24} / (2\pi) \approx 0.78`.
    """
    if n_points < 2 or width <= 0:
        raise ValueError(f"`n_points` must be at least 2 and `width` positive, got {n_points} and {width}")
    return _fit(f"gaussian{n_points}", n_points, lambda x: np.exp(-0.5 * (x / width) ** 2), n_points + 6)


_SEMICIRCLE_SHAPE = 2.0
PAPER_GAUSSIAN_WIDTH = math.sqrt(24) / (2 * math.pi)
