"""Time of a step of dynamics through ASE: with the step without autograd, with autograd, and without any model.

OMP_NUM_THREADS=1 python tests/benchmarks/md_step.py [--atoms 64 216 512 1000] [--dtype float64 float32] [--rounds 30]
                                                     [--models nacl transfers] [--json]

Rock salt at 600 K, `VelocityVerlet` at 1 fs, one thread. Models: the shipped `nacl`, whose charges are shifted, and the
default model with transfers, untrained. Calculators take turns of a few steps in one process; columns hold medians over
the rounds: ms of processor time per step of either, and the median of their ratios. "ASE" is the same run with forces
that cost nothing, as a share of the step without autograd; its calculator compares atoms by ASE's own functions, which
LRCCalculator does not, so that the share is an upper bound. Calls are those of Python functions in one step between two
searches of neighbors: of lrc_ase alone, and all; then all of the run whose forces cost nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet

import lrc_ase
from lrc_ase import LongRangeSettings, LRCCalculator, ModelSettings
from lrc_ase.files.potential_file import Potential
from lrc_ase.models.model import build_model

REPEATS = {8: 1, 64: 2, 216: 3, 512: 4, 1000: 5, 1728: 6}
PACKAGE = str(Path(lrc_ase.__file__).parent)


class Free(Calculator):
    """Return zeros, so that a run costs what ASE itself takes."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Fill `results`."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}


def potential(name: str) -> Potential | str:
    """Return a shipped potential, or the untrained default model with transfers."""
    if name != "transfers":
        return name
    settings = ModelSettings(
        elements=("Na", "Cl"), long_range=LongRangeSettings(charges="transfers", compositions={"NaCl": 0})
    )
    model = build_model(settings, generator=torch.Generator().manual_seed(0))
    return Potential(model, torch.zeros(2, dtype=torch.float64), {})


def by_autograd(calculator: LRCCalculator) -> LRCCalculator:
    """Make a calculator evaluate by autograd whatever the model."""
    calculator._evaluate.goes_straight = lambda graph: False  # type: ignore[method-assign]
    return calculator


def dynamics(n_atoms: int, calculator: Calculator) -> VelocityVerlet:
    """Return dynamics of rock salt at 600 K."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * REPEATS[n_atoms]
    rng = np.random.default_rng(0)
    atoms.set_velocities(rng.standard_normal((n_atoms, 3)) * np.sqrt(600 * units.kB / atoms.get_masses())[:, None])
    atoms.calc = calculator
    return VelocityVerlet(atoms, 1 * units.fs)


def calls_per_step(run: Callable[[], object]) -> tuple[int, int]:
    """Count the calls of Python functions: those of lrc_ase, and all."""
    counts = [0, 0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            counts[1] += 1
            counts[0] += frame.f_code.co_filename.startswith(PACKAGE)

    sys.setprofile(count)
    run()
    sys.setprofile(None)
    return counts[0], counts[1]


def measure(name: str, n_atoms: int, dtype: str, rounds: int) -> dict[str, Any]:
    """Time one size."""
    runs = {
        "straight": dynamics(n_atoms, LRCCalculator(potential(name), dtype=dtype)),
        "autograd": dynamics(n_atoms, by_autograd(LRCCalculator(potential(name), dtype=dtype))),
        "ase": dynamics(n_atoms, Free()),
    }
    per_round = max(2, 1000 // n_atoms)
    times: dict[str, list[float]] = {key: [] for key in runs}
    for each in runs.values():
        each.run(5)
    for _ in range(rounds):
        for key, each in runs.items():
            begin = time.process_time()
            each.run(per_round)
            times[key].append((time.process_time() - begin) / per_round * 1e3)
    of_lrc, of_all = min(calls_per_step(lambda: runs["straight"].run(1)) for _ in range(5))
    free = min(calls_per_step(lambda: runs["ase"].run(1)) for _ in range(5))[1]
    row = {key: statistics.median(values) for key, values in times.items()}
    return {
        "model": name, "dtype": dtype, "atoms": n_atoms, **row,
        "ratio": statistics.median(a / b for a, b in zip(times["straight"], times["autograd"], strict=True)),
        "ase_share": statistics.median(a / b for a, b in zip(times["ase"], times["straight"], strict=True)),
        "calls": of_lrc, "all_calls": of_all, "ase_calls": free,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=[64, 216, 512, 1000], choices=list(REPEATS))
    parser.add_argument("--dtype", nargs="+", default=["float64", "float32"], choices=["float64", "float32"])
    parser.add_argument("--models", nargs="+", default=["nacl", "transfers"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print the rows once more, in one last line")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # an untrained model has no limits of its training
    print("model      dtype    atoms  straight  autograd  ratio    ASE  calls  (all, ASE's)")
    rows = []
    for name in arguments.models:
        for dtype in arguments.dtype:
            for n_atoms in arguments.atoms:
                row = measure(name, n_atoms, dtype, arguments.rounds)
                rows.append(row)
                print(
                    f"{name:10s} {dtype:8s} {n_atoms:5d} {row['straight']:9.2f} {row['autograd']:9.2f} "
                    f"{row['ratio']:6.3f} {100 * row['ase_share']:5.1f}% {row['calls']:6d}  ({row['all_calls']}, "
                    f"{row['ase_calls']})",
                    flush=True,
                )
    if arguments.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
