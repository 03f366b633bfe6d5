"""Cost of dipoles and latent tensors, in units of a step without them.

python tests/benchmarks/response_cost.py [--sizes 64 216 1000] [--rounds 30]

Energy and forces with the default settings otherwise, one thread: NaCl, and 64 molecules of water. All models take
turns in one process. "step" is that of the calculator, whose derivatives are written out except for tensors; "autograd"
is the same model by autograd. Columns hold medians over the rounds: processor time divided by that of the default step
in the same round, and the ratio of the two.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.inference import Evaluator
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import LongRangeSettings, ModelSettings
from lrc_ase.structures.neighbors import neighbor_graph

SKIN = 0.5
TERMS = {
    "default": {},
    "n_dipoles: 4": {"n_dipoles": 4},
    "polarizable": {"polarizable": True},
    "both": {"polarizable": True, "n_dipoles": 4},
    "n_tensors: 1": {"n_tensors": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 216, 1000], help="8 n^3 ions")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    structures = [(f"{size} ions", salt(size), {"NaCl": 0}) for size in arguments.sizes]
    for name, atoms, compositions in [*structures, ("192 atoms of water", water(), {"H2O": 0})]:
        elements = tuple(sorted(set(atoms.symbols)))
        graph = neighbor_graph(atoms, elements, 5.0 + SKIN)
        for dtype in (torch.float64, torch.float32):
            cases = []
            for terms in TERMS.values():
                long_range = LongRangeSettings(compositions=compositions, **terms)
                model = build_model(ModelSettings(elements=elements, long_range=long_range)).requires_grad_(False)
                model.to(dtype)
                cases += [Evaluator(model), by_autograd(model)]
            times = times_of(cases, graph, arguments.rounds)
            ratios = np.median(times / times[:, :1], axis=0)
            gains = np.median(times[:, 1::2] / times[:, ::2], axis=0)
            print(f"{name}, {str(dtype).removeprefix('torch.')}: {1e3 * np.median(times[:, 0]):.2f} ms")
            print(f"  {'':14} {'step':>8} {'autograd':>8} {'autograd / step':>15}")
            for index, term in enumerate(TERMS):
                print(f"  {term:14} {ratios[2 * index]:8.2f} {ratios[2 * index + 1]:8.2f} {gains[index]:15.2f}")


def salt(size: int) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(round((size / 8) ** (1 / 3)))
    atoms.rattle(0.1, seed=0)
    return atoms


def water() -> Atoms:
    """Return 64 molecules at the density of the liquid, turned at random."""
    generator, edge = np.random.default_rng(0), 12.42
    atoms = Atoms(cell=3 * [edge], pbc=True)
    for site in np.ndindex(4, 4, 4):
        turned = molecule("H2O")
        turned.euler_rotate(*generator.uniform(0, 360, 3))
        turned.positions += edge / 4 * np.array(site)
        atoms += turned
    return atoms


def by_autograd(model):
    # the stress too, as calculators do on this way
    return lambda graph: evaluate(model, graph, stress=True)


def times_of(cases, graph, n_rounds: int) -> np.ndarray:
    """Return the times of each case in seconds of this process, (n_rounds, n_cases)."""
    times = np.empty((n_rounds + 2, len(cases)))
    for of_round in times:
        for index, case in enumerate(cases):
            start = time.process_time()
            case(graph)
            of_round[index] = time.process_time() - start
    return times[2:]  # the first rounds compile kernels


if __name__ == "__main__":
    main()
