r"""Random points on a rectangular torus with a minimum separation, and snapshots of energy and forces made from them.

The paper (section 3.1, "Sampling") draws points at random such that no two are closer than delta_min, which keeps
them off the singularity. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from lrc_ase.potentials.kernels import Array, Kernel, Mixture
from lrc_ase.potentials.lattice import ball_volume
from lrc_ase.potentials.pairs import Method, pair_sums

_MAX_TRIES = 1000  # candidates per point


@dataclass(frozen=True)
class Snapshot:
    """One configuration: `positions` and `forces`, both (n_points, d), and `energy`; Angstrom, eV/Angstrom, eV."""

    positions: Array
    energy: float
    forces: Array


def random_points(
    n_points: int, lengths: Sequence[float], *, minimum_separation: float, generator: np.random.Generator
) -> Array:
    """Draw points (n_points, d) uniformly on the torus; redraw each one until it is far enough from all before it.

    This is random sequential addition: each new point is uniform over the room that is left.

    Parameters
    ----------
    n_points : number of points.
    lengths : (d,) sides of the torus in Angstrom.
    minimum_separation : smallest torus distance between two points (the paper's delta_min), in Angstrom.
    generator : source of randomness; the same state gives the same points.

    Raises ValueError when the arguments are malformed or the points do not fit, for certain or after 1000 candidates
    per point.

    >>> points = random_points(4, [2.0, 2.0], minimum_separation=0.5, generator=np.random.default_rng(0))
    >>> points.shape
    (4, 2)
    """
    box = _checked_box(lengths, minimum_separation)
    if n_points < 0:
        raise ValueError(f"`n_points` must not be negative, got {n_points}")
    _refuse_overfull(n_points, box, minimum_separation)
    points = np.empty((0, len(box)))
    n_tried = 0
    while len(points) < n_points:
        if n_tried >= _MAX_TRIES * n_points:
            raise _no_room(len(points), n_points, box, minimum_separation)
        # Batches are candidates drawn in advance, judged in order; the surplus of the last one is dropped.
        n_candidates = n_points - len(points) + 8
        n_tried += n_candidates
        candidates = np.concatenate([points, _inside(generator.random((n_candidates, len(box))) * box, box)])
        points = candidates[_separated(candidates, box, minimum_separation)][:n_points]
    return points


def jittered(
    lengths: Sequence[float],
    n_cells: Sequence[int],
    *,
    minimum_separation: float,
    generator: np.random.Generator,
    points_per_cell: int = 2,
) -> Array:
    """Draw points (n_points, d), the same number in every cell of a regular grid, each uniform within its cell.

    More even than `random_points`; two per cell are what the paper's data hold. A point is redrawn within its cell
    until it keeps its distance from the points already placed. Points come ordered by cell.

    Parameters
    ----------
    lengths : (d,) sides of the torus in Angstrom.
    n_cells : (d,) number of grid cells per direction; n_points = points_per_cell * prod(n_cells).
    minimum_separation, generator : as in `random_points`.

    Raises ValueError as `random_points`.

    >>> jittered([2.0], [4], minimum_separation=0.05, generator=np.random.default_rng(0)).shape
    (8, 1)
    """
    box = _checked_box(lengths, minimum_separation)
    if len(n_cells) != len(box) or any(n < 1 for n in n_cells):
        raise ValueError(f"`n_cells` must be {len(box)} positive numbers to match `lengths`, got {tuple(n_cells)}")
    if points_per_cell < 1:
        raise ValueError(f"`points_per_cell` must be positive, got {points_per_cell}")
    corners = np.stack(np.meshgrid(*(np.arange(n) for n in n_cells), indexing="ij"), axis=-1).reshape(-1, len(box))
    corners = np.repeat(corners, points_per_cell, axis=0)  # (n_points, d), in units of a grid cell
    n_points = len(corners)
    _refuse_overfull(n_points, box, minimum_separation)
    points = np.empty((n_points, len(box)))
    placed = np.zeros(n_points, dtype=bool)
    for _ in range(_MAX_TRIES):
        missing = np.flatnonzero(~placed)
        jitter = generator.random((len(missing), len(box)))
        candidates = _inside((corners[missing] + jitter) * (box / np.asarray(n_cells)), box)
        kept = _separated(np.concatenate([points[placed], candidates]), box, minimum_separation)[placed.sum() :]
        points[missing[kept]] = candidates[kept]
        placed[missing[kept]] = True
        if placed.all():
            return points
    raise _no_room(int(placed.sum()), n_points, box, minimum_separation)


def snapshots(
    sampler: Callable[[], Array],
    n_snapshots: int,
    cell: ArrayLike,
    kernel: Kernel | Mixture,
    *,
    method: Method = "images",
    smoothing: float = 0.0,
    tolerance: float = 1e-12,
) -> Iterator[Snapshot]:
    """Yield snapshots: points from `sampler`, energy and forces from `pair_sums`.

    >>> from functools import partial
    >>> from lrc_ase.potentials.kernels import ScreenedCoulomb
    >>> generator = np.random.default_rng(0)
    >>> sampler = partial(jittered, [5.0], [10], minimum_separation=0.05, generator=generator)
    >>> [snapshot.forces.shape for snapshot in snapshots(sampler, 2, [5.0], ScreenedCoulomb(mu=0.5))]
    [(20, 1), (20, 1)]
    """
    for _ in range(n_snapshots):
        positions = sampler()
        sums = pair_sums(positions, cell, kernel, method=method, smoothing=smoothing, tolerance=tolerance)
        yield Snapshot(positions, sums.energy, sums.forces)


def _separated(points: Array, box: Array, minimum_separation: float) -> NDArray[np.bool_]:
    """Return a mask of the points (n, d) to keep: in order, each that is not too close to an earlier kept one."""
    kept = np.ones(len(points), dtype=bool)
    if minimum_separation == 0.0 or len(points) < 2:
        return kept
    # The tree compares with <=; the separation itself is allowed, and the tree's rounding is not ours.
    pairs = cKDTree(points, boxsize=box).query_pairs(minimum_separation, output_type="ndarray")  # (n_pairs, 2), i < j
    for i, j in pairs[np.argsort(pairs[:, 1], kind="stable")]:
        if kept[i]:  # final, for every pair that ends at i came before
            kept[j] = False
    return kept


def _inside(points: Array, box: Array) -> Array:
    # The product of a number below 1 and a length may round up to the length, which the tree refuses.
    return np.minimum(points, np.nextafter(box, 0.0))


def _checked_box(lengths: Sequence[float], minimum_separation: float) -> Array:
    box = np.asarray(lengths, dtype=float)
    if box.ndim != 1 or len(box) not in (1, 2, 3) or not np.all(np.isfinite(box)) or not np.all(box > 0.0):
        raise ValueError(f"`lengths` must be one to three positive lengths (Angstrom), got {lengths!r}")
    if not (math.isfinite(minimum_separation) and minimum_separation >= 0.0):
        raise ValueError(f"`minimum_separation` must be zero or positive and finite, got {minimum_separation!r}")
    return box


def _refuse_overfull(n_points: int, box: Array, minimum_separation: float) -> None:
    """Raise an error if balls of half the separation have more volume than the torus."""
    if n_points > 1 and n_points * ball_volume(0.5 * minimum_separation, len(box)) > np.prod(box):
        raise _no_room(0, n_points, box, minimum_separation)


def _no_room(n_placed: int, n_points: int, box: Array, minimum_separation: float) -> ValueError:
    return ValueError(
        f"could place {n_placed} of {n_points} points with `minimum_separation` {minimum_separation} "
        f"in a box of {box.tolist()}; use fewer points, a larger box or a smaller separation"
    )
