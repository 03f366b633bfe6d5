"""The paper's learning problems: points on a torus, their kernel, and snapshots of forces made by the oracles.

Source: section 3.1 and 5 of doi:10.48550/arXiv.2010.05295.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lrc_ase.dataset import LabelledGraph
from lrc_ase.files.atomic import writing
from lrc_ase.potentials import Exponential, Kernel, Mixture, ScreenedCoulomb, SplitForces, jittered, pair_sums
from lrc_ase.structures.graph import Graph

__all__ = ["Problem", "Snapshots", "exponential_3d", "labelled_graphs", "screened_coulomb"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Distribution of the snapshots of an experiment: torus, kernel and separations."""

    dimension: int
    length: float
    """Side of the torus [0, L]^d, Angstrom."""
    kernel: Kernel | Mixture
    cutoff: float = 1.5
    """Interaction radius R of the short-range descriptor, Angstrom."""
    minimum_separation: float = 0.05
    """The paper's delta_min, Angstrom."""
    smoothing: float = 0.01
    """Standard deviation of the Gaussian factor of eq. 8, Angstrom; 0 for the exponential kernel."""

    @property
    def n_cells(self) -> int:
        """Return the number of unit cells along a side, with two points each; half a unit long in one dimension."""
        return round(2 * self.length) if self.dimension == 1 else round(self.length)

    @property
    def n_points(self) -> int:
        """Return the number of points of a snapshot."""
        return 2 * self.n_cells**self.dimension

    def draw(self, generator: np.random.Generator) -> tuple[Array, Array]:
        """Draw positions and forces of a new snapshot, both (n_points, d)."""
        lengths = [self.length] * self.dimension
        cells = [self.n_cells] * self.dimension
        positions = jittered(lengths, cells, minimum_separation=self.minimum_separation, generator=generator)
        return positions, self._oracle(positions)

    @cached_property
    def _oracle(self) -> Callable[[Array], Array]:
        """Return the function from positions to forces: torus distances without smoothing, else the split sum."""
        lengths = [self.length] * self.dimension
        if self.smoothing == 0:
            return lambda positions: pair_sums(positions, lengths, self.kernel, method="minimum_image").forces
        return SplitForces(lengths, self.kernel, smoothing=self.smoothing)


@dataclass(frozen=True)
class Snapshots:
    """Configurations of one problem with their forces."""

    problem: Problem
    positions: Array
    """(n_snapshots, n_points, d), Angstrom."""
    forces: Array
    """(n_snapshots, n_points, d), eV/Angstrom."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def force_scale(self) -> float:
        """Return the root mean square of the force components, eV/Angstrom."""
        return float(np.sqrt(np.mean(self.forces**2)))

    def first(self, n: int) -> Snapshots:
        """Return the first `n` snapshots."""
        return Snapshots(self.problem, self.positions[:n], self.forces[:n])

    def blocks(self, n_forces: int) -> Iterator[Snapshots]:
        """Yield consecutive parts with about `n_forces` force components each."""
        step = max(1, n_forces // self.forces[0].size)
        for start in range(0, len(self), step):
            part = slice(start, start + step)
            yield Snapshots(self.problem, self.positions[part], self.forces[part])

    def save(self, path: Path) -> None:
        """Write a file that `load` reads."""
        with writing(path) as file:
            np.savez(file, positions=self.positions, forces=self.forces)

    @classmethod
    def load(cls, path: Path, problem: Problem) -> Snapshots:
        """Read a file that `save` wrote."""
        with np.load(path) as arrays:
            return cls(problem, arrays["positions"], arrays["forces"])


def screened_coulomb(
    dimension: int, length: float, mus: Sequence[float], weights: Sequence[float] = (1.0,), *, smoothing: float = 0.01
) -> Problem:
    """Return the problem of weighted screened Coulomb kernels in one or two dimensions, solved spectrally (eq. 8)."""
    terms = tuple((weight, ScreenedCoulomb(mu=mu)) for weight, mu in zip(weights, mus, strict=True))
    return Problem(dimension, length, Mixture(terms), smoothing=smoothing)


def exponential_3d(mu: float) -> Problem:
    """Return the problem of the exponential kernel of the torus distance (eqs. 3-5) on [0, 3]^3."""
    return Problem(3, 3.0, Exponential(mu), cutoff=1.0, minimum_separation=0.1, smoothing=0.0)


def labelled_graphs(snapshots: Snapshots) -> list[LabelledGraph]:
    """Convert snapshots to graphs for the models and the training loop, labelled with forces alone."""
    return [
        _labelled(torch.from_numpy(positions), torch.from_numpy(forces), snapshots.problem)
        for positions, forces in zip(snapshots.positions, snapshots.forces, strict=True)
    ]


def _labelled(positions: torch.Tensor, forces: torch.Tensor, problem: Problem) -> LabelledGraph:
    nan, d = float("nan"), problem.dimension
    return LabelledGraph(
        graph=_graph(positions, problem),
        energy=torch.tensor([nan], dtype=torch.float64),
        forces=forces,
        stress=torch.full((1, d, d), nan, dtype=torch.float64),
        weight=torch.ones(1, dtype=torch.float64),
    )


def _graph(positions: torch.Tensor, problem: Problem) -> Graph:
    n_points, d = positions.shape
    points = positions.numpy()
    pairs = cKDTree(points, boxsize=problem.length).query_pairs(problem.cutoff, output_type="ndarray")
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    counts = np.bincount(first, minlength=n_points)
    column = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    neighbors = np.tile(np.arange(n_points)[:, None], (1, max(1, counts.max())))
    shifts = np.zeros((*neighbors.shape, d))
    neighbors[first, column] = second
    shifts[first, column] = -np.round((points[second] - points[first]) / problem.length)
    return Graph(
        positions=positions,
        species=torch.zeros(n_points, dtype=torch.int64),
        structure=torch.zeros(n_points, dtype=torch.int64),
        cell=problem.length * torch.eye(d, dtype=torch.float64)[None],
        pbc=torch.ones(1, d, dtype=torch.bool),
        charge=torch.zeros(1, dtype=torch.float64),
        neighbors=torch.from_numpy(neighbors),
        shifts=torch.from_numpy(shifts),
        neighbor_mask=torch.from_numpy(np.arange(neighbors.shape[1]) < counts[:, None]),
    )
