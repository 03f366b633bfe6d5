r"""Kernels as superpositions of Gaussians, the mathematics behind Ewald splits and Gaussian smoothing.

A kernel with the transform :math:`c\,(k^2+\mu^2)^{-s}` is an integral over heat kernels of "time" t (Angstrom^2),

.. math:: \psi(r) = \frac{c}{\Gamma(s)} \int_0^\infty t^{s-1} e^{-\mu^2 t}\, (4\pi t)^{-d/2} e^{-r^2/4t}\,dt .

Early times are short in space, late times short in frequency. Cutting the integral at t = `split` gives two sums that
both converge like Gaussians: Ewald's method for any such kernel. For s = 1 (screened Coulomb) the late part times
:math:`e^{\mu^2\,\mathrm{split}}` is the kernel convolved with a Gaussian of variance 2 `split`.
No special function of `lrc_ase.potentials.kernels` is used here, so that each checks the other.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gamma, gammaincc

from lrc_ase.potentials.kernels import Array, Kernel

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_NEGLIGIBLE = 60.0  # exp(-60) = 9e-27: what is dropped from the integrand at either end


def gaussian_integral(
    kernel: Kernel, distance: Array, dimension: int, *, lower: float = 0.0, upper: float = math.inf
) -> tuple[Array, Array]:
    r"""Evaluate the part of a kernel from heat kernels of times `lower` < t < `upper`.

    Gauss-Legendre quadrature in log t; its error is below 1e-12 of the whole kernel for r > 1e-5 / mu.

    Parameters
    ----------
    kernel, dimension : the kernel and d.
    distance : (n,) distances in Angstrom.
    lower, upper : limits of t in Angstrom^2.

    Returns
    -------
    value : (n,) the integral, in eV.
    slope : (n,) its derivative by the distance, divided by the distance (finite at zero when `lower` > 0); zero is
        returned where the distance is zero and `lower` is zero, for there the kernel has a kink or a pole.
    """
    amplitude, power = kernel.fourier_form(dimension)
    latest = min(upper, max(lower, 0.0) + _NEGLIGIBLE / kernel.mu**2)
    # Where `distance` is zero an integrable power of t remains; 1e-28 makes its dropped end 1e-14 of the whole.
    earliest = np.maximum(np.maximum(distance**2 / (4.0 * _NEGLIGIBLE), lower), 1e-28 * latest)
    log_width = np.maximum(np.log(latest) - np.log(earliest), 0.0)
    time = earliest[:, None] * np.exp(0.5 * log_width[:, None] * (_NODES + 1.0))  # (n, n_nodes)
    exponent = -(kernel.mu**2) * time - (distance**2)[:, None] / (4.0 * time)
    # dt = t d(log t) turns t^(s-1) into t^s
    integrand = time**power * (4.0 * math.pi * time) ** (-dimension / 2) * np.exp(exponent)
    factor = 0.5 * log_width * amplitude / gamma(power)
    value = factor * (integrand @ _WEIGHTS)
    slope = factor * ((-integrand / (2.0 * time)) @ _WEIGHTS)
    if lower == 0.0:
        slope = np.where(distance > 0.0, slope, 0.0)
    return value, slope


def late_fourier(kernel: Kernel, k_squared: Array, dimension: int, split: float) -> tuple[Array, Array]:
    r"""Evaluate the transform of the part later than `split`, :math:`c\,Q(s, \eta\kappa)\,\kappa^{-s}`.

    :math:`\kappa = k^2+\mu^2`, Q is the regularised upper incomplete gamma function, :math:`\eta` the
    `split` in Angstrom^2.
    Returns the transform and its derivative by `k_squared`.
    """
    amplitude, power = kernel.fourier_form(dimension)
    kappa = k_squared + kernel.mu**2
    value = amplitude * gammaincc(power, split * kappa) * kappa**-power
    # d/dk^2 brings down -t under the integral: the same form with s + 1, and Gamma(s + 1) = s Gamma(s)
    derivative = -power * amplitude * gammaincc(power + 1.0, split * kappa) * kappa ** (-power - 1.0)
    return value, derivative
