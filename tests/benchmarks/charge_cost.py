"""Cost of charges that move between neighbors, in units of a step with charges shifted evenly as in lrc-ase 0.2.

python tests/benchmarks/charge_cost.py [--sizes 64 216 1000] [--rounds 15]

Energy, forces and stress of NaCl with the default settings, one thread, interleaved in one process; smallest time of
each. `excess` has a total charge of 1 e more than the element charges, which shares then divide.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from ase.build import bulk

from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import LongRangeSettings, ModelSettings
from lrc_ase.structures.neighbors import neighbor_graph

SKIN = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 216, 1000], help="8 n^3 ions")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'ions':>6} {'precision':>9} {'shifted ms':>10} {'transfers':>9} {'excess':>7}")
    for size in arguments.sizes:
        repeat = round((size / 8) ** (1 / 3))
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
        atoms.rattle(0.1, seed=0)
        for dtype in (torch.float64, torch.float32):
            graph = neighbor_graph(atoms, ("Na", "Cl"), 5.0 + SKIN)
            charged = replace(graph, charge=graph.charge + 1.0)
            shifted, transfers = (model(charges).to(dtype) for charges in ("shifted", "transfers"))
            times = smallest_times(
                [(shifted, graph), (transfers, graph), (transfers, charged)], n_rounds=arguments.rounds
            )
            ratios = [seconds / times[0] for seconds in times[1:]]
            precision = str(dtype).removeprefix("torch.")
            print(f"{len(atoms):>6} {precision:>9} {1e3 * times[0]:>10.2f} {ratios[0]:>9.2f} {ratios[1]:>7.2f}")


def model(charges):
    long_range = LongRangeSettings(charges=charges, compositions={"NaCl": 0})
    return build_model(ModelSettings(elements=("Na", "Cl"), long_range=long_range)).requires_grad_(False)


def smallest_times(cases, *, n_rounds: int) -> list[float]:
    """Return the smallest time of each case in seconds of this process."""
    smallest = [float("inf")] * len(cases)
    for _ in range(n_rounds + 2):  # the first rounds compile kernels
        for index, (each, graph) in enumerate(cases):
            start = time.process_time()
            evaluate(each, graph, stress=True)
            smallest[index] = min(smallest[index], time.process_time() - start)
    return smallest


if __name__ == "__main__":
    main()
