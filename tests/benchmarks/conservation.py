"""Energy conservation at constant energy, and smoothness in the cell and through searches of neighbors.

python tests/benchmarks/conservation.py nve [--dtype float64] [--state melt] [--picoseconds 10] [--timestep 0.5]
python tests/benchmarks/conservation.py scan [--volumes 1000] [--length 14.0]
python tests/benchmarks/conservation.py searches [--steps 2000]
python tests/benchmarks/conservation.py crossings

All with the shipped potential of NaCl (`--potential` for another) and `--frames` of 64 ions. nve: velocity Verlet
after 2 ps of Langevin dynamics at 1200 K; the drift is that of a straight line through the total energy, the deviation
the largest from its start. scan: energies, forces and pressures of one calculator over volumes from -5 % to +5 %, with
`--length` about a cubic cell of that edge; a step shows in their third differences, which a smooth function leaves at
nothing. searches: at each search of neighbors in dynamics, results with the list before and after it. crossings:
forces, and energies less the work of the forces, on both sides of the places where an atom gains or loses points of the
mesh, 1e-9 mesh points apart, along each axis.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

import lrc_ase
from lrc_ase.models.ensemble import members_of
from lrc_ase.simulation import energy_drift, thermalize

FRAMES = Path(__file__).resolve().parents[2] / "examples" / "nacl" / "small.extxyz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["nve", "scan", "searches", "crossings"])
    parser.add_argument("--potential", default="nacl")
    parser.add_argument("--frames", default=str(FRAMES))
    parser.add_argument("--state", default="melt", choices=["melt", "crystal"])
    parser.add_argument("--temperature", type=float, default=1200.0)
    parser.add_argument("--dtype", default="float64", choices=["float32", "float64"])
    parser.add_argument("--picoseconds", type=float, default=10.0)
    parser.add_argument("--timestep", type=float, default=0.5)
    parser.add_argument("--volumes", type=int, default=1000)
    parser.add_argument("--length", type=float, help="Angstrom; the frame's own if not given")
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    atoms = start(arguments.frames, arguments.state, arguments.temperature)
    atoms.calc = lrc_ase.load(arguments.potential, dtype=getattr(torch, arguments.dtype))
    tasks = {
        "nve": lambda: nve(atoms, arguments.temperature, arguments.picoseconds, arguments.timestep),
        "scan": lambda: scan(atoms, arguments.volumes, arguments.length),
        "searches": lambda: searches(atoms, arguments.temperature, arguments.steps, arguments.timestep),
        "crossings": lambda: crossings(atoms),
    }
    tasks[arguments.task]()


def start(frames: str, state: str, temperature: float) -> Atoms:
    """The frame of that state whose temperature is nearest."""
    candidates = [atoms for atoms in ase.io.read(frames, ":") if atoms.info["state"] == state]
    found = min(candidates, key=lambda atoms: abs(atoms.info["temperature"] - temperature))
    return Atoms(found.numbers, positions=found.positions, cell=found.cell, pbc=True)


def equilibrate(atoms: Atoms, temperature: float, steps: int = 1000) -> None:
    """Langevin dynamics with 2 fs; leaves momenta that give the total energy its mean at that temperature."""
    rng = np.random.default_rng(0)
    thermalize(atoms, temperature, rng)
    langevin = Langevin(atoms, 2 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng)
    potentials = []
    for step in range(steps):
        langevin.run(1)
        if step >= steps // 2:
            potentials.append(atoms.get_potential_energy())
    thermalize(atoms, temperature, rng)
    kinetic = 1.5 * len(atoms) * units.kB * temperature + np.mean(potentials) - atoms.get_potential_energy()
    atoms.set_momenta(atoms.get_momenta() * np.sqrt(kinetic / atoms.get_kinetic_energy()))


def nve(atoms: Atoms, temperature: float, picoseconds: float, timestep: float) -> None:
    """Print drift and largest deviation of the total energy."""
    equilibrate(atoms, temperature)
    energies, temperatures = [atoms.get_total_energy()], [atoms.get_temperature()]
    integrator = VelocityVerlet(atoms, timestep * units.fs)
    every = 10
    n_samples = round(1000 * picoseconds / timestep / every)
    began = time.perf_counter()
    for _ in range(n_samples):
        integrator.run(every)
        energies.append(atoms.get_total_energy())
        temperatures.append(atoms.get_temperature())
    seconds = time.perf_counter() - began
    times = np.arange(n_samples + 1) * every * timestep * 1e-3
    found = energy_drift(times, np.array(energies), len(atoms))
    print(
        f"{len(atoms)} ions, {picoseconds:g} ps at {timestep:g} fs, mean {np.mean(temperatures):.0f} K, "
        f"{atoms.calc.neighbor_list.n_searches} searches, {1e3 * seconds / n_samples / every:.2f} ms per step\n"
        f"drift {found.drift:+.2e}, largest deviation {found.max_deviation:.2e} eV/atom"
    )


def scan(atoms: Atoms, n_volumes: int, length: float | None) -> None:
    """Print the steps in energy, forces and pressure, and where the mesh changes."""
    if length is not None:
        atoms.set_cell(3 * [length], scale_atoms=True)
    cell, volume = atoms.cell.array.copy(), atoms.get_volume()
    volumes = volume * np.linspace(0.95, 1.05, n_volumes)
    energies, forces, pressures, meshes = [], [], [], []
    for each in volumes:
        atoms.set_cell(cell * (each / volume) ** (1 / 3), scale_atoms=True)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        pressures.append(-atoms.get_stress()[:3].mean())
        meshes.append(atoms.calc.neighbor_list.graph(atoms).mesh_shapes)
    changes = [i for i in range(1, n_volumes) if meshes[i] != meshes[i - 1]]
    named = [(meshes[i - 1][0], meshes[i][0], f"{100 * (volumes[i] / volume - 1):+.2f} %") for i in changes]
    print(f"{n_volumes} volumes, changes of the mesh: {named}")
    scale = np.sqrt(np.mean(np.square(forces)))
    for name, values, unit in (
        ("energy", np.array(energies) / len(atoms), "eV/atom"),
        ("forces", np.array(forces).reshape(n_volumes, -1) / scale, "of their root mean square"),
        ("pressure", np.array(pressures) / units.GPa, "GPa"),
    ):
        thirds = np.abs(np.diff(values.reshape(n_volumes, -1), n=3, axis=0))
        jumps = np.sqrt(np.mean(thirds**2, axis=1))
        at_changes = {k for i in changes for k in range(i - 3, i + 1)}
        elsewhere = max(jump for k, jump in enumerate(jumps) if k not in at_changes)
        print(f"{name}: largest step {jumps.max() / 2:.1e}, away from changes of the mesh {elsewhere / 2:.1e} {unit}")


def searches(atoms: Atoms, temperature: float, n_steps: int, timestep: float) -> None:
    """Print how much the results differ between the lists before and after each search."""
    equilibrate(atoms, temperature, 200)
    calculator = atoms.calc
    fresh = lrc_ase.LRCCalculator(calculator.potential, skin=0.0)
    integrator = VelocityVerlet(atoms, timestep * units.fs)
    worst_energy = worst_force = 0.0
    seen, n_compared = calculator.neighbor_list.n_searches, 0
    before = atoms.copy()
    for _ in range(n_steps):
        before.positions[:] = atoms.positions
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        integrator.run(1)
        if calculator.neighbor_list.n_searches > seen:  # the step before was the last of the old list
            seen, n_compared = calculator.neighbor_list.n_searches, n_compared + 1
            worst_energy = max(worst_energy, abs(fresh.get_potential_energy(before) - energy))
            worst_force = max(worst_force, np.abs(fresh.get_forces(before) - forces).max())
    print(f"{n_compared} searches: energy {worst_energy:.1e} eV, forces {worst_force:.1e} eV/Angstrom at most")


def crossings(atoms: Atoms) -> None:
    """Print how much energy and forces differ where each atom's window changes its mesh points."""
    calculator = atoms.calc
    ((*mesh,),) = calculator.neighbor_list.graph(atoms).mesh_shapes
    offset = 0.5 * (members_of(calculator.model)[0].long_range.convolution.window.n_points % 2)
    start = atoms.get_scaled_positions(wrap=False)
    energies, forces = [], []
    for atom in range(len(atoms)):
        for axis, n_points in enumerate(mesh):
            sides = []
            for side in (-0.5e-9, 0.5e-9):
                scaled = start.copy()
                scaled[atom, axis] = (round(scaled[atom, axis] * n_points - offset) + offset + side) / n_points
                atoms.set_scaled_positions(scaled)
                sides.append((atoms.get_potential_energy(), atoms.get_forces()))
            (energy, below), (other_energy, above) = sides
            work = 0.5 * (below + above)[atom] @ atoms.cell.array[axis] * 1e-9 / n_points
            energies.append(abs(other_energy - energy + work))
            forces.append(np.abs(above - below).max())
    print(f"{len(energies)} crossings: energy {max(energies):.1e} eV, forces {max(forces):.1e} eV/Angstrom at most")


if __name__ == "__main__":
    main()
