"""Clusters: all pairs against the padded mesh, field and forces; run as ``python tests/benchmarks/open_crossover.py``.

The last column, pairs per mesh point where both take the same time, is
`lrc_ase.layer.boundaries._PAIRS_PER_MESH_POINT`.
"""

from __future__ import annotations

import math
import time

import torch

from lrc_ase.layer import boundaries
from lrc_ase.layer.convolution import LongRangeConvolution
from lrc_ase.layer.kernels import Coulomb, Multiplier, Stack, Yukawa
from lrc_ase.layer.tables import MultiplierTables


def seconds(layer: LongRangeConvolution, weights: torch.Tensor, positions: torch.Tensor, *, by_pairs: bool) -> float:
    boundaries._PAIRS_PER_MESH_POINT = math.inf if by_pairs else 0.0
    cell, pbc = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.bool)
    tables = MultiplierTables()
    best = math.inf
    for _ in range(5):
        positions = positions.detach().requires_grad_()
        start = time.perf_counter()
        (layer(weights, positions, cell, pbc=pbc, tables=tables) * weights).sum().backward()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    kernels: dict[str, Multiplier] = {
        "Coulomb": Coulomb(),
        "4 channels": Stack([Coulomb(), Yukawa([0.2, 0.5, 1.0])]),
    }
    print("kernel       atoms  mesh points  pairs ms   mesh ms  N^2 / mesh points at equal time")
    for name, multiplier in kernels.items():
        layer = LongRangeConvolution(multiplier, smearing=1.0, accuracy=1e-4)
        for n_atoms in (200, 500, 1000, 2000, 4000):
            generator = torch.Generator().manual_seed(0)
            positions = (n_atoms / 0.1) ** (1 / 3) * torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator)
            weights = torch.randn(n_atoms, multiplier.n_channels, dtype=torch.float64, generator=generator)
            pairs = seconds(layer, weights, positions, by_pairs=True)
            mesh = seconds(layer, weights, positions, by_pairs=False)
            layout = boundaries.open_layout(
                positions, torch.eye(3, dtype=torch.float64), (False,) * 3, 1.0, layer.mesh_shape_for
            )
            assert layout.mesh_shape is not None
            n_points = math.prod(layout.mesh_shape)
            equal = n_atoms**2 / n_points * mesh / pairs
            print(f"{name:12s} {n_atoms:5d} {n_points:12,d} {1e3 * pairs:9.1f} {1e3 * mesh:9.1f} {equal:10.2f}")


if __name__ == "__main__":
    main()
