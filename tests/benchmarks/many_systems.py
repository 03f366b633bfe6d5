"""Time of many small systems at once in torch-sim, against ASE one by one: the table of docs/how-to/engines.md.

python tests/benchmarks/many_systems.py [--potential FILE] [--systems 256] [--cells 1] [--device cpu]

Crystals of NaCl (8 atoms times --cells), all atoms displaced a little before each evaluation of energies, forces and
stress; every system has an ASE calculator of its own, so that it keeps its neighbors too. Best of a few rounds. Freed
memory is kept, as the command line does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch_sim
from ase.build import bulk
from lammps_scaling import untrained

from lrc_ase import LRCCalculator, load_potential
from lrc_ase.engines.torchsim import TorchSimModel
from lrc_ase.layer.memory import keep_freed_memory

ROUNDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", type=Path)
    parser.add_argument("--systems", type=int, default=256)
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    own = parser.parse_args()
    torch.set_num_threads(own.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        potential = load_potential(own.potential or untrained(Path(folder, "untrained.safetensors")))
    print("| atoms per system | precision | ASE, ms for all | torch-sim, ms for all | ratio |\n|---|---|---|---|---|")
    for n_cells in own.cells:
        for dtype in (torch.float64, torch.float32):
            alone, together = times(potential, own.systems, n_cells, torch.device(own.device), dtype)
            precision = str(dtype).removeprefix("torch.")
            print(
                f"| {8 * n_cells} | {precision} | {alone:.0f} | {together:.0f} | {alone / together:.1f} |", flush=True
            )


def times(potential, n_systems: int, n_cells: int, device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Milliseconds for all systems, one by one and at once."""
    rng, frames = np.random.default_rng(0), []
    for index in range(n_systems):
        frames.append(bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat((1, 1, n_cells)))
        frames[-1].rattle(0.1, seed=index)
        frames[-1].calc = LRCCalculator(potential, device=device, dtype=dtype)
    state = torch_sim.io.atoms_to_state(frames, device, torch.float64)
    model = TorchSimModel(potential, device=device, dtype=dtype)
    alone, together = [], []
    for _ in range(ROUNDS):
        moves = [0.01 * rng.normal(size=(len(atoms), 3)) for atoms in frames]
        start = time.perf_counter()
        for atoms, move in zip(frames, moves, strict=True):
            atoms.positions += move
            atoms.get_forces()
            atoms.get_stress()
        alone.append(time.perf_counter() - start)
        start = time.perf_counter()
        state.positions = state.positions + torch.from_numpy(np.concatenate(moves)).to(device)
        found = {name: value.cpu() for name, value in model(state).items()}
        together.append(time.perf_counter() - start)
    np.testing.assert_allclose(found["energy"], [atoms.get_potential_energy() for atoms in frames], rtol=0, atol=1e-3)
    return 1e3 * min(alone), 1e3 * min(together)


if __name__ == "__main__":
    main()
