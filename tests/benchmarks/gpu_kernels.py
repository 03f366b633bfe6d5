"""Time of the kernels for GPUs against the number of atoms, beside the least time that moving the bytes would take.

python tests/benchmarks/gpu_kernels.py [--atoms 10000 100000 1000000] [--points 6] [--dtype float32] [--channels 1]

0.1 atoms per mesh point, at random. Median of 20 calls, each timed by CUDA events after the others have warmed up. The
bandwidth is measured by copying 1 GiB. Bytes are those that must pass once: coordinates, structures, weights or
results, and the mesh; the times in between (sort, windows) are part of the kernels' own overhead.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from lrc_ase.layer.mesh.triton.launch import gather_triton, spread_triton, triton_available
from lrc_ase.layer.windows import semicircle_window

DENSITY = 0.1  # atoms per mesh point
N_ORDERS = {0: 1, 1: 4, 2: 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--channels", type=int, default=1)
    arguments = parser.parse_args()
    if not (torch.cuda.is_available() and triton_available()):
        raise SystemExit("gpu_kernels.py needs a CUDA device and Triton 3.5 or newer")
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}, {arguments.dtype}, {arguments.points} points per direction")
    print(f"copying moves {bandwidth / 1e12:.2f} TB/s")
    print(f"{'atoms':>9} {'mesh':>5} {'':>6} {'level':>5} {'ms':>9} {'ns/atom':>8} {'limit ms':>9} {'FFT ms':>7}")
    for n_atoms in arguments.atoms:
        report(n_atoms, arguments, bandwidth)


def report(n_atoms: int, arguments: argparse.Namespace, bandwidth: float) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    options = {"device": "cuda", "generator": generator}
    window, n = semicircle_window(arguments.points), round((n_atoms / DENSITY) ** (1 / 3))
    coordinates = n * torch.rand(n_atoms, 3, dtype=torch.float64, **options)
    structure = torch.zeros(n_atoms, dtype=torch.int64, device="cuda")
    mesh = torch.zeros(1, arguments.channels, n, n, n, dtype=dtype, device="cuda")
    fft = milliseconds(lambda: torch.fft.irfftn(torch.fft.rfftn(mesh, dim=(2, 3, 4)), s=(n, n, n), dim=(2, 3, 4)))
    for level, n_orders in N_ORDERS.items():
        values = torch.randn(n_atoms, n_orders, arguments.channels, dtype=dtype, **options)
        least = sum(tensor.numel() * tensor.element_size() for tensor in (coordinates, structure, values, mesh))
        spread = milliseconds(lambda level=level, values=values: spread_triton(
            values, coordinates, structure, window, level, mesh
        ))  # fmt: skip
        gather = milliseconds(lambda level=level, values=values: gather_triton(
            mesh, coordinates, structure, window, level, values
        ))  # fmt: skip
        for name, time in (("spread", spread), ("gather", gather)):
            print(
                f"{n_atoms:9d} {n:5d} {name:>6} {level:5d} {time:9.3f} {1e6 * time / n_atoms:8.3f} "
                f"{1e3 * least / bandwidth:9.4f} {fft:7.3f}"
            )


def milliseconds(call: Callable[[], object]) -> float:
    """Median time of a call; the first ones compile."""
    times = []
    for _ in range(25):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[5:])


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of a copy within the device's memory."""
    source = torch.empty(2**28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / (1e-3 * milliseconds(lambda: target.copy_(source)))


if __name__ == "__main__":
    main()
