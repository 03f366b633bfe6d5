"""Sums over images in real space, and the value that every periodic sum returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrc_ase.potentials.kernels import Array
from lrc_ase.potentials.lattice import half_diagonal, lattice_points, n_lattice_points, wrap

COINCIDENT = 1e-10  # Angstrom; closer points count as one
_MAX_IMAGES = 2_000_000
_BLOCK = 20_000  # vectors at once: their arrays stay within the cache of a core

# Distances (n,) to a kernel's value and its derivative divided by the distance, both (n,).
RadialFunction = Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True)
class KernelSum:
    r"""Value and derivatives of a periodic kernel at n displacements.

    `value` (n,) in eV; `gradient` (n, d) by the displacement; `strain_derivative` (n, d, d), the symmetric derivative
    by a strain that deforms displacement and cell together, :math:`\sum_n \psi'(r)\, r_a r_b / r`.
    """

    value: Array
    gradient: Array
    strain_derivative: Array

    @classmethod
    def zeros(cls, n: int, dimension: int) -> KernelSum:
        """Return an empty sum at `n` displacements."""
        return cls(np.zeros(n), np.zeros((n, dimension)), np.zeros((n, dimension, dimension)))

    def __add__(self, other: KernelSum) -> KernelSum:
        return KernelSum(
            self.value + other.value,
            self.gradient + other.gradient,
            self.strain_derivative + other.strain_derivative,
        )

    def scaled(self, weight: float) -> KernelSum:
        """Return the sum multiplied by `weight`."""
        return KernelSum(weight * self.value, weight * self.gradient, weight * self.strain_derivative)


def single_image(radial: RadialFunction, vectors: Array) -> KernelSum:
    """Evaluate the kernel at `vectors` (n, d), without images."""
    value, slope = radial(np.linalg.norm(vectors, axis=1))
    gradient = slope[:, None] * vectors
    return KernelSum(value, gradient, gradient[:, :, None] * vectors[:, None, :])


def all_images(
    radial: RadialFunction, displacements: Array, cell: Array, radius: float, *, singular: bool, skip_home: bool
) -> KernelSum:
    """Sum the kernel over the images of `displacements` (n, d) within `radius`.

    Raises ValueError where the kernel is `singular` and an image of the displacement is zero, and when there would be
    more than two million images.
    """
    wrapped = wrap(displacements, cell)
    n, d = wrapped.shape
    total = KernelSum.zeros(n, d)
    n_images = n_lattice_points(cell, radius + half_diagonal(cell))
    if n_images > _MAX_IMAGES:
        raise ValueError(
            f"the sum over images needs about {n_images:.2g} images, more than {_MAX_IMAGES}; "
            "use `ewald_sum` (method 'ewald'), which does not grow as `mu` becomes small"
        )
    images = lattice_points(cell, radius + half_diagonal(cell))
    if skip_home:
        images = images[1:]
    n_at_once = max(1, _BLOCK // max(1, n))
    for start in range(0, len(images), n_at_once):
        vectors = (images[start : start + n_at_once, None, :] + wrapped).reshape(-1, d)  # (n_at_once * n, d)
        squared = np.einsum("na,na->n", vectors, vectors)
        if singular:
            refuse_coincident(squared, n)
        within = np.flatnonzero(squared <= radius**2)
        if len(within):
            part, owner = single_image(radial, vectors[within]), within % n
            total.value[:] += np.bincount(owner, part.value, n)
            for a in range(d):
                total.gradient[:, a] += np.bincount(owner, part.gradient[:, a], n)
                for b in range(d):
                    total.strain_derivative[:, a, b] += np.bincount(owner, part.strain_derivative[:, a, b], n)
    return total


def nearest_image(displacements: Array, cell: Array) -> Array:
    """Return the shortest image (n, d) of each displacement, for any cell."""
    wrapped = wrap(displacements, cell)
    gram = cell @ cell.T
    if np.allclose(gram, np.diag(np.diag(gram)), rtol=0.0, atol=1e-12 * gram.max()):
        return wrapped  # wrapping is exact in a rectangular torus
    nearest, shortest = wrapped.copy(), np.einsum("na,na->n", wrapped, wrapped)
    # |x| <= rho, hence an image at least as near has |n| <= 2 rho.
    for image in lattice_points(cell, 2.0 * half_diagonal(cell))[1:]:
        squared = np.einsum("na,na->n", wrapped + image, wrapped + image)
        nearer = squared < shortest
        nearest[nearer], shortest[nearer] = wrapped[nearer] + image, squared[nearer]
    return nearest


def refuse_coincident(squared: Array, n: int) -> None:
    """Raise ValueError if any of the `squared` distances, of `n` displacements in turn, is practically zero."""
    if np.any(squared < COINCIDENT**2):
        raise ValueError(
            f"displacement {int(np.argmin(squared)) % n} is a lattice vector, where the kernel is singular; "
            "separate the points or use a smoothing"
        )
