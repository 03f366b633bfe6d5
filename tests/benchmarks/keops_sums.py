"""What KeOps gains over blocks of plain torch, for pairs of kernels that it can write.

OMP_NUM_THREADS=1 python tests/benchmarks/keops_sums.py

Yukawa without smearing in open space: field, and field with gradient by positions, in turns; the shortest of three, in
seconds of processor time. KeOps compiles each formula once per machine, before the clock starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from lrc_ase.layer import direct
from lrc_ase.layer.convolution import LongRangeConvolution
from lrc_ase.layer.kernels import Yukawa


class WithoutKeops(Yukawa):
    """The same kernel, kept from KeOps."""

    def keops_radial(self, squared: object) -> None:
        return None


def job(kernel: Yukawa, n_atoms: int, *, differentiated: bool) -> Callable[[], None]:
    """Return the sum over all pairs of points in a box of 0.1 per cubic Angstrom."""
    layer = LongRangeConvolution(kernel.requires_grad_(False), method="direct")
    generator = torch.Generator().manual_seed(0)
    cell, pbc = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.bool)
    points = (n_atoms / 0.1) ** (1 / 3) * torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator)
    weights = torch.randn(n_atoms, 1, dtype=torch.float64, generator=generator)

    def call() -> None:
        moving = points.clone().requires_grad_(differentiated)
        field = layer(weights, moving, cell, pbc=pbc)
        if differentiated:
            torch.autograd.grad((weights * field).sum(), moving)

    return call


def main() -> None:
    print("atoms  job       torch  KeOps  torch / KeOps")
    for n_atoms in (2000, 5000):
        assert n_atoms**2 > direct._PAIRS_AT_ONCE
        for name, differentiated in (("field", False), ("gradient", True)):
            kernels = WithoutKeops([0.3], smearing=0.0), Yukawa([0.3], smearing=0.0)
            jobs = [job(kernel, n_atoms, differentiated=differentiated) for kernel in kernels]
            best = [float("inf")] * 2
            for turn in range(4):
                for index, call in enumerate(jobs):
                    start = time.process_time()
                    call()
                    if turn:  # the first compiles
                        best[index] = min(best[index], time.process_time() - start)
            print(f"{n_atoms:5d}  {name:8s} {best[0]:6.2f} {best[1]:6.2f} {best[0] / best[1]:6.1f}")


if __name__ == "__main__":
    main()
