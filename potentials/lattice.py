"""Periodic cells of one, two or three dimensions: lattice points within a radius, wrapping, truncation radii."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from lrc_ase.potentials.kernels import Array


def as_cell(cell: ArrayLike) -> Array:
    """Return the cell matrix (d, d), rows as in ASE, for a matrix or the lengths (d,) of a rectangular torus.

    Raises ValueError when the shape is another, an entry is not finite, or the rows span no volume.

    >>> as_cell([2.0, 3.0]).tolist()
    [[2.0, 0.0], [0.0, 3.0]]
    """
    matrix: Array = np.array(cell, dtype=np.float64)
    if matrix.ndim == 1:
        matrix = np.diag(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] not in (1, 2, 3):
        raise ValueError(
            f"`cell` must be lengths (d,) or a matrix (d, d) with d = 1, 2 or 3, got shape {np.shape(cell)}"
        )
    if not np.all(np.isfinite(matrix)):
        raise ValueError(f"`cell` must be finite, got {matrix.tolist()}")
    volume = abs(np.linalg.det(matrix))
    if volume <= 1e-12 * np.prod(np.linalg.norm(matrix, axis=1)) or volume == 0.0:
        raise ValueError(f"`cell` must have a volume, got the singular cell {matrix.tolist()}")
    return matrix


def reciprocal_cell(cell: Array) -> Array:
    """Return the reciprocal vectors (d, d) as rows, 2 pi times the inverse transpose of `cell` (d, d)."""
    return np.asarray(2.0 * math.pi * np.linalg.inv(cell).T, dtype=np.float64)


def lattice_points(cell: Array, radius: float) -> Array:
    """Return the lattice vectors (n, d) no longer than `radius`, including zero, shortest first."""
    # Planes of constant n_c are 1 / |row c of the inverse transpose| apart, which bounds n_c.
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell).T, axis=1)
    counts = np.floor(radius / heights + 1e-12).astype(int)
    axes = [np.arange(-count, count + 1) for count in counts]
    indices = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(cell))
    vectors = indices @ cell
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.argsort(lengths, kind="stable")
    return vectors[order[lengths[order] <= radius]]


def n_lattice_points(cell: Array, radius: float) -> float:
    """Estimate the number of lattice vectors no longer than `radius`: volume of the ball over volume of the cell."""
    return ball_volume(radius, len(cell)) / abs(float(np.linalg.det(cell)))


def ball_volume(radius: float, dimension: int) -> float:
    """Return the volume of a ball in `dimension` = 1, 2, 3 dimensions: 2 r, pi r^2, 4/3 pi r^3."""
    return {1: 2.0, 2: math.pi, 3: 4.0 * math.pi / 3.0}[dimension] * radius**dimension


def half_diagonal(cell: Array) -> float:
    """Return the length of the longest displacement that `wrap` returns: half the longest diagonal of the cell."""
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=len(cell))))
    return float(np.linalg.norm(corners @ cell, axis=1).max())


def wrap(displacements: Array, cell: Array) -> Array:
    """Move displacements (n, d) by lattice vectors to fractional coordinates in [-1/2, 1/2].

    This is the nearest image only where the rows of `cell` are orthogonal.
    """
    fractions = displacements @ np.linalg.inv(cell)
    return (fractions - np.round(fractions)) @ cell


def truncation_radius(bound: Callable[[Array], Array], cell: Array, tolerance: float, start: float) -> float:
    r"""Return the radius R beyond which all images of a displacement together contribute less than `tolerance`.

    For a wrapped displacement, :math:`|x| \le \rho`, every image left out has :math:`|x+n| > R` and
    :math:`|x+n| \ge |n|-\rho`. At most :math:`M(r) = B_d\,(r+2\rho)^d/V` lattice vectors are shorter than
    :math:`r+\rho`, for the cells around them do not overlap. With a falling `bound` f the tail is therefore at most

    .. math:: -\int_R^\infty f'(r)\,M(r)\,dr = f(R)\,M(R) + \int_R^\infty f(r)\,M'(r)\,dr ,

    taken here as an upper sum. `bound` must fall from `start` on, and in the end at least exponentially.
    """
    dimension, reach = len(cell), half_diagonal(cell)
    density = n_lattice_points(cell, 1.0)

    def most_images(radii: Array) -> Array:
        return density * (radii + 2.0 * reach) ** dimension

    end = 2.0 * start
    # What is left beyond the end is then some thousandths of the tolerance.
    while (bound(np.array([end])) * most_images(np.array([end])))[0] > 1e-3 * tolerance:
        end *= 1.3
    radii = np.linspace(start, end, 401)
    heights, counts = bound(radii), most_images(radii)
    beyond = np.append(np.cumsum((heights[:-1] * np.diff(counts))[::-1])[::-1], 0.0)
    return float(radii[np.argmax(heights * counts + beyond <= tolerance)])
