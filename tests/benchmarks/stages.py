"""Where the time of the layer goes, and that of a step of dynamics with the default model.

OMP_NUM_THREADS=1 python tests/benchmarks/stages.py [--atoms 1000 10000 100000] [--json]

Minimum and median of at least 9 calls, ms. The layer: the problem of `report.py`, float64, one channel, accuracy 1e-3
of the forces (1e-4 of u). The model: default settings, untrained, 216 ions of rock salt, float64.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from ase.build import bulk

from lrc_ase import LongRangeConvolution, LongRangeSettings, LRCCalculator, ModelSettings, Yukawa
from lrc_ase.files.potential_file import Potential
from lrc_ase.layer.boundaries import Layout
from lrc_ase.layer.mesh import Stencil, filtering, spreading
from lrc_ase.layer.mesh.backend import backend_for
from lrc_ase.layer.mesh.stencil import Sites
from lrc_ase.layer.tables import MultiplierTables
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.model import build_model


class Stopwatch:
    """Times calls, prints them, and remembers."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def show(self, stage: str, call: Callable[[], Any], n_atoms: int | None = None) -> None:
        call()
        seconds: list[float] = []
        while len(seconds) < 9 or (sum(seconds) < 0.5 and len(seconds) < 200):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        row = {"n_atoms": n_atoms, "stage": stage, "minimum": min(seconds), "median": statistics.median(seconds)}
        self.rows.append(row)
        print(f"  {stage:42s} {1e3 * row['minimum']:9.3f} {1e3 * row['median']:9.3f}", flush=True)


def layer_stages(n_atoms: int, watch: Stopwatch) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator)
    weights = torch.randn(n_atoms, 1, dtype=torch.float64, generator=generator)
    cell = (n_atoms / 0.1) ** (1 / 3) * torch.eye(3, dtype=torch.float64)[None]
    kernel = Yukawa([0.3], smearing=1.0).requires_grad_(False)
    layer = LongRangeConvolution(kernel, smearing=1.0, accuracy=1e-3)
    shape = layer.mesh_shape_for(cell[0].numpy())
    assert layer.window is not None
    stencil = Stencil(layer.window, shape, torch.zeros(n_atoms, dtype=torch.int64), 1)
    tables = MultiplierTables()
    table = tables.table(kernel, layer.window, cell, shape, [Layout(shape)])
    mesh = torch.zeros(1, 1, *shape, dtype=torch.float64)
    backend, sites = backend_for(mesh, stencil, 1), Sites(points, stencil)
    print(f"layer, {n_atoms:,} atoms, mesh {shape}, window of {layer.window.n_points} points")

    def field_and_forces() -> None:
        moving = points.clone().requires_grad_()
        energy = layer.field_and_energy(weights, moving, cell, n_energies=1, tables=tables).energy.sum()
        torch.autograd.grad(energy, moving)

    trained = LongRangeConvolution(Yukawa([0.3], smearing=1.0), smearing=1.0, accuracy=1e-3)
    leaf = weights.clone().requires_grad_()

    def training_step() -> None:
        moving = points.clone().requires_grad_()
        energy = trained.field_and_energy(leaf, moving, cell, n_energies=1).energy.sum()
        forces = torch.autograd.grad(energy, moving, create_graph=True)[0]
        torch.autograd.grad((forces**2).sum(), [leaf, *trained.parameters()])

    def show(stage: str, call: Callable[[], Any]) -> None:
        watch.show(stage, call, n_atoms)

    show("sort", lambda: backend.sort(points, stencil))
    show("spread", lambda: spreading.spread_level(weights[:, None], sites, 0))
    show("filter", lambda: filtering.filter_mesh(mesh, table))
    show("gather", lambda: spreading.gather_level(mesh, sites, 0))
    show("gather with gradient", lambda: spreading.gather_level(mesh, sites, 1))
    show("layer: field", lambda: layer(weights, points, cell, tables=tables))
    show("layer: field and forces", field_and_forces)
    show("layer: training step", training_step)


def model_stages(watch: Stopwatch) -> None:
    settings = ModelSettings(elements=("Na", "Cl"), long_range=LongRangeSettings())
    model = build_model(settings, generator=torch.Generator().manual_seed(0)).double()
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 3
    atoms.rattle(0.1, seed=0)
    calculator = LRCCalculator(Potential(model, torch.zeros(2, dtype=torch.float64), {}))
    atoms.calc = calculator
    atoms.get_forces()
    graph = calculator.neighbor_list.graph(atoms)
    print("model, 216 ions")
    watch.show("energy and forces", lambda: evaluate(calculator.model, graph))
    watch.show("energy, forces and stress", lambda: evaluate(calculator.model, graph, stress=True))

    def step() -> None:
        atoms.positions[0, 0] += 1e-6
        atoms.get_forces()

    watch.show("calculator, atoms moved a little", step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--json", action="store_true", help="without the model; the rows once more, in one last line")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads; ms: minimum, median")
    watch = Stopwatch()
    for n_atoms in arguments.atoms:
        layer_stages(n_atoms, watch)
    if arguments.json:
        print(json.dumps(watch.rows))
    else:
        model_stages(watch)


if __name__ == "__main__":
    main()
