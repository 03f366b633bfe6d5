"""Time and Python calls of a step of dynamics of small systems through ASE, alone or beside another checkout.

OMP_NUM_THREADS=1 python tests/benchmarks/small_systems.py [--systems molecule ...] [--dtype float32 float64]
                                                           [--rounds 20] [--against CHECKOUT] [--json]

`VelocityVerlet` at 0.5 fs with one thread; masses are scaled up by ten orders of magnitude, so that all runs see the
same positions, whatever their forces. Processes take turns of 50 ms or five steps, in an order that alternates. A
turn counts with the processor time of its fastest step, as other work on the machine makes the rest slower; columns
hold the lowest and the median of the turns in ms. With `--against`, a second process imports lrc_ase from the other
checkout. The last columns are the median ratio of neighboring turns, this checkout over the other, and the standard
error of that median. Calls are those of Python functions in one step between two searches of neighbors: of lrc_ase
alone, and all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
SYSTEMS = {
    "molecule": "acetylacetone, 15 atoms, `accurate`",
    "molecule, fast": "acetylacetone, 15 atoms, `fast`, untrained",
    "64 ions": "NaCl, shipped potential",
    "water": "water, 192 atoms, shipped potential",
    "1000 ions": "NaCl, shipped potential",
    "water cluster": "water in open space, 192 atoms",
    "5184 atoms of water": "water, shipped potential, 3 x 3 x 3 cells",
    "8000 ions": "NaCl, shipped potential",
    "dipoles": "acetylacetone, `fast`, untrained, with atomic dipoles and polarizabilities",
}
_SECONDS_OF_A_TURN = 0.05
_STEPS_OF_A_TURN = 5
"""Fewest steps: caches are cold after the turn of another process."""


def potential(name: str) -> Any:
    """Return the potential of a system: a shipped one, or an untrained model of the settings of one."""
    import torch

    import lrc_ase
    from lrc_ase import Potential
    from lrc_ase.models.model import build_model
    from lrc_ase.models.settings import SphereSettings
    from lrc_ase.training.presets import PRESETS

    if "ions" in name:
        return "nacl"
    if "water" in name:
        return "water-pbe0-ts"
    if name == "molecule":
        return "acetylacetone-pbe"
    settings = lrc_ase.load("acetylacetone-pbe").model.settings
    long_range = settings.long_range
    if name == "dipoles":
        long_range = long_range.model_copy(update={"n_dipoles": 2, "polarizable": True})
    descriptor = SphereSettings.model_validate(PRESETS["fast"]["descriptor"])
    settings = settings.model_copy(update={"descriptor": descriptor, "long_range": long_range})
    model = build_model(settings, generator=torch.Generator().manual_seed(0))
    return Potential(model, torch.zeros(len(settings.elements), dtype=torch.float64), {})


def dynamics(name: str, dtype: str) -> Any:
    """Return dynamics of a system at 300 K."""
    import numpy as np
    from ase import units
    from ase.build import bulk
    from ase.md.verlet import VelocityVerlet

    import lrc_ase

    if "ions" in name:
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * {"64 ions": 2, "1000 ions": 5, "8000 ions": 10}[name]
    else:
        atoms = lrc_ase.start_structure("water-pbe0-ts" if "water" in name else "acetylacetone-pbe")
        atoms = atoms * (3 if "5184" in name else 1)
    if "cluster" in name:
        atoms.pbc = False
    masses = atoms.get_masses()
    rng = np.random.default_rng(0)
    velocities = rng.standard_normal((len(atoms), 3)) * np.sqrt(300 * units.kB / masses)[:, None]
    atoms.set_masses(1e10 * masses)
    atoms.set_velocities(velocities)
    atoms.calc = lrc_ase.LRCCalculator(potential(name), dtype=dtype)
    return VelocityVerlet(atoms, 0.5 * units.fs)


def calls_of_a_step(run: Any) -> tuple[int, int]:
    """Count the calls of Python functions in one step: those of lrc_ase, and all."""
    import lrc_ase

    package, counts = str(Path(lrc_ase.__file__).parent), [0, 0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            counts[1] += 1
            counts[0] += frame.f_code.co_filename.startswith(package)

    sys.setprofile(count)
    run.run(1)
    sys.setprofile(None)
    return counts[0], counts[1]


def work(name: str, dtype: str) -> None:
    """Make steps as told on standard input: a number of steps, or "calls"; print ms of the fastest one, or calls."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # an untrained model has no limits of its training
    run = dynamics(name, dtype)
    run.run(5)
    atoms = run.atoms
    start, velocities, direction = atoms.positions.copy(), atoms.get_velocities(), 1
    for line in sys.stdin:
        if line.strip() == "calls":
            print(*min(calls_of_a_step(run) for _ in range(5)), flush=True)
            continue
        times = []
        for _ in range(int(line)):
            begin = time.process_time()
            run.run(1)
            times.append(time.process_time() - begin)
        print(1e3 * min(times), flush=True)
        # there and back: the system does not fly apart in long measurements
        direction = -direction
        if direction > 0:
            atoms.positions = start
        atoms.set_velocities(direction * velocities)


class Worker:
    """A process that makes steps of one system."""

    def __init__(self, checkout: Path, name: str, dtype: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name, dtype],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, line: object) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return [float(word) for word in self._process.stdout.readline().split()]

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(name: str, dtype: str, checkouts: list[Path], rounds: int) -> dict[str, Any]:
    """Time one system in turns of the checkouts."""
    workers = [Worker(checkout, name, dtype) for checkout in checkouts]
    n_steps = max(_STEPS_OF_A_TURN, int(1e3 * _SECONDS_OF_A_TURN / workers[0].ask(10)[0]))
    times = []
    for turn in range(rounds + 1):  # the first one is not counted
        order = workers if turn % 2 else workers[::-1]
        asked = [worker.ask(n_steps)[0] for worker in order]
        times.append(asked if turn % 2 else asked[::-1])
    times = times[1:]
    calls = [[int(each) for each in worker.ask("calls")] for worker in workers]
    for worker in workers:
        worker.end()
    columns, ratios = list(zip(*times, strict=True)), [turn[0] / turn[-1] for turn in times]
    # of a median: 1.25 standard errors of a mean, with the deviation from quartiles, which lie 1.35 apart
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "system": name, "dtype": dtype, "lowest": [min(each) for each in columns],
        "median": [statistics.median(each) for each in columns], "calls": calls,
        "ratio": statistics.median(ratios), "error": 1.25 * (high - low) / 1.35 / len(ratios) ** 0.5,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS)[:5], choices=list(SYSTEMS))
    parser.add_argument("--dtype", nargs="+", default=["float32", "float64"], choices=["float32", "float64"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--against", type=Path, help="another checkout of the repository")
    parser.add_argument("--json", action="store_true", help="print the rows once more, in one last line")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    checkouts = [ROOT, *([] if arguments.against is None else [arguments.against])]
    print(f"{'system':20s} {'dtype':8s}" + "  lowest  median  calls (all)" * len(checkouts) + "  ratio   +/-")
    rows = []
    for name in arguments.systems:
        for dtype in arguments.dtype:
            row = measure(name, dtype, checkouts, arguments.rounds)
            rows.append(row)
            columns = zip(row["lowest"], row["median"], row["calls"], strict=True)
            text = "".join(f" {low:7.3f} {mid:7.3f} {own:6d} {f'({all_})':>6s}" for low, mid, (own, all_) in columns)
            print(f"{name:20s} {dtype:8s}{text} {row['ratio']:6.3f} {row['error']:.3f}", flush=True)
    if arguments.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
