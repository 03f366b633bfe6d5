"""The family of descriptors side by side: what a step costs, and what turning the structure changes.

OMP_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/descriptors.py costs [--repeat 2 3]
OMP_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/descriptors.py rotation [POTENTIAL]

costs: short-range models on rattled rock salt, 5 Angstrom, float32. CPU time of this process, so that others may run
beside it, best of 5: energy and forces; a step of training on forces. Memory of energy and forces (Linux): growth of
the peak, in a process of its own.
rotation: change of features, forces and energy of `ponita` under 8 random rotations of 64 atoms, relative to their root
mean squares, against the number of orientations; for untrained models, or for a trained potential put on other grids.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk

from lrc_ase import ModelSettings, PaperSettings, PonitaSettings, ShortRangeModel, SphereSettings, build_model
from lrc_ase.files.potential_file import load_potential
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.equivariance import rotation_error
from lrc_ase.models.settings import DescriptorSettings
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.neighbors import neighbor_graph

ELEMENTS = ("Na", "Cl")
CHOICES = {
    "sphere": SphereSettings(),
    "ponita, 2 blocks": PonitaSettings(n_layers=2),
    "ponita, 3 blocks": PonitaSettings(),
    "ponita, 3 blocks, 12 orientations": PonitaSettings(n_orientations=12),
    "paper": PaperSettings(),
}


def rock_salt(repeat: int, cutoff: float = 5.0, elements: tuple[str, ...] = ELEMENTS) -> Graph:
    """Graph of 8 repeat^3 atoms."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * (repeat, repeat, repeat)
    atoms.rattle(0.2, seed=0)
    return neighbor_graph(atoms, elements, cutoff)


def untrained(own: DescriptorSettings) -> ShortRangeModel:
    settings = ModelSettings(elements=ELEMENTS, descriptor=own, average_neighbors=24.0)
    return build_model(settings, generator=torch.Generator().manual_seed(0)).eval()


def train_step(model: ShortRangeModel, graph: Graph) -> None:
    forces = evaluate(model, graph, training=True).forces
    assert forces is not None
    forces.square().sum().backward()


def best_time(work: Callable[[], object]) -> float:
    """Milliseconds of CPU time."""
    times = []
    for _ in range(6):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return 1e3 * min(times[1:])


def peak_growth(own: DescriptorSettings, repeat: int) -> float:
    """Megabytes by which energy and forces raise the peak of memory."""
    graph, model = rock_salt(repeat), untrained(own)
    evaluate(model, rock_salt(1))
    before = _peak()
    evaluate(model, graph)
    return _peak() - before


def _peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def costs(repeats: list[int]) -> None:
    context = multiprocessing.get_context("spawn")
    for repeat in repeats:
        graph = rock_salt(repeat)
        print(f"{graph.n_atoms} atoms, {float(graph.neighbor_mask.sum()) / graph.n_atoms:.0f} neighbors")
        for name, own in CHOICES.items():
            model = untrained(own)
            forces = best_time(partial(evaluate, model, graph))
            step = best_time(partial(train_step, model, graph))
            with context.Pool(1) as pool:
                memory = pool.apply(peak_growth, (own, repeat))
            n_parameters = sum(parameter.numel() for parameter in model.descriptor.parameters())
            print(
                f"  {name:34s} {n_parameters:6d} parameters, forces {forces:6.1f} ms, "
                f"training step {step:6.1f} ms, {memory:5.0f} MB"
            )


def on_grid(model: ShortRangeModel, n_orientations: int) -> ShortRangeModel:
    """The same weights with another number of orientations."""
    own = model.settings.descriptor.model_copy(update={"n_orientations": n_orientations})
    other = build_model(model.settings.model_copy(update={"descriptor": own}))
    weights = {name: value for name, value in model.state_dict().items() if name != "descriptor.orientations"}
    other.load_state_dict(weights, strict=False)
    return other.double().eval()


def rotation(path: str | None) -> None:
    if path:
        models = {path: load_potential(path).model.double()}
    else:
        models = {f"untrained, {n} blocks": untrained(PonitaSettings(n_layers=n)).double() for n in (1, 2, 3)}
    for name, model in models.items():
        graph = rock_salt(2, model.settings.cutoff, model.settings.elements)
        exact = evaluate(on_grid(model, 200), graph).forces
        assert exact is not None
        print(name)
        for n_orientations in (6, 8, 12, 20, 32, 50, 80, 120):
            same = n_orientations == model.descriptor.settings.n_orientations
            other = model if same else on_grid(model, n_orientations)
            error = rotation_error(other, graph, generator=torch.Generator().manual_seed(0))
            forces = evaluate(other, graph).forces
            assert forces is not None
            distance = float((forces - exact).square().mean().sqrt() / exact.square().mean().sqrt())
            print(
                f"  {n_orientations:4d} orientations: features {error.features:.1e}, forces "
                f"{error.relative_forces:.1e} ({1e3 * error.forces:.3g} meV/Angstrom), energy "
                f"{1e3 * error.energy:.2g} meV/atom; forces from those of 200 orientations {distance:.1e}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("costs").add_argument("--repeat", type=int, nargs="+", default=[2, 3])
    commands.add_parser("rotation").add_argument("potential", nargs="?")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, numpy {np.__version__}, torch {torch.__version__}")
    if arguments.command == "costs":
        costs(arguments.repeat)
    else:
        rotation(arguments.potential)


if __name__ == "__main__":
    main()
