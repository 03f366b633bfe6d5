r"""Energy, local potentials, forces and virial of points on a torus that interact through a periodic kernel (eq. 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrc_ase.potentials.images import COINCIDENT, KernelSum, nearest_image
from lrc_ase.potentials.kernels import Array, Kernel, Mixture
from lrc_ase.potentials.lattice import as_cell
from lrc_ase.potentials.torus import ewald_sum, image_sum, minimum_image, spectral_sum

Method = Literal["images", "ewald", "spectral", "minimum_image"]

_CHUNK = 30_000  # pairs at once: the arrays of one image stay within the cache of a core


@dataclass(frozen=True)
class PairSums:
    r"""Energy, local potentials, forces and virial of points, as `pair_sums` returns them.

    `energy` in eV. `local_potentials` (n_points,), :math:`U_j = \sum_{i\ne j}\psi(x_i - x_j)`, so that
    `energy` is half their sum. `forces` (n_points, d) in eV/Angstrom. `virial` (d, d) in eV, the derivative of the
    energy by a strain of points and cell together.
    """

    energy: float
    local_potentials: Array
    forces: Array
    virial: Array


def check_options(
    kernel: Kernel | Mixture, method: str, smoothing: float, tolerance: float, *, self_images: bool
) -> None:
    """Raise TypeError or ValueError for options that `pair_sums` refuses for any points."""
    if not isinstance(kernel, Kernel | Mixture):
        raise TypeError(f"`kernel` must be a Kernel or a Mixture, got {type(kernel).__name__}")
    if method not in get_args(Method):
        raise ValueError(f"`method` must be one of {', '.join(get_args(Method))}, got {method!r}")
    if not tolerance > 0.0:
        raise ValueError(f"`tolerance` must be positive, got {tolerance!r}")
    if not (math.isfinite(smoothing) and smoothing >= 0.0):
        raise ValueError(f"`smoothing` must be zero or positive and finite (Angstrom), got {smoothing!r}")
    if smoothing == 0.0 and method == "spectral":
        raise ValueError("`smoothing` must be positive with `method` 'spectral', got 0; use 'ewald' without smoothing")
    if smoothing != 0.0 and method not in ("images", "spectral"):
        raise ValueError(f"`smoothing` needs `method` 'images' or 'spectral', got {smoothing!r} with {method!r}")
    if self_images and method not in ("images", "ewald"):
        raise ValueError(f"`self_images` needs `method` 'images' or 'ewald', got {method!r}")


def pair_sums(
    positions: ArrayLike,
    cell: ArrayLike,
    kernel: Kernel | Mixture,
    *,
    method: Method = "images",
    smoothing: float = 0.0,
    tolerance: float = 1e-12,
    self_images: bool = False,
) -> PairSums:
    r"""Compute energy, local potentials, forces and virial of points on a torus.

    :math:`U = \sum_{i<j} G(x_i - x_j)` and :math:`F_j = -\partial U/\partial x_j` with G the periodic kernel (eq. 2).
    As in the paper the sum runs over distinct points. A point's own images are left out: they add to the energy the
    constant :math:`\frac{n}{2}\sum_{n\ne 0}\psi(|n|)`, which depends on the cell alone, and nothing to the forces.
    With `self_images` they are counted, and only then is the energy of a supercell a multiple of the cell's.

    Parameters
    ----------
    positions : (n_points, d) in Angstrom, anywhere; not changed.
    cell : lengths (d,) of a rectangular torus or matrix (d, d), rows as in ASE.
    kernel : free-space kernel or mixture of kernels.
    method : how G is found. "images" and "ewald" agree to the tolerance; "spectral" needs a smoothing; "minimum_image"
        is the paper's eq. 3, another potential.
    smoothing : standard deviation of the paper's Gaussian factor in Angstrom (eq. 8).
    tolerance : bound on the truncation error of each pair's value (eV) and derivatives.

    Raises ValueError or TypeError for malformed arguments and for coincident points where the kernel is singular.

    >>> from lrc_ase.potentials.kernels import Exponential
    >>> pair_sums([[0.0], [1.0]], [4.0], Exponential(mu=1.0)).forces.round(4).tolist()
    [[-0.324], [0.324]]
    """
    check_options(kernel, method, smoothing, tolerance, self_images=self_images)
    matrix = as_cell(cell)
    positions = np.asarray(positions, dtype=float)
    if positions.ndim != 2 or positions.shape[1] != len(matrix):
        raise ValueError(
            f"`positions` must have shape (n_points, {len(matrix)}) to match `cell`, got {positions.shape}"
        )
    if not np.all(np.isfinite(positions)):
        raise ValueError("`positions` must be finite, got NaN or infinity")

    def periodic(displacements: Array, *, skip_home: bool = False) -> KernelSum:
        if method == "images":
            return image_sum(
                kernel, displacements, matrix, smoothing=smoothing, tolerance=tolerance, skip_home=skip_home
            )
        if method == "ewald":
            return ewald_sum(kernel, displacements, matrix, tolerance=tolerance, skip_home=skip_home)
        if method == "spectral":
            return spectral_sum(kernel, displacements, matrix, smoothing=smoothing, tolerance=tolerance)
        return minimum_image(kernel, displacements, matrix)

    n_points, dimension = positions.shape
    singular = kernel.is_singular(dimension) and smoothing == 0.0
    local_potentials = np.zeros(n_points)
    gradients = np.zeros((n_points, dimension))
    virial = np.zeros((dimension, dimension))
    for i, j in _pair_chunks(n_points):
        displacements = positions[i] - positions[j]
        if singular:
            _refuse_coincident(displacements, matrix, i, j)
        pairs = periodic(displacements)
        local_potentials += np.bincount(i, pairs.value, n_points) + np.bincount(j, pairs.value, n_points)
        for axis in range(dimension):
            gradient = pairs.gradient[:, axis]
            gradients[:, axis] += np.bincount(i, gradient, n_points) - np.bincount(j, gradient, n_points)
        virial += pairs.strain_derivative.sum(axis=0)
    if self_images:
        self_image = periodic(np.zeros((1, dimension)), skip_home=True)
        local_potentials += self_image.value[0]
        virial += 0.5 * n_points * self_image.strain_derivative[0]
    return PairSums(0.5 * float(local_potentials.sum()), local_potentials, -gradients, virial)


def _pair_chunks(n_points: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield all pairs i < j, several rows of i at a time."""
    start = 0
    while start < n_points - 1:
        stop = min(n_points - 1, start + max(1, _CHUNK // (n_points - start)))
        i, j = np.triu_indices(stop - start, k=1, m=n_points - start)
        yield i + start, j + start
        start = stop


def _refuse_coincident(displacements: Array, cell: Array, i: NDArray[np.intp], j: NDArray[np.intp]) -> None:
    nearest = nearest_image(displacements, cell)
    squared = np.einsum("na,na->n", nearest, nearest)
    if np.any(squared < COINCIDENT**2):
        pair = int(np.argmin(squared))
        raise ValueError(
            f"`positions` {i[pair]} and {j[pair]} coincide, where the kernel is singular; "
            "separate them or use a smoothing"
        )
