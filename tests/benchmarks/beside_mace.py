"""The presets fast and accurate beside MACE (64 channels, L = 0, two layers, cutoff 5 Angstrom), float32, on the CPU.

python tests/benchmarks/beside_mace.py [--atoms 192 648 1536] [--threads 2] [--repeats 5]

Needs `mace-torch` (the extra `benchmark`). Untrained models, hydrogen and oxygen at the density of water, neighbor
lists made beforehand. Jobs: energy and forces of one structure; one step of training on energies and forces of 4
structures of 168 atoms, optimizer included. Each model and size runs in a process of its own, whose peak memory above
that of the imported and built model is shown; best of `--repeats` after 2 for warming up.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from short_range_speed import water_like

CUTOFF = 5.0
PROGRAMS = ("mace", "lrc-ase", "lrc-ase, 2 blocks")
TRAINING = "training step"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=[192, 648, 1536])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--worker", nargs=2, metavar=("PROGRAM", "JOB"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(*arguments.worker, arguments.repeats)))
        return
    print(f"{arguments.threads} threads, float32\n\n| job | program | ms | of MACE's | peak memory, MB | of MACE's |")
    print("|---|---|---|---|---|---|")
    for job in (*map(str, arguments.atoms), TRAINING):
        name = job if job == TRAINING else f"energy and forces, {job} atoms"
        found = {program: measure(program, job, arguments.threads, arguments.repeats) for program in PROGRAMS}
        for program, (milliseconds, megabytes) in found.items():
            of_time, of_memory = milliseconds / found["mace"][0], megabytes / found["mace"][1]
            print(f"| {name} | {program} | {milliseconds:.1f} | {of_time:.3f} | {megabytes:.0f} | {of_memory:.3f} |")


def measure(program: str, job: str, n_threads: int, repeats: int) -> tuple[float, float]:
    command = [sys.executable, __file__, "--worker", program, job, "--repeats", str(repeats)]
    environment = os.environ | {"OMP_NUM_THREADS": str(n_threads)}
    if program == "mace":  # its e3nn 0.4.4 keeps constants in a pickle that torch 2.6 and newer refuses by default
        environment["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    milliseconds, megabytes = json.loads(finished.stdout.splitlines()[-1])
    return milliseconds, megabytes


def work(program: str, job: str, repeats: int) -> tuple[float, float]:
    """Best time in ms and peak memory in MB of a job."""
    structures = [labelled(168, seed) for seed in range(4)] if job == TRAINING else [labelled(int(job), 0)]
    prepare = mace_task if program == "mace" else own_task
    task = prepare(structures, job == TRAINING, 2 if program.endswith("2 blocks") else 1)
    before = resident()
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return 1e3 * min(times[2:]), peak - before


def resident() -> float:
    """Resident memory of this process, MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def labelled(n_atoms: int, seed: int) -> Atoms:
    """Return a structure with labels drawn at random: what they are does not change the time."""
    atoms, rng = water_like(n_atoms), np.random.default_rng(seed)
    forces = rng.normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()), forces=forces)
    return atoms


def own_task(structures: list[Atoms], training: bool, n_blocks: int) -> Callable[[], object]:
    from lrc_ase import LongRangeSettings, ModelSettings, build_model
    from lrc_ase.dataset import collate_labelled, label_frame, labelled_graph
    from lrc_ase.models.derivatives import evaluate
    from lrc_ase.models.settings import SphereSettings
    from lrc_ase.training.configuration import LossConfiguration
    from lrc_ase.training.losses import loss_of
    from lrc_ase.training.presets import PRESETS

    settings = ModelSettings(
        elements=("H", "O"),
        cutoff=CUTOFF,
        descriptor=SphereSettings.model_validate(PRESETS["fast" if n_blocks == 1 else "accurate"]["descriptor"]),
        average_neighbors=52.0,
        long_range=LongRangeSettings(),
    )
    model = build_model(settings, generator=torch.Generator().manual_seed(0))
    references = torch.zeros(len(settings.elements))
    batch = collate_labelled(
        [labelled_graph(label_frame(a), settings.elements, CUTOFF, references) for a in structures]
    )
    if not training:
        return lambda: evaluate(model, batch.graph)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=True)
    losses = LossConfiguration(stress=0)

    def step() -> None:
        optimizer.zero_grad()
        loss = loss_of(evaluate(model, batch.graph, training=True), batch, losses, 1.0)
        loss.backward(inputs=list(model.parameters()))
        optimizer.step()

    return step


def mace_task(structures: list[Atoms], training: bool, n_blocks: int) -> Callable[[], object]:
    from e3nn import o3
    from mace.data import AtomicData, config_from_atoms
    from mace.data.utils import KeySpecification
    from mace.modules import ScaleShiftMACE, WeightedEnergyForcesLoss, interaction_classes
    from mace.tools import AtomicNumberTable, torch_geometric

    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    table = AtomicNumberTable([1, 8])
    model = ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=2,
        hidden_irreps=o3.Irreps("64x0e"),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(2),
        avg_num_neighbors=52.0,
        atomic_numbers=table.zs,
        correlation=3,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    keys = KeySpecification(info_keys={"energy": "energy"}, arrays_keys={"forces": "forces"})
    data = []
    for atoms in structures:
        atoms.info["energy"], atoms.arrays["forces"] = atoms.get_potential_energy(), atoms.get_forces()
        data.append(AtomicData.from_config(config_from_atoms(atoms, key_specification=keys), table, CUTOFF))
    batch = next(iter(torch_geometric.dataloader.DataLoader(data, batch_size=len(data), shuffle=False)))
    if not training:
        return lambda: model(batch.to_dict(), training=False, compute_force=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=True)
    losses = WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=1.0)

    def step() -> None:
        optimizer.zero_grad()
        losses(pred=model(batch.to_dict(), training=True, compute_force=True), ref=batch).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
