"""Core repulsion, and the distances that the descriptor sees, with their derivatives, compiled by Numba."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lrc_ase.compiled.compilation import PRECISIONS, compiled
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.models.baselines.zbl import EXPONENTS, SHARES, SOFTNESS, CoreRepulsion
from lrc_ase.structures.graph import Graph

__all__ = ["CoreRepulsionStep"]


class CoreRepulsionStep:
    """Vectors that the descriptor sees and energies of `lrc_ase.models.baselines.zbl`, and their derivatives."""

    def __init__(self, part: CoreRepulsion) -> None:
        tables = part.ranges.numpy(), part.strengths.numpy(), part.inverse_lengths.numpy()
        self._tables = *tables, part.longest**2, part.wall
        self._pairs: tuple[np.ndarray, np.ndarray]

    def prepare(self, graph: Graph) -> None:
        """Set the neighbors of the atoms."""
        self._pairs = graph.species.numpy(), graph.neighbors.contiguous().numpy()

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Return the vectors that the descriptor sees, (n_atoms, n_neighbors, 3); the same ones without close pairs."""
        visible = vectors.copy()
        n_close = self._run("lengthen", vectors, visible, np.empty(0))
        return visible if n_close else vectors

    def pull(self, vectors: np.ndarray, by_visible: np.ndarray) -> np.ndarray:
        """Return the energies, (n_atoms,) in float64; turn the gradient by visible vectors into that by `vectors`.

        It is changed in place, and the gradient of the energies is added.
        """
        energies = np.zeros(len(vectors))
        self._run("pull", vectors, by_visible, energies)
        return energies

    def _run(self, name: str, vectors: np.ndarray, changed: np.ndarray, energies: np.ndarray) -> int:
        """Run a kernel over all atoms and return the number of close pairs."""
        arguments = vectors, *self._pairs, *self._tables, changed, energies
        kernel = _kernel(name, PRECISIONS[changed.dtype])
        return sum(run_over_atoms(kernel, arguments, len(vectors), torch.get_num_threads()))


@lru_cache(maxsize=4)
def _kernel(name: str, precision: str) -> Any:
    return compiled(_lengthen() if name == "lengthen" else _pull(), "core_repulsion", name, precision)


def _lengthen() -> Any:
    """Return the kernel that lengthens vectors of close pairs, for atoms `first` to `last`."""
    steepness = 1 / SOFTNESS

    def kernel(
        vectors, species, neighbors, ranges, strengths, inverse_lengths, longest, wall, visible, energies, first, last
    ):
        n_close = 0
        for atom in range(first, last):
            for column in range(vectors.shape[1]):
                vx, vy, vz = vectors[atom, column, 0], vectors[atom, column, 1], vectors[atom, column, 2]
                square = np.float64(vx * vx + vy * vy + vz * vz)
                # padding has vectors of zero
                if square < longest and square > 0.0:
                    y = math.sqrt(square) / ranges[species[atom], species[neighbors[atom, column]]]
                    if y < 1.0:
                        t = 1.0 - y
                        factor = (1.0 - t * (1.0 + (steepness * t) ** 3) ** (-1.0 / 3.0)) / y
                        visible[atom, column, 0] = factor * vx
                        visible[atom, column, 1] = factor * vy
                        visible[atom, column, 2] = factor * vz
                        n_close += 1
        return n_close

    return kernel


def _pull() -> Any:
    """Return the kernel of the derivatives for atoms `first` to `last`; it computes in float64."""
    (c1, c2, c3, c4), (d1, d2, d3, d4), steepness = SHARES, EXPONENTS, 1 / SOFTNESS

    def kernel(
        vectors, species, neighbors, ranges, strengths, inverse_lengths, longest, wall, pulls, energies, first, last
    ):
        n_close = 0
        for atom in range(first, last):
            for column in range(vectors.shape[1]):
                vx, vy, vz = vectors[atom, column, 0], vectors[atom, column, 1], vectors[atom, column, 2]
                square = np.float64(vx * vx + vy * vy + vz * vz)
                if square < longest and square > 0.0:
                    a, b = species[atom], species[neighbors[atom, column]]
                    r = math.sqrt(square)
                    y = r / ranges[a, b]
                    if y < 1.0:
                        # the visible vector is v h(y) / y: g goes to g h / y + v (v.g) (h' - h / y) / r^2
                        t = 1.0 - y
                        q = 1.0 + (steepness * t) ** 3
                        factor = (1.0 - t * q ** (-1.0 / 3.0)) / y
                        gx, gy, gz = pulls[atom, column, 0], pulls[atom, column, 1], pulls[atom, column, 2]
                        along = (vx * gx + vy * gy + vz * gz) * (q ** (-4.0 / 3.0) - factor) / square
                        # repulsion: half of each pair's, and its derivative by r over r
                        x = r * inverse_lengths[a, b]
                        e1, e2 = c1 * math.exp(-d1 * x), c2 * math.exp(-d2 * x)
                        e3, e4 = c3 * math.exp(-d3 * x), c4 * math.exp(-d4 * x)
                        screening = e1 + e2 + e3 + e4
                        falling = x * (d1 * e1 + d2 * e2 + d3 * e3 + d4 * e4)
                        envelope = (1 - y) ** 3 * (1 + y * (3 + y * (6 + y * (10 + y * (15 + 21 * y)))))
                        slope = -168.0 * y**6 * (1 - y) ** 2
                        half = 0.5 * strengths[a, b] / r
                        energies[atom] += half * screening * envelope + 0.5 * wall * t**5
                        along += half * (screening * (slope - envelope) - falling * envelope) / square
                        along -= 2.5 * wall * t**4 * y / square
                        pulls[atom, column, 0] = factor * gx + along * vx
                        pulls[atom, column, 1] = factor * gy + along * vy
                        pulls[atom, column, 2] = factor * gz + along * vz
                        n_close += 1
        return n_close

    return kernel
