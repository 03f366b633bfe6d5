"""What the calculator adds to the bare model, and where the time of a step goes.

python tests/benchmarks/calculator_overhead.py [POTENTIAL] [--atoms 8 64 216 1000] [--dtype float64] [--steps 60]

Rock salt with its ions displaced at random a little further each step, as dynamics does it, so that neighbors are
searched as often as there. The calculator is asked for energy, forces and stress through ASE; the bare model is its
evaluator on its graph with the same positions, in turn with it. Medians over the steps; the time of searches is spread
over all steps. Then `lrc_ase.evaluate`, which goes by autograd, by its stages, and what the two costly properties take
when asked for. One thread. POTENTIAL is the shipped one of NaCl if not given.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from ase.build import bulk

import lrc_ase
from lrc_ase import LRCCalculator
from lrc_ase.models.atomic_stresses import atomic_stresses
from lrc_ase.models.derivatives import born_effective_charges
from lrc_ase.structures.domain import TrainingDomain

REPEATS = {8: (1, 1, 1), 64: (2, 2, 2), 216: (3, 3, 3), 512: (4, 4, 4), 1000: (5, 5, 5), 1728: (6, 6, 6)}
DISPLACEMENT = 0.006
"""Angstrom per step and direction: the sodium ions of a melt at 1200 K move so far in a femtosecond."""
COLUMNS = ("model", "calculator", "added", "allowed", "searches")
STAGES = ("forward", "descriptor", "read-out", "backward", "stresses", "Born charges")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential", nargs="?", default="nacl")
    parser.add_argument("--atoms", type=int, nargs="+", default=[8, 64, 216, 1000], choices=list(REPEATS))
    parser.add_argument("--dtype", default="float64", choices=["float32", "float64"])
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = COLUMNS + STAGES
    print("ms       " + " ".join(f"{name:>12}" for name in names))
    for n_atoms in arguments.atoms:
        calculator = lrc_ase.load(arguments.potential, dtype=getattr(torch, arguments.dtype))
        times = measure(calculator, REPEATS[n_atoms], arguments.steps)
        print(f"{n_atoms:<8} " + " ".join(f"{1e3 * times[name]:12.3f}" for name in names))


def measure(calculator: LRCCalculator, repeat: tuple[int, int, int], n_steps: int) -> dict[str, float]:
    """Seconds of one step, by what takes them."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(repeat)
    atoms.calc = calculator
    rng = np.random.default_rng(0)
    directions = rng.standard_normal(atoms.positions.shape)
    atoms.get_forces()
    neighbors = calculator.neighbor_list
    model, autograd, whole, parts, searches = [], [], [], [], []
    with stages(calculator) as stage, timed_search(calculator) as seconds_of_searches:
        for step in range(n_steps + 5):
            if step % 20 == 0:
                directions = rng.standard_normal(atoms.positions.shape)
            atoms.positions += DISPLACEMENT * directions
            before = sum(seconds_of_searches)
            whole.append(seconds(lambda: (atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())))
            searches.append(sum(seconds_of_searches) - before)
            graph = replace(neighbors.graph(atoms), positions=torch.from_numpy(atoms.positions.copy()))
            model.append(seconds(lambda g=graph: (calculator._evaluate(g), calculator._evaluate.stress())))
            stage.clear()
            autograd.append(seconds(lambda g=graph: lrc_ase.evaluate(calculator.model, g, stress=True)))
            parts.append(dict(stage))
    of_search = float(np.mean(searches[5:]))
    found = {name: float(np.median([part[name] for part in parts[5:]])) for name in parts[0]}
    found["model"] = float(np.median(model[5:]))
    steps_alone = float(np.median(np.subtract(whole[5:], searches[5:])))
    found["calculator"], found["searches"] = steps_alone + of_search, of_search
    found["added"] = found["calculator"] - found["model"]
    found["allowed"] = 1e-3 + 0.05 * found["model"]
    found["backward"] = float(np.median(autograd[5:])) - found["forward"]
    for name, function in (("stresses", atomic_stresses), ("Born charges", born_effective_charges)):
        found[name] = float(np.median([seconds(lambda f=function: f(calculator.model, graph)) for _ in range(7)]))
    return found


@contextmanager
def stages(calculator: LRCCalculator) -> Iterator[dict[str, float]]:
    """Seconds of the last forward pass by stage, filled as it runs."""
    model, found, starts = calculator.model, {}, {}
    modules = {"forward": [model], "descriptor": [model.descriptor], "read-out": [model.readout]}
    if hasattr(model, "long_range"):
        modules["read-out"].append(model.long_range.weights)

    def start(name: str) -> Callable[..., None]:
        return lambda *_: starts.update({name: time.perf_counter()})

    def stop(name: str) -> Callable[..., None]:
        return lambda *_: found.update({name: found.get(name, 0.0) + time.perf_counter() - starts[name]})

    handles = []
    for name, watched in modules.items():
        for module in watched:
            handles += [module.register_forward_pre_hook(start(name)), module.register_forward_hook(stop(name))]
    yield found
    for handle in handles:
        handle.remove()


@contextmanager
def timed_search(calculator: LRCCalculator) -> Iterator[list[float]]:
    """Seconds of each neighbor search, and of the look for close pairs that follows it."""
    found: list[float] = []
    originals = {
        (lrc_ase.structures.neighbors, "neighbor_graph"): lrc_ase.structures.neighbors.neighbor_graph,
        (TrainingDomain, "watch"): TrainingDomain.watch,
    }

    def timed(function: Callable) -> Callable:
        def wrapped(*arguments: object, **options: object) -> object:
            begin = time.perf_counter()
            made = function(*arguments, **options)
            found.append(time.perf_counter() - begin)
            return made

        return wrapped

    for (owner, name), function in originals.items():
        setattr(owner, name, timed(function))
    yield found
    for (owner, name), function in originals.items():
        setattr(owner, name, function)


def seconds(task: Callable[[], object]) -> float:
    """Wall time of `task`."""
    begin = time.perf_counter()
    task()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
