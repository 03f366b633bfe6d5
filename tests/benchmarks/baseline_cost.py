"""Cost of baselines, in units of a step without them.

python tests/benchmarks/baseline_cost.py [--sizes 64 216 1000] [--rounds 40]

Energy, forces and stress of NaCl with the default settings otherwise, one thread, interleaved in one process; ratios of
medians. `step` is a calculator's evaluation, `autograd` that of other engines, `training` the gradient of a loss of
energies, forces and stress by the parameters.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from ase.build import bulk

from lrc_ase.models.baselines import ranges_from_data
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.inference import Evaluator
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import LongRangeSettings, ModelSettings
from lrc_ase.structures.neighbors import neighbor_graph

SKIN = 0.5
ELEMENTS = ("Na", "Cl")
SHORTEST = {"Na-Na": 2.32, "Na-Cl": 1.83, "Cl-Cl": 2.49}
"""Shortest distances in the training frames of the shipped potential `nacl`, Angstrom."""
BASELINES = {"none": [], "zbl": [{"zbl": {"ranges": ranges_from_data({}, ELEMENTS, SHORTEST, 5.0)}}]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 216, 1000], help="8 n^3 ions")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'ions':>6} {'way':>9} {'none ms':>8} " + " ".join(f"{name:>6}" for name in BASELINES))
    for size in arguments.sizes:
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(round((size / 8) ** (1 / 3)))
        atoms.rattle(0.1, seed=0)
        graph = neighbor_graph(atoms, ELEMENTS, 5.0 + SKIN)
        for way in (step, by_autograd, training):
            cases = [way(model(baseline)) for baseline in BASELINES.values()]
            times = median_times(cases, graph, arguments.rounds)
            ratios = " ".join(f"{seconds / times[0]:>6.3f}" for seconds in times)
            print(f"{len(atoms):>6} {way.__name__.removeprefix('by_'):>9} {1e3 * times[0]:>8.2f} {ratios}")


def model(baseline):
    long_range = LongRangeSettings(compositions={"NaCl": 0})
    return build_model(ModelSettings(elements=ELEMENTS, long_range=long_range, baseline=baseline))


def step(some):
    evaluator = Evaluator(some.requires_grad_(False))
    return lambda graph: (evaluator(graph), evaluator.stress())


def by_autograd(some):
    some.requires_grad_(False)
    return lambda graph: evaluate(some, graph, stress=True)


def training(some):
    def gradient(graph):
        results = evaluate(some, graph, stress=True, training=True)
        loss = results.energy.square().sum() + results.forces.square().sum() + results.stress.square().sum()
        loss.backward()
        some.zero_grad()

    return gradient


def median_times(cases, graph, n_rounds: int) -> list[float]:
    """Return the median time of each case in seconds of this process."""
    times: list[list[float]] = [[] for _ in cases]
    for number in range(n_rounds + 3):  # the first rounds compile kernels
        for index, case in enumerate(cases):
            start = time.process_time()
            case(graph)
            if number >= 3:
                times[index].append(time.process_time() - start)
    return [statistics.median(each) for each in times]


if __name__ == "__main__":
    main()
