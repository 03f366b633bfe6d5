"""Times on a GPU: the layer beside a peer, whole models, a step of training and of molecular dynamics.

python tests/gpu/timings.py RESULTS [--largest 1000000] [--seconds 240] [--rehearsal]

Writes RESULTS/timings.json after each measurement and RESULTS/timings.md at the end, which
docs/notebook/performance.md includes. Times are medians after warming up. A measurement that fails keeps its error; the
others go on. After `--seconds` no new one begins.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

sys.path += [str(Path(__file__).resolve().parents[1] / "benchmarks"), str(Path(__file__).resolve().parents[1])]
from device_timer import timed, wait
from engine_timings import dynamics, torch_sim_batch
from problem import SMEARING, Problem
from short_range_speed import water_like
from torch_peers import Layer, Nvalchemi, NvalchemiFused, TorchPeer, TorchPme

from lrc_ase import LongRangeSettings, ModelSettings, SphereSettings, build_model
from lrc_ase.dataset import LabelledGraph
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.training import filled_batches, soap
from lrc_ase.training.configuration import LossConfiguration, StageConfiguration
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.presets import PRESETS

ELEMENTS = ("H", "O")
PEERS: dict[str, Callable[[Problem], Any]] = {
    "lrc-ase": lambda problem: Layer(problem, 1e-3),
    "torch-pme": lambda problem: TorchPme(problem, nodes=5, spacing=0.79),
    "nvalchemi": lambda problem: Nvalchemi(problem, order=5, spacing=0.7),
    "nvalchemi fused": lambda problem: NvalchemiFused(problem, order=5, spacing=0.7),
}
"""Settings of equal accuracy, 1e-4, from the module `peers`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument(
        "--only", nargs="+", help="kinds: layer, kernels, neighbors, model, training, dynamics, torch-sim, profile"
    )
    parser.add_argument("--rehearsal", action="store_true", help="small sizes, on the CPU")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not (arguments.rehearsal or torch.cuda.is_available()):
        raise SystemExit("timings.py needs a CUDA device; --rehearsal runs it on the CPU")
    device = torch.device("cpu" if arguments.rehearsal else "cuda")
    start, results = time.monotonic(), []
    largest = 10_000 if arguments.rehearsal else arguments.largest
    for kind, label, measure in measurements(device, largest):
        if arguments.only and kind not in (*arguments.only, "machine"):
            continue
        if time.monotonic() - start > arguments.seconds:
            results.append({"kind": kind, "label": label, "error": "no time left"})
            continue
        try:
            results.append({"kind": kind, "label": label} | measure())
        except Exception as error:  # the others go on
            results.append({"kind": kind, "label": label, "error": f"{type(error).__name__}: {error}"[:400]})
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        print(f"{time.monotonic() - start:6.1f} s {json.dumps(results[-1])}", flush=True)
        (arguments.folder / "timings.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.folder / "timings.md").write_text(table(results))


def measurements(device: torch.device, largest: int) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    yield "machine", "machine", lambda: machine(device)
    for n_atoms in sizes(10_000, largest):
        for name in PEERS:
            for job in ("field", "forces", "training"):
                label = f"layer, {job}, {n_atoms} atoms, {name}"
                if not (name == "nvalchemi fused" and job == "training"):
                    yield "layer", label, lambda n=n_atoms, p=name, j=job: layer(n, p, j, device)
        yield "kernels", f"parts of the layer, {n_atoms} atoms", lambda n=n_atoms: parts(n, device)
    for job in ("field", "forces", "training"):  # beyond the memory of the peers
        label = f"layer, {job}, {10 * largest} atoms, lrc-ase"
        yield "layer", label, lambda j=job: layer(10 * largest, "lrc-ase", j, device)
    for n_atoms in sizes(999, largest):
        yield "neighbors", f"neighbor search, {n_atoms} atoms", lambda n=n_atoms: neighbor_search(n, device)
    for preset, dtype, most in (
        ("fast", "float32", largest),
        ("accurate", "float32", 100_000),
        ("fast", "float64", 100_000),
    ):
        for n_atoms in sizes(999, min(most, largest)):
            label = f"energy and forces, {preset}, {dtype}, {n_atoms} atoms"
            yield "model", label, lambda p=preset, d=dtype, n=n_atoms: whole_model(p, d, n, device)
    for preset, boundary, recorded in product(PRESETS, ("periodic", "open"), (False, True)):
        label = f"training step, {preset}, float32, {boundary}, {'recorded' if recorded else 'single kernels'}"
        yield (
            "training",
            label,
            lambda p=preset, b=boundary, r=recorded: training_step(p, device, boundary=b, recorded=r),
        )
    for name, repeats in (("nacl", (2, 3, 5, 10, 50)), ("water-pbe0-ts", (1, 2, 3, 4, 5))):
        for repeat in repeats[:1] if device.type == "cpu" else repeats:
            for barostat in (False, True) if repeat < 50 else (False,):
                label = (
                    f"step of {'NPT' if barostat else 'NVE'} through ASE, {name}, {repeat} cells along each direction"
                )
                yield "dynamics", label, lambda n=name, r=repeat, b=barostat: dynamics(n, r, device, barostat=b)
    for n_systems in (1, 10) if device.type == "cpu" else (1, 10, 100, 1000):
        yield "torch-sim", f"torch-sim, {n_systems} systems of 64 ions", lambda n=n_systems: torch_sim_batch(n, device)
    yield "profile", "kernels of energy and forces", lambda: profile(9990 if largest < 1e5 else 99_999, device)


def sizes(smallest: int, largest: int) -> Iterator[int]:
    size = smallest
    while size <= largest * 1.001:
        yield size - size % 3
        size *= 10


def machine(device: torch.device) -> dict[str, Any]:
    n = 2**28 if device.type == "cuda" else 2**22
    source = torch.zeros(n, device=device)
    target = torch.empty_like(source)
    copy = timed(lambda: target.copy_(source), device)["ms"]
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    if device.type == "cuda":
        import triton

        versions["triton"] = triton.__version__
    return {"device": name, "TB/s copied": round(2 * 4 * n / copy / 1e9, 3)} | versions


def moved(peer: TorchPeer, device: torch.device) -> TorchPeer:
    """Move all tensors and modules that a peer holds."""
    for tensor in peer.trainable:
        tensor.data = tensor.data.to(device)
    for name, value in vars(peer).items():
        if isinstance(value, torch.nn.Module):
            value.to(device)
        elif isinstance(value, torch.Tensor):
            setattr(peer, name, value.detach().to(device).requires_grad_(value.requires_grad))
        elif isinstance(value, tuple) and name != "trainable" and any(isinstance(v, torch.Tensor) for v in value):
            setattr(peer, name, tuple(each.to(device) for each in value))
    if isinstance(peer, Layer):
        kernel = peer.layer.multiplier
        peer.trainable = (kernel.amplitude, kernel.log_screening)
    return peer


def layer(n_atoms: int, name: str, job: str, device: torch.device) -> dict[str, Any]:
    peer = moved(PEERS[name](Problem(n_atoms, precision="float32")), device)
    if name == "nvalchemi fused":
        return timed(peer.field_and_forces, device)

    def field() -> None:
        with torch.no_grad():
            peer.convolve(peer.fixed_positions, peer.weights)

    def forces() -> None:
        _, energy = peer.field_and_energy(peer.positions, peer.weights)
        torch.autograd.grad(energy, peer.positions)

    def training() -> None:
        for parameter in peer.trainable:
            parameter.requires_grad_(True)
        _, energy = peer.field_and_energy(peer.positions, peer.trained_weights)
        (slope,) = torch.autograd.grad(energy, peer.positions, create_graph=True)
        loss = ((slope + peer.force_targets) ** 2).sum()
        torch.autograd.grad(loss, [peer.trained_weights, *peer.trainable])

    return timed({"field": field, "forces": forces, "training": training}[job], device)


def parts(n_atoms: int, device: torch.device) -> dict[str, Any]:
    """Spreading, Fourier transforms and gathering of the layer's default mesh, and the bytes that must pass."""
    from lrc_ase import Coulomb, LongRangeConvolution

    convolution = LongRangeConvolution(Coulomb(smearing=SMEARING), smearing=SMEARING, accuracy=1e-3)
    n, _, _ = convolution.mesh_shape_for((n_atoms / 0.1) ** (1 / 3) * np.eye(3))
    mesh = torch.zeros(1, 1, n, n, n, device=device)
    shape = (n, n, n)
    fft = timed(lambda: torch.fft.irfftn(torch.fft.rfftn(mesh, dim=(2, 3, 4)), s=shape, dim=(2, 3, 4)), device)
    measured: dict[str, Any] = {"mesh": n, "points": convolution.window.n_points, "FFT ms": fft["ms"]}
    if device.type != "cuda":
        return measured
    from lrc_ase.layer.mesh.triton.launch import gather_triton, spread_triton

    coordinates = n * torch.rand(n_atoms, 3, dtype=torch.float64, device=device)
    structure = torch.zeros(n_atoms, dtype=torch.int64, device=device)
    for level, n_orders in ((0, 1), (1, 4), (2, 10)):
        values = torch.randn(n_atoms, n_orders, 1, device=device)
        arguments = coordinates, structure, convolution.window, level
        # what must pass once: coordinates, structures, weights or results, and the mesh
        least = sum(tensor.numel() * tensor.element_size() for tensor in (coordinates, structure, values, mesh))
        measured[f"bytes {level}, MB"] = round(least / 1e6, 1)
        measured[f"spread {level} ms"] = timed(lambda v=values, a=arguments: spread_triton(v, *a, mesh), device)["ms"]
        measured[f"gather {level} ms"] = timed(lambda v=values, a=arguments: gather_triton(mesh, *a, v), device)["ms"]
    keys = torch.randint(n**3, (n_atoms,), device=device, dtype=torch.int32)
    measured["sort ms"] = timed(lambda: torch.sort(keys, stable=True), device)["ms"]
    return measured


def untrained(preset: str, dtype: torch.dtype, device: torch.device) -> ShortRangeModel:
    descriptor = SphereSettings(**PRESETS[preset]["descriptor"])
    long_range = LongRangeSettings(compositions={"H2O": 0})
    settings = ModelSettings(elements=ELEMENTS, descriptor=descriptor, long_range=long_range, average_neighbors=50.0)
    model = build_model(settings, generator=torch.Generator().manual_seed(0))
    return model.to(device=device, dtype=dtype)


def whole_model(preset: str, dtype: str, n_atoms: int, device: torch.device) -> dict[str, Any]:
    model = untrained(preset, getattr(torch, dtype), device).requires_grad_(False)
    graph = neighbor_graph(water_like(n_atoms), ELEMENTS, 5.5, device=device)
    measured = timed(lambda: evaluate(model, graph), device)
    return measured | {"atom-steps per second": round(n_atoms / measured["ms"] * 1e3)}


def neighbor_search(n_atoms: int, device: torch.device) -> dict[str, Any]:
    """Time a search of all neighbors within cutoff and skin, from ASE's atoms to the graph on the device."""
    atoms = water_like(n_atoms)
    measured = timed(lambda: neighbor_graph(atoms, ELEMENTS, 5.5, device=device), device)
    if n_atoms <= 100_000 and device.type != "cpu":
        measured["on the CPU, ms"] = timed(lambda: neighbor_graph(atoms, ELEMENTS, 5.5), device, repeats=1)["ms"]
    return measured


def training_step(preset: str, device: torch.device, *, boundary: str, recorded: bool) -> dict[str, Any]:
    """Time a step of a whole stage of training with SOAP on batches of 8 frames of 96 atoms, or 16 of 15 atoms."""
    model = untrained(preset, torch.float32, device)
    graphs = []
    for seed in range(32):
        atoms = water_like(96 if boundary == "periodic" else 15)
        atoms.rattle(0.02, seed=seed)
        atoms.pbc = boundary == "periodic"
        n_atoms, generator = len(atoms), np.random.default_rng(seed)
        forces, nothing = torch.from_numpy(generator.normal(size=(n_atoms, 3))), torch.full((1, 3, 3), torch.nan)
        graph = neighbor_graph(atoms, ELEMENTS, 5.0)
        numbers = torch.zeros(1, dtype=torch.float64), forces, nothing.double(), torch.ones(1, dtype=torch.float64)
        graphs.append(LabelledGraph(graph, *numbers).to(device))
    size = 8 if boundary == "periodic" else 16
    loss = LossConfiguration(energy=1.0, forces=1.0)
    stage = StageConfiguration(
        name="timed", model="full-range", epochs=1000, batch_size=size, loss=loss, learning_rate=1e-3
    )
    with (
        patch.object(filled_batches, "_RECORDING_DEVICE", "cuda" if recorded else "none"),
        patch.object(soap, "_RECORDING_DEVICE", "cuda" if recorded else "none"),
    ):
        loop = StageLoop(model, stage, graphs, [], force_scale=1.0, seed=0)
        n_steps = 2 if device.type == "cpu" else 40
        batches = [dict(enumerate(graphs[i % 32 : i % 32 + size])) for i in range(0, 32, size)]
        for number in range(n_steps):
            loop._step(batches[number % len(batches)])
        wait(device)
        start = time.perf_counter()
        for number in range(n_steps):
            loop._step(batches[number % len(batches)])
        wait(device)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0.0
    return {"ms": round(1e3 * (time.perf_counter() - start) / n_steps, 3), "MB": round(memory)}


def profile(n_atoms: int, device: torch.device) -> dict[str, Any]:
    """The operations that take most of the time of the device."""
    model = untrained("fast", torch.float32, device).requires_grad_(False)
    graph = neighbor_graph(water_like(n_atoms), ELEMENTS, 5.5, device=device)
    evaluate(model, graph)
    with torch.profiler.profile() as profiler:
        evaluate(model, graph)
        wait(device)
    attribute = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, attribute))
    return {f"{event.key[:90]} x{event.count}": round(getattr(event, attribute) / 1e3, 3) for event in events[:40]}


def table(results: list[dict[str, Any]]) -> str:
    """Render what was measured as Markdown."""
    lines = ["| measured | result |", "|---|---|"]
    for result in results:
        values = {name: value for name, value in result.items() if name not in ("kind", "label")}
        if result["kind"] != "profile":
            lines.append(f"| {result['label']} | {', '.join(f'{name}: {value}' for name, value in values.items())} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
