"""Core repulsion with its derivatives by the vectors to neighbors, compiled by Numba."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_ase.compiled.compilation import compiled
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.models.baselines.zbl import EXPONENTS, SHARES, CoreRepulsion
from lrc_ase.structures.graph import Graph

__all__ = ["CoreRepulsionStep"]


class CoreRepulsionStep:
    """Value and derivatives of `lrc_ase.models.baselines.zbl`."""

    def __init__(self, part: CoreRepulsion) -> None:
        self._tables = part.ranges.numpy(), part.strengths.numpy(), part.inverse_lengths.numpy()
        self._longest = float(part.ranges.max())
        self._pairs: tuple[np.ndarray, np.ndarray]

    def prepare(self, graph: Graph) -> None:
        """Set the neighbors of the atoms."""
        self._pairs = graph.species.numpy(), graph.neighbors.contiguous().numpy()

    def add_pull(self, vectors: Tensor, by_vectors: Tensor) -> Tensor:
        """Return the energies of the atoms, (n_atoms,) in float64, and add their gradient to `by_vectors`.

        `vectors` and `by_vectors` (n_atoms, n_neighbors, 3).
        """
        energies = np.zeros(len(vectors))
        arguments = vectors.numpy(), *self._pairs, *self._tables, self._longest**2, energies, by_vectors.numpy()
        run_over_atoms(_kernel(vectors.numpy().dtype.name), arguments, len(vectors), torch.get_num_threads())
        return torch.from_numpy(energies)


@lru_cache(maxsize=2)
def _kernel(precision: str) -> Any:
    """Return the kernel for vectors of one precision; it computes in float64."""
    (c1, c2, c3, c4), (d1, d2, d3, d4) = SHARES, EXPONENTS

    def kernel(
        vectors, species, neighbors, ranges, strengths, inverse_lengths, longest, energies, by_vectors, first, last
    ):
        for atom in range(first, last):
            for column in range(vectors.shape[1]):
                vx, vy, vz = vectors[atom, column, 0], vectors[atom, column, 1], vectors[atom, column, 2]
                square = np.float64(vx * vx + vy * vy + vz * vz)
                # padding has vectors of zero
                if square < longest and square > 0.0:
                    a, b = species[atom], species[neighbors[atom, column]]
                    r = math.sqrt(square)
                    y = r / ranges[a, b]
                    if y < 1.0:
                        x = r * inverse_lengths[a, b]
                        e1, e2 = c1 * math.exp(-d1 * x), c2 * math.exp(-d2 * x)
                        e3, e4 = c3 * math.exp(-d3 * x), c4 * math.exp(-d4 * x)
                        screening = e1 + e2 + e3 + e4
                        # derivatives by r times r
                        falling = x * (d1 * e1 + d2 * e2 + d3 * e3 + d4 * e4)
                        envelope = (1 - y) ** 3 * (1 + y * (3 + y * (6 + y * (10 + y * (15 + 21 * y)))))
                        slope = -168.0 * y**6 * (1 - y) ** 2
                        half = 0.5 * strengths[a, b] / r
                        energies[atom] += half * screening * envelope
                        pull = half * (screening * (slope - envelope) - falling * envelope) / square
                        by_vectors[atom, column, 0] += pull * vx
                        by_vectors[atom, column, 1] += pull * vy
                        by_vectors[atom, column, 2] += pull * vz

    return compiled(kernel, "core_repulsion", precision)
