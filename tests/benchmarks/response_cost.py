"""Cost of dipoles and latent tensors, in units of a step without them.

python tests/benchmarks/response_cost.py [--sizes 64 216 1000] [--rounds 10]

Energy, forces and stress of NaCl with the default settings otherwise, one thread, interleaved in one process; smallest
time of each. `autograd` is the default model by autograd, which the other models take too; `default` is the same model
as calculators evaluate it, with derivatives that are written out.
"""

from __future__ import annotations

import argparse
import time

import torch
from ase.build import bulk

from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.inference import Evaluator
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import LongRangeSettings, ModelSettings
from lrc_ase.structures.neighbors import neighbor_graph

SKIN = 0.5
TERMS = {
    "autograd": {},
    "polarizable": {"polarizable": True},
    "dipoles": {"polarizable": True, "n_dipoles": 4},
    "tensors": {"n_tensors": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 216, 1000], help="8 n^3 ions")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'ions':>6} {'precision':>9} {'autograd ms':>11} " + " ".join(f"{name:>11}" for name in ["default", *TERMS])
    )
    for size in arguments.sizes:
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(round((size / 8) ** (1 / 3)))
        atoms.rattle(0.1, seed=0)
        for dtype in (torch.float64, torch.float32):
            graph = neighbor_graph(atoms, ("Na", "Cl"), 5.0 + SKIN)
            models = [model(**terms).to(dtype) for terms in TERMS.values()]
            cases = [straight(models[0]), *map(by_autograd, models)]
            times = smallest_times(cases, graph, arguments.rounds)
            ratios = " ".join(f"{seconds / times[1]:>11.2f}" for seconds in times)
            print(f"{len(atoms):>6} {str(dtype).removeprefix('torch.'):>9} {1e3 * times[1]:>11.2f} {ratios}")


def model(**terms):
    long_range = LongRangeSettings(compositions={"NaCl": 0}, **terms)
    return build_model(ModelSettings(elements=("Na", "Cl"), long_range=long_range)).requires_grad_(False)


def straight(model):
    """Return the step of calculators."""
    evaluator = Evaluator(model)
    return lambda graph: (evaluator(graph), evaluator.stress())


def by_autograd(model):
    return lambda graph: evaluate(model, graph, stress=True)


def smallest_times(cases, graph, n_rounds: int) -> list[float]:
    """Return the smallest time of each case in seconds of this process."""
    smallest = [float("inf")] * len(cases)
    for _ in range(n_rounds + 2):  # the first rounds compile kernels
        for index, case in enumerate(cases):
            start = time.process_time()
            case(graph)
            smallest[index] = min(smallest[index], time.process_time() - start)
    return smallest


if __name__ == "__main__":
    main()
