r"""Kernels made periodic: :math:`G(x) = \sum_n \psi(|x + n|)` over all lattice vectors n, and the torus distance.

Three independent ways to G, each to a stated tolerance, for any cell in d = 1, 2, 3:

- `image_sum`: in real space, image by image, until a bound on the tail is below the tolerance;
- `spectral_sum`: in Fourier space (paper, eq. 8) with the Gaussian smoothing :math:`\chi(k) = e^{-\sigma^2 k^2/2}`;
- `ewald_sum`: without smoothing, a fast real-space sum plus a fast Fourier sum; only lattices are shared.

`minimum_image` is another potential: the kernel of the distance to the nearest image alone (eq. 3, "the Euclidean
norm over the torus"). Source: doi:10.48550/arXiv.2010.05295, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from lrc_ase.potentials.heat import gaussian_integral, late_fourier
from lrc_ase.potentials.images import (
    KernelSum,
    RadialFunction,
    all_images,
    nearest_image,
    refuse_coincident,
    single_image,
)
from lrc_ase.potentials.kernels import Array, Kernel, Mixture
from lrc_ase.potentials.lattice import as_cell, truncation_radius, wrap
from lrc_ase.potentials.modes import Multiplier, all_modes

_SMOOTHING_REACH = 9.0  # beyond 9 sigma a Gaussian's convolution differs by erfc(9 / sqrt 2) = 2e-19


def image_sum(
    kernel: Kernel | Mixture,
    displacements: ArrayLike,
    cell: ArrayLike,
    *,
    smoothing: float = 0.0,
    tolerance: float = 1e-12,
    skip_home: bool = False,
) -> KernelSum:
    r"""Evaluate a periodic kernel by summing images in real space, :math:`G(x) = \sum_n \psi(|x + n|)`.

    Parameters
    ----------
    kernel : the free-space kernel.
    displacements : (n, d) in Angstrom, wrapped or not.
    cell : lengths (d,) of a rectangular torus or matrix (d, d), rows as in ASE.
    smoothing : standard deviation sigma (Angstrom) of a Gaussian to convolve the kernel with; screened Coulomb only.
    tolerance : bound on what the images left out add to a value, a gradient or a strain derivative, per term.
    skip_home : leave out the term n = 0 of the wrapped displacement; at a displacement of zero the rest is the
        interaction of a point with its own images.

    Raises ValueError for malformed or non-finite arguments, a displacement that is a lattice vector where the kernel
    is singular, a smoothing of the exponential kernel, and more than two million images.

    >>> from lrc_ase.potentials.kernels import Exponential
    >>> result = image_sum(Exponential(mu=1.0), [[1.0]], [5.0])
    >>> bool(np.isclose(result.value[0], np.cosh(1.5) / np.sinh(2.5)))
    True
    """
    cell, displacements = _checked(displacements, cell, tolerance, smoothing)
    total = KernelSum.zeros(*displacements.shape)
    for weight, term in kernel.terms:
        radial = _smoothed(term, len(cell), smoothing) if smoothing else _bare(term, len(cell))
        radius = _image_radius(term, smoothing, cell, tolerance)
        singular = term.is_singular(len(cell)) and not smoothing
        part = all_images(radial, displacements, cell, radius, singular=singular, skip_home=skip_home)
        total += part.scaled(weight)
    return total


def spectral_sum(
    kernel: Kernel | Mixture,
    displacements: ArrayLike,
    cell: ArrayLike,
    *,
    smoothing: float,
    tolerance: float = 1e-12,
) -> KernelSum:
    r"""Evaluate a periodic kernel smoothed by a Gaussian, mode by mode (eq. 8).

    :math:`G_\sigma(x) = \frac1V \sum_m \hat\psi(k_m)\, e^{-\sigma^2 k_m^2/2} \cos(k_m\cdot x)`, arguments as
    `image_sum`; `smoothing` is sigma and must be positive. All modes up to the tolerance are summed at every
    displacement, so this is the check and not the fast way: its cost grows as (L / sigma)^d.

    Raises ValueError as `image_sum`, and when more than two million modes would be needed.
    """
    cell, displacements = _checked(displacements, cell, tolerance, smoothing)
    if smoothing == 0.0:
        raise ValueError("`smoothing` must be positive in a spectral sum, got 0; use `ewald_sum` without smoothing")
    total = KernelSum.zeros(*displacements.shape)
    for weight, term in kernel.terms:
        multiplier = _smoothed_multiplier(term, len(cell), smoothing)
        total += all_modes(multiplier, displacements, cell, 0.5 * smoothing**2, tolerance).scaled(weight)
    return total


def ewald_sum(
    kernel: Kernel | Mixture,
    displacements: ArrayLike,
    cell: ArrayLike,
    *,
    tolerance: float = 1e-12,
    split: float | None = None,
    skip_home: bool = False,
) -> KernelSum:
    r"""Evaluate a periodic kernel without smoothing, by an Ewald split of its heat-kernel integral at time `split`.

    The early part (:math:`t < \eta`) is summed over images, the late part over modes (`lrc_ase.potentials.heat`); for
    screened Coulomb in 3D these are the familiar erfc and :math:`e^{-\eta(k^2+\mu^2)}/(k^2+\mu^2)`. The result does not
    depend on `split` (Angstrom^2, by default from the volume), which is itself a test. Other arguments as `image_sum`.

    Faster than `image_sum` where the kernel is long: in 3D once 1 / mu exceeds about a fifth of the cell.
    """
    cell, displacements = _checked(displacements, cell, tolerance, 0.0)
    dimension = len(cell)
    if split is None:
        # The self-dual time of the lattice, a third of the reach: images cost more than modes here.
        split = abs(np.linalg.det(cell)) ** (2.0 / dimension) / (9.0 * 4.0 * math.pi)
    if not (math.isfinite(split) and split > 0.0):
        raise ValueError(f"`split` must be positive and finite (Angstrom^2), got {split!r}")
    total = KernelSum.zeros(*displacements.shape)
    for weight, term in kernel.terms:
        early = _early(term, dimension, split)
        start = max(1.0 / term.mu, math.sqrt(2.0 * split))
        radius = truncation_radius(_bound(early), cell, tolerance, start)
        singular = term.is_singular(dimension)
        part = all_images(early, displacements, cell, radius, singular=singular, skip_home=skip_home)
        part += all_modes(_late_multiplier(term, dimension, split), displacements, cell, split, tolerance)
        if skip_home:
            part += single_image(_late(term, dimension, split), wrap(displacements, cell)).scaled(-1.0)
        total += part.scaled(weight)
    return total


def minimum_image(kernel: Kernel | Mixture, displacements: ArrayLike, cell: ArrayLike) -> KernelSum:
    r"""Evaluate the kernel at the torus distance, :math:`\psi(\min_n |x + n|)` (eq. 3): only the nearest image.

    Continuous, with a kink where two images are equally near: forces jump there, by an amount of order
    :math:`\psi'(L/2)`, and the strain derivative is that of the branch taken. Arguments as `image_sum`.

    >>> from lrc_ase.potentials.kernels import Exponential
    >>> minimum_image(Exponential(mu=1.0), [[4.0]], [5.0]).value.round(4).tolist()
    [0.3679]
    """
    cell, displacements = _checked(displacements, cell, 1.0, 0.0)
    dimension = len(cell)
    nearest = nearest_image(displacements, cell)
    if kernel.is_singular(dimension):
        refuse_coincident(np.einsum("na,na->n", nearest, nearest), len(nearest))
    total = KernelSum.zeros(*displacements.shape)
    for weight, term in kernel.terms:
        total += single_image(_bare(term, dimension), nearest).scaled(weight)
    return total


def torus_distance(displacements: ArrayLike, cell: ArrayLike) -> Array:
    """Return the distance (n,) to the nearest image of each displacement (n, d), for any cell.

    >>> torus_distance([[4.0, 1.0]], [5.0, 5.0]).round(12).tolist() == [round(2**0.5, 12)]
    True
    """
    cell, displacements = _checked(displacements, cell, 1.0, 0.0)
    return np.linalg.norm(nearest_image(displacements, cell), axis=1)


def _bare(kernel: Kernel, dimension: int) -> RadialFunction:
    def radial(distance: Array) -> tuple[Array, Array]:
        apart = distance > 0.0
        # The slope at zero multiplies a zero vector: any finite number will do there.
        slope = np.divide(kernel.derivative(distance, dimension), distance, where=apart, out=np.zeros_like(distance))
        return kernel.value(distance, dimension), slope

    return radial


def _smoothed(kernel: Kernel, dimension: int, smoothing: float) -> RadialFunction:
    r"""Convolve the free-space screened Coulomb kernel with a Gaussian of standard deviation :math:`\sigma`.

    The result is :math:`e^{\mu^2\eta}` times the part of the kernel after the time :math:`\eta=\sigma^2/2`.
    """
    if kernel.fourier_form(dimension)[1] != 1.0:
        raise ValueError(
            f"`smoothing` in real space needs a screened Coulomb kernel, got {kernel!r}; "
            "use smoothing=0, or `spectral_sum`"
        )
    time = 0.5 * smoothing**2
    scale = math.exp(kernel.mu**2 * time)
    bare = _bare(kernel, dimension)

    def radial(distance: Array) -> tuple[Array, Array]:
        value, slope = np.empty_like(distance), np.empty_like(distance)
        near = distance < _SMOOTHING_REACH * smoothing
        value[near], slope[near] = gaussian_integral(kernel, distance[near], dimension, lower=time)
        value[~near], slope[~near] = bare(distance[~near])
        return scale * value, scale * slope

    return radial


def _early(kernel: Kernel, dimension: int, split: float) -> RadialFunction:
    return lambda distance: gaussian_integral(kernel, distance, dimension, upper=split)


def _late(kernel: Kernel, dimension: int, split: float) -> RadialFunction:
    return lambda distance: gaussian_integral(kernel, distance, dimension, lower=split)


def _bound(radial: RadialFunction) -> Callable[[Array], Array]:
    """Return a function of the distance that bounds value, derivative and strain derivative."""

    def bound(distance: Array) -> Array:
        value, slope = radial(distance)
        return np.maximum(np.abs(value), np.abs(slope) * np.maximum(distance, distance**2))

    return bound


def _image_radius(kernel: Kernel, smoothing: float, cell: Array, tolerance: float) -> float:
    dimension = len(cell)
    scale = math.exp(0.5 * (kernel.mu * smoothing) ** 2)
    bare = _bound(_bare(kernel, dimension))
    start = max(1.0 / kernel.mu, _SMOOTHING_REACH * smoothing)
    return truncation_radius(bare, cell, tolerance / scale, start)


def _smoothed_multiplier(kernel: Kernel, dimension: int, smoothing: float) -> Multiplier:
    def multiplier(k_squared: Array) -> tuple[Array, Array]:
        chi = np.exp(-0.5 * smoothing**2 * k_squared)
        value = kernel.fourier(k_squared, dimension) * chi
        return value, kernel.fourier_derivative(k_squared, dimension) * chi - 0.5 * smoothing**2 * value

    return multiplier


def _late_multiplier(kernel: Kernel, dimension: int, split: float) -> Multiplier:
    return lambda k_squared: late_fourier(kernel, k_squared, dimension, split)


def _checked(displacements: ArrayLike, cell: ArrayLike, tolerance: float, smoothing: float) -> tuple[Array, Array]:
    matrix, array = as_cell(cell), np.asarray(displacements, dtype=float)
    if array.ndim != 2 or array.shape[1] != len(matrix):
        raise ValueError(f"`displacements` must have shape (n, {len(matrix)}) to match `cell`, got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise ValueError("`displacements` must be finite, got NaN or infinity")
    if not tolerance > 0.0:
        raise ValueError(f"`tolerance` must be positive, got {tolerance!r}")
    if not (math.isfinite(smoothing) and smoothing >= 0.0):
        raise ValueError(f"`smoothing` must be zero or positive and finite (Angstrom), got {smoothing!r}")
    return matrix, array
