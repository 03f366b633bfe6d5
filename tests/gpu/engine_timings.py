"""Times of steps as users take them: through ASE's dynamics, and of torch-sim's batches."""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.verlet import VelocityVerlet
from device_timer import timed, wait

from lrc_ase import LRCCalculator, start_structure
from lrc_ase.models.inference import evaluator


def dynamics(name: str, repeat: int, device: torch.device, *, barostat: bool) -> dict[str, Any]:
    """Mean time of steps with a shipped potential, neighbor searches included; recorded, and one kernel at a time."""
    if name == "nacl":
        start = bulk("NaCl", "rocksalt", a=5.7, cubic=True).repeat(repeat)
        start.rattle(0.05, seed=0)
    else:
        start = start_structure(name).repeat(repeat)
    measured: dict[str, Any] = {"atoms": len(start)}
    large = len(start) > evaluator._MOST_RECORDED
    for kind, most in (("", evaluator._MOST_RECORDED), (", one kernel at a time", 0)):
        for dtype in ("float32", "float64"):
            if not (large and (dtype == "float64" or not most)):
                with mock.patch.object(evaluator, "_MOST_RECORDED", most):
                    times = steps(start.copy(), name, device, dtype, barostat=barostat, n_steps=20 if most else 5)
                measured |= {f"{dtype}{kind}, {quantity}": value for quantity, value in times.items()}
    return measured


def steps(
    atoms: Atoms, name: str, device: torch.device, dtype: str, *, barostat: bool, n_steps: int
) -> dict[str, float]:
    """Time steps of dynamics after the first ones, in which a step is recorded; count their neighbor searches."""
    atoms.calc = LRCCalculator(name, device=device, dtype=dtype)
    if barostat:
        options = {"temperature_K": 300, "pressure_au": 0, "tdamp": 50 * units.fs, "pdamp": 500 * units.fs}
        dynamics = IsotropicMTKNPT(atoms, timestep=0.5 * units.fs, **options)
    else:
        dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    dynamics.run(7)
    n_searches = atoms.calc.neighbor_list.n_searches
    wait(device)
    start = time.perf_counter()
    dynamics.run(n_steps)
    wait(device)
    milliseconds = 1e3 * (time.perf_counter() - start) / n_steps
    return {"ms": round(milliseconds, 3), "searches": atoms.calc.neighbor_list.n_searches - n_searches}


def torch_sim_batch(n_systems: int, device: torch.device) -> dict[str, Any]:
    """Time one evaluation of many systems of 64 ions, with the neighbors of the last one and with a new search."""
    import torch_sim

    from lrc_ase.engines.torchsim import TorchSimModel

    atoms = bulk("NaCl", "rocksalt", a=5.7, cubic=True).repeat(2)
    state = torch_sim.io.atoms_to_state([atoms] * n_systems, device, torch.float64)
    model = TorchSimModel("nacl", charge=0.0, device=device, dtype="float32")
    kept = timed(lambda: model(state), device)

    def searched() -> None:
        state.positions = state.positions + 0.5
        model(state)

    return {"atoms": len(state.positions), "ms": kept["ms"], "with a search, ms": timed(searched, device)["ms"]}
