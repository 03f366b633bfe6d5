"""Sums over modes in Fourier space."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lrc_ase.potentials.images import KernelSum
from lrc_ase.potentials.kernels import Array
from lrc_ase.potentials.lattice import ball_volume, half_diagonal, lattice_points, n_lattice_points, reciprocal_cell

_MAX_MODES = 2_000_000
_CHUNK = 2_000_000  # matrix elements held at once

# k^2 (n,) to a multiplier and its derivative by k^2, both (n,).
Multiplier = Callable[[Array], tuple[Array, Array]]


def _mode_radius(multiplier: Multiplier, cell: Array, decay: float, tolerance: float) -> float:
    r"""Return the largest :math:`|k|` to keep, for a multiplier that falls as :math:`e^{-\mathrm{decay}\,k^2}`.

    The modes of one reciprocal cell cover it, so a tail is at most the integral of the falling bound over
    :math:`|k| > K - 2\rho`: :math:`(2\pi)^{-d} S_d \int (k+\rho)^{d-1} F(k)\,dk`, done here by the trapezoidal rule.
    """
    dimension = len(cell)
    reach = half_diagonal(reciprocal_cell(cell))
    k, step = np.linspace(0.0, math.sqrt(120.0 / decay), 4001, retstep=True)
    value, derivative = multiplier(k**2)
    bound = np.abs(value) * np.maximum(1.0, k) + 2.0 * k**2 * np.abs(derivative)
    surface = dimension * ball_volume(1.0, dimension) / (2.0 * math.pi) ** dimension
    tail = np.cumsum((surface * step * (k + reach) ** (dimension - 1) * bound)[::-1])[::-1]
    return float(k[np.argmax(tail <= tolerance)]) + 2.0 * reach


def all_modes(multiplier: Multiplier, displacements: Array, cell: Array, decay: float, tolerance: float) -> KernelSum:
    r"""Evaluate the Fourier sum :math:`\frac1V\sum_m \hat\psi(k_m^2) \cos(k_m\cdot x)` at `displacements` (n, d).

    `decay` (Angstrom^2) states that the multiplier falls as :math:`e^{-\mathrm{decay}\,k^2}`; modes are summed until
    a bound on the rest is below `tolerance`. Raises ValueError when more than two million would be needed.
    """
    volume = abs(np.linalg.det(cell))
    radius = _mode_radius(multiplier, cell, decay, tolerance)
    reciprocal = reciprocal_cell(cell)
    n_modes = n_lattice_points(reciprocal, radius)
    if n_modes > _MAX_MODES:
        raise ValueError(
            f"the spectral sum needs about {n_modes:.2g} modes, more than {_MAX_MODES}; "
            "use a larger `smoothing`, or `image_sum`, which is fast when the smoothing is small"
        )
    modes = lattice_points(reciprocal, radius)
    # k and -k add the same: keep the half-space whose first non-zero component is positive, twice, and k = 0 once.
    first = modes[np.arange(len(modes)), np.argmax(np.abs(modes) > 1e-9 * radius, axis=1)]
    modes, weights = modes[first >= 0.0], np.where(first[first >= 0.0] > 0.0, 2.0, 1.0)
    value, derivative = multiplier(np.einsum("ma,ma->m", modes, modes))
    value, derivative = weights * value / volume, weights * derivative / volume
    # V falls with 1/V d(1/V) = -strain; k^2 falls with -2 k_a k_b; k.x does not change.
    outer = (modes[:, :, None] * modes[:, None, :]).reshape(len(modes), -1)
    strain = -value[:, None] * np.eye(len(cell)).ravel() - 2.0 * derivative[:, None] * outer
    total = KernelSum.zeros(*displacements.shape)
    chunk = max(1, _CHUNK // len(modes))
    for start in range(0, len(displacements), chunk):
        rows = slice(start, start + chunk)
        phase = displacements[rows] @ modes.T  # (n, n_modes)
        cosine = np.cos(phase)
        total.value[rows] = cosine @ value
        total.gradient[rows] = -np.sin(phase) @ (value[:, None] * modes)
        total.strain_derivative[rows] = (cosine @ strain).reshape(-1, len(cell), len(cell))
    return total
