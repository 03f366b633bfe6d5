"""Time of the short-range model on the CPU: energy and forces, and a training step, compiled against plain torch.

python tests/benchmarks/short_range_speed.py [--atoms 192 216 648 1536] [--threads 1 2] [--channels 32] [--blocks 1]
    [--neighbor-degree 0] [--neighbor-features 8]

Water-like density (0.1 atoms per cubic Angstrom), neighbors with a skin of 0.5 Angstrom. A training step is a loss on
forces differentiated by the parameters. Best of `--repeats` after 2 runs for warming up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms

from lrc_ase import ModelSettings, build_model
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.descriptors.sphere.averages import averages
from lrc_ase.models.descriptors.sphere.element_order import ElementOrder
from lrc_ase.models.descriptors.sphere.moments import moments
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.models.settings import SphereSettings
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.structures.vectors import neighbor_vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=[192, 216, 648, 1536])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--precisions", nargs="+", default=["float32", "float64"])
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--degrees", type=int, nargs="+", default=[3, 3, 3, 2])
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--neighbor-degree", type=int, default=0)
    parser.add_argument("--neighbor-features", type=int, default=8)
    parser.add_argument("--cutoff", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    sphere = SphereSettings(
        n_channels=arguments.channels,
        degrees=tuple(arguments.degrees),
        n_blocks=arguments.blocks,
        neighbor_degree=arguments.neighbor_degree,
        n_neighbor_features=arguments.neighbor_features,
    )
    own = ModelSettings(elements=("H", "O"), cutoff=arguments.cutoff, descriptor=sphere, average_neighbors=50.0)
    for precision in arguments.precisions:
        model = build_model(own, generator=torch.Generator().manual_seed(0)).to(getattr(torch, precision))
        for n_atoms in arguments.atoms:
            graph = neighbor_graph(water_like(n_atoms), own.elements, arguments.cutoff + 0.5)
            for n_threads in arguments.threads:
                torch.set_num_threads(n_threads)
                report(model, graph, arguments.repeats, f"{precision} {n_atoms:5d} atoms {n_threads} threads")
    torch.set_num_threads(1)
    stages(model, graph, arguments.repeats)


def water_like(n_atoms: int) -> Atoms:
    """Hydrogen and oxygen on a shaken lattice at the number density of water."""
    n_cells = int(np.ceil(n_atoms ** (1 / 3)))
    length = (n_atoms / 0.1) ** (1 / 3)
    rng = np.random.default_rng(0)
    sites = np.stack(np.meshgrid(*3 * [np.arange(n_cells)], indexing="ij"), axis=-1).reshape(-1, 3)
    sites = rng.permutation(sites)[:n_atoms] + rng.normal(scale=0.1, size=(n_atoms, 3))
    return Atoms(["O", "H", "H"] * (n_atoms // 3), positions=sites * length / n_cells, cell=3 * [length], pbc=True)


def report(model: ShortRangeModel, graph: Graph, repeats: int, label: str) -> None:
    parameters = list(model.parameters())

    def train() -> None:
        evaluate(model, graph, training=True).forces.pow(2).sum().backward(inputs=parameters)

    times = {}
    for engine in ("reference", "compiled"):
        model.descriptor.engine = engine
        times[engine] = [best(lambda: evaluate(model, graph), repeats), best(train, repeats)]
    for index, task in enumerate(("energy and forces", "training step")):
        old, new = times["reference"][index], times["compiled"][index]
        print(f"{label}, {task}: {1e3 * old:.1f} -> {1e3 * new:.1f} ms ({1e6 * new / graph.n_atoms:.1f} us per atom)")


def stages(model: ShortRangeModel, graph: Graph, repeats: int) -> None:
    """Forward and backward time of each stage on one thread, microseconds per atom."""
    shape, dtype = model.descriptor.shape, model.readout.dtype
    positions = graph.positions.clone().requires_grad_()
    around = graph.neighbor_mask, graph.species, graph.neighbors
    vectors = neighbor_vectors(positions, graph.cell, graph.neighbors, graph.shifts, graph.structure, dtype).detach()
    sums = moments(vectors, *around, shape)
    channels = torch.randn(shape.n_harmonics, graph.n_atoms, len(shape.degrees) * shape.n_channels, dtype=dtype)
    mixing = (model.descriptor.mixing + model.descriptor.element_mixing).detach()
    weights = torch.index_select(mixing, 1, model.descriptor.degree_of)
    order = ElementOrder.of(graph.species, len(weights))
    features = torch.randn(graph.n_atoms, model.descriptor.n_features, dtype=dtype)
    tasks: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]] = {
        "vectors": (
            lambda x: neighbor_vectors(x, graph.cell, graph.neighbors, graph.shifts, graph.structure, dtype),
            positions,
        ),
        "moments": (lambda v: moments(v, *around, shape), vectors),
        "mixing": (lambda s: order.multiply(order.sort(s, 1), weights), sums),
        "averages": (lambda c: averages(c, shape)[0], channels),
        "read-out": (lambda f: model.readout(f, graph.species), features),
    }
    for name, (function, argument) in tasks.items():
        argument = argument.detach().requires_grad_()
        made = function(argument)
        weighted = torch.randn_like(made)
        forward = best(lambda f=function, a=argument: f(a), repeats)
        backward = best(lambda m=made, a=argument, w=weighted: torch.autograd.grad(m, a, w, retain_graph=True), repeats)
        print(
            f"{dtype}, {name}: {1e6 * forward / graph.n_atoms:.2f} + {1e6 * backward / graph.n_atoms:.2f} us per atom"
        )


def best(task: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return min(times[2:])


if __name__ == "__main__":
    main()
