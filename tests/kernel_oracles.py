"""Kernels and sums over images with NumPy and SciPy alone: what the layer is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.interpolate import BSpline
from scipy.special import erf, erfc, gammainc, k0

Radial = Callable[[np.ndarray], np.ndarray]


def yukawa(screening: float, smearing: float) -> Radial:
    """Screened Coulomb kernel of a Gaussian cloud, from the formula in Green's function tables."""

    def radial(r: np.ndarray) -> np.ndarray:
        near = np.minimum(r, 36 / screening)  # beyond, exp(-36) and no overflow
        plus = np.exp(screening * near) * erfc((screening * smearing + near / smearing) / math.sqrt(2))
        minus = np.exp(-screening * near) * erfc((screening * smearing - near / smearing) / math.sqrt(2))
        return math.exp(0.5 * (screening * smearing) ** 2) * (minus - plus) / (2 * near) * (r <= 36 / screening)

    return radial


def exponential(decay: float, smearing: float) -> Radial:
    """Smeared exponential: minus the derivative of the smeared Yukawa kernel by its screening, complex step free."""
    step = 1e-3

    def radial(r: np.ndarray) -> np.ndarray:
        values = [yukawa(decay + n * step, smearing)(np.minimum(r, 30 / decay)) for n in (-3, -2, -1, 1, 2, 3)]
        slope = (values[5] - values[0]) / 60 - 3 * (values[4] - values[1]) / 20 + 3 * (values[3] - values[2]) / 4
        return -slope / step * (r <= 30 / decay)

    return radial


def inverse_power(power: float, smearing: float) -> Radial:
    return lambda r: gammainc(power / 2, r**2 / (2 * smearing**2)) / r**power


def coulomb(smearing: float) -> Radial:
    return lambda r: erf(r / (math.sqrt(2) * smearing)) / r


def gaussian_sum(widths: Sequence[float], amplitudes: Sequence[float]) -> Radial:
    return lambda r: sum(a * np.exp(-0.5 * (r / w) ** 2) for w, a in zip(widths, amplitudes, strict=True))


def spline_transform(coefficients: Sequence[float], smearing: float, k_max: float) -> Radial:
    """The radial spline's transform, assembled from SciPy's B-splines on an evenly continued set of knots."""
    n = len(coefficients)
    spacing = k_max / (n + 1)
    even = np.concatenate([np.asarray(coefficients)[:0:-1], coefficients])  # centers -(n - 1) ... n - 1
    padded = np.pad(even, 3)  # SciPy takes a spline as defined where four of its basis functions overlap
    knots = spacing * np.arange(-(n - 1) - 5, n + 5)
    spline = BSpline(knots, padded, 3, extrapolate=False)
    return lambda k: np.nan_to_num(spline(k)) * np.exp(-0.5 * (smearing * k) ** 2)


def from_transform(transform: Radial, k_max: float, n_points: int = 4000) -> Radial:
    """Kernel in three dimensions from its transform by a dense Simpson rule."""
    k = np.linspace(0, k_max, 2 * n_points + 1)
    weights = np.full(len(k), 2.0)
    weights[1::2] = 4.0
    weights[0] = weights[-1] = 1.0
    density = transform(k) * k**2 * weights * (k[1] / 3) / (2 * math.pi**2)
    return lambda r: (np.sinc(np.multiply.outer(r, k) / math.pi) * density).sum(axis=-1)


def image_sum(
    radial: Radial,
    positions: np.ndarray,
    weights: np.ndarray,
    cell: np.ndarray,
    pbc: Sequence[bool],
    reach: float,
    tail: float = 0.0,
) -> np.ndarray:
    """Field at every atom from all images closer than `reach`, without the atom itself.

    `tail` is the integral of the kernel over the periodic directions beyond `reach`, per cell: added as if the images
    there were smeared out evenly.
    """
    periodic = [axis for axis in range(3) if pbc[axis]]
    heights = 1 / np.linalg.norm(np.linalg.pinv(cell[periodic]), axis=0) if periodic else []
    counts = [math.ceil((reach + 30) / height) for height in heights]
    grids = np.meshgrid(*[np.arange(-count, count + 1) for count in counts], indexing="ij")
    shifts = np.stack([grid.ravel() for grid in grids], axis=-1) @ cell[periodic] if periodic else np.zeros((1, 3))
    field = np.zeros(len(positions))
    for i, at in enumerate(positions):
        for j, source in enumerate(positions):
            r = np.linalg.norm(at - source + shifts, axis=1)
            near = r[(r < reach) & (r > 1e-9)]
            field[i] += weights[j] * (radial(near).sum() + tail)
    return field


def coulomb_wire(separation: np.ndarray, length: float) -> float:
    """Potential of point charges every `length` along x, zero at 1 Angstrom from an even line charge: a Fourier sum."""
    rho = math.hypot(separation[1], separation[2])
    m = np.arange(1, 60)
    waves = k0(2 * math.pi * m * rho / length) * np.cos(2 * math.pi * m * separation[0] / length)
    return float(-2 * math.log(rho) / length + 4 / length * waves.sum())


def coulomb_slab(separation: np.ndarray, cell: np.ndarray) -> float:
    """Potential of point charges on the lattice of the first two rows of `cell`, in the xy plane, as a Fourier sum."""
    area = abs(cell[0, 0] * cell[1, 1] - cell[0, 1] * cell[1, 0])
    reciprocal = 2 * math.pi * np.linalg.inv(cell[:2, :2]).T
    m = np.stack(np.meshgrid(*[np.arange(-40, 41)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    waves = m[np.any(m != 0, axis=1)] @ reciprocal
    k = np.linalg.norm(waves, axis=1)
    height = abs(separation[2])
    return float(2 * math.pi / area * (-height + (np.exp(-k * height) * np.cos(waves @ separation[:2]) / k).sum()))
