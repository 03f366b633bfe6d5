"""Atoms sent to other processes with their calculator, and the calculator behind a socket of the i-PI protocol."""

from __future__ import annotations

import multiprocessing
import os
import sys
from functools import partial

from ase import Atoms
from ase.build import bulk
from ase.calculators.socketio import PySocketIOClient, SocketIOCalculator

import lrc_ase


def energy(atoms: Atoms) -> float:
    """Potential energy, eV."""
    return float(atoms.get_potential_energy())


def main() -> None:
    """Evaluate rattled cells elsewhere."""
    frames = [bulk("NaCl", "rocksalt", a=5.6, cubic=True) for _ in range(3)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
        atoms.calc = lrc_ase.load(sys.argv[1])
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # threads of torch do not survive a fork
        energies = pool.map(energy, frames)
    print("in another process: " + ", ".join(f"{value:.4f}" for value in energies) + " eV")

    launch = PySocketIOClient(partial(lrc_ase.load, sys.argv[1]))
    atoms = frames[0].copy()
    with SocketIOCalculator(unixsocket=f"lrc_ase_{os.getpid()}", launch_client=launch) as atoms.calc:
        print(f"through a socket:   {atoms.get_potential_energy():.4f} eV")
        process = atoms.calc.server.proc
    process.wait()


if __name__ == "__main__":
    main()
