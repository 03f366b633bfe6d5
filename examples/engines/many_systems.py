"""Many systems of different sizes at once in torch-sim: ``python many_systems.py nacl [device]``."""

from __future__ import annotations

import sys

import torch
import torch_sim
from ase.build import bulk

from lrc_ase.engines.torchsim import TorchSimModel

N_SYSTEMS = 64
N_STEPS = 5

device = torch.device(sys.argv[2] if len(sys.argv) > 2 else "cpu")
frames = []
for index in range(N_SYSTEMS):
    frames.append(bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat((1, 1, 1 + index % 3)))
    frames[-1].rattle(0.05, seed=index)
model = TorchSimModel(sys.argv[1] if len(sys.argv) > 1 else "nacl", charge=0.0, device=device)
state = torch_sim.io.atoms_to_state(frames, device, torch.float64)
nve = getattr(torch_sim, "Integrator", torch_sim).nve  # torch-sim 0.3 has no `Integrator`
final = torch_sim.integrate(system=state, model=model, integrator=nve, n_steps=N_STEPS, temperature=300, timestep=0.001)
energies = model(final)["energy"]
print(f"{final.n_systems} systems, {final.n_atoms} atoms; lowest energy {float(energies.min()):.4f} eV")
