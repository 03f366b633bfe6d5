"""Time of the layer on the CPU: field, and its gradient by positions, against the number of atoms.

OMP_NUM_THREADS=1 python tests/benchmarks/layer_speed.py [--atoms 1000 10000 100000] [--accuracy 1e-3] [--channels 1]

0.1 atoms per cubic Angstrom, smearing 1 Angstrom, float64, screened Coulomb. Best of 7 after 2 runs for warming up.
"""

from __future__ import annotations

import argparse
import time

import torch

from lrc_ase import LongRangeConvolution, Yukawa


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--accuracy", type=float, default=1e-3, help="of the forces; the field is ten times better")
    parser.add_argument("--channels", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, accuracy {arguments.accuracy:g}, {arguments.channels} channels")
    for n_atoms in arguments.atoms:
        generator = torch.Generator().manual_seed(0)
        fractional = torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator).requires_grad_()
        weights = torch.randn(n_atoms, arguments.channels, dtype=torch.float64, generator=generator)
        cell = (n_atoms / 0.1) ** (1 / 3) * torch.eye(3, dtype=torch.float64)[None]
        kernel = Yukawa([0.3] * arguments.channels, smearing=1.0).requires_grad_(False)
        layer = LongRangeConvolution(kernel, smearing=1.0, accuracy=arguments.accuracy)
        forward, backward = [], []
        for _ in range(9):
            start = time.perf_counter()
            field = layer(weights, fractional, cell)
            middle = time.perf_counter()
            torch.autograd.grad((field * weights).sum(), fractional)
            forward.append(middle - start)
            backward.append(time.perf_counter() - middle)
        shape = layer.mesh_shape_for(cell[0].numpy())
        times = f"{1e3 * min(forward[2:]):.2f} + {1e3 * min(backward[2:]):.2f} ms"
        print(f"{n_atoms:8d} atoms, mesh {shape}: {times}")


if __name__ == "__main__":
    main()
