"""For each program of the comparison, its settings against error of u, error of the forces, and time.

OMP_NUM_THREADS=1 python tests/benchmarks/calibrate.py [--atoms 10000] [--accuracy 1e-4] [--peers torch-pme finufft]

Prints every setting, cheapest first, and marks those that reach the accuracy; `SETTINGS` in peers.py is read off here.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from pathlib import Path
from typing import Any

from exact import exact_answers
from peers import SETTINGS, errors_of, make_peer
from problem import SCREENING, Problem

GRIDS: dict[str, dict[str, tuple]] = {
    "lrc-ase": {"accuracy": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)},
    "torch-pme": {"nodes": (3, 4, 5), "spacing": (1.5, 0.75, 0.37)},
    "nvalchemi": {"order": (4, 5, 6), "spacing": (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35)},
    "finufft": {
        "spacing": (1.0, 0.95, 0.91, 0.85, 0.8, 0.72, 0.68, 0.64),
        "tolerance": (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7),
    },
    "openmm": {"spacing": (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)},
}
GRIDS["ducc0"] = GRIDS["finufft"]


def measure(name: str, problem: Problem, settings: dict[str, Any], folder: Path) -> tuple[float, dict[str, float]]:
    """Best of five of the job 'forces', s, and errors."""
    peer = make_peer(name, problem, **settings)
    errors = errors_of(peer, "forces", exact_answers(problem, folder, ("forces",)))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        peer.forces()
        times.append(time.perf_counter() - start)
    return min(times), errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=10_000)
    parser.add_argument("--accuracy", type=float, default=1e-4, help="relative l2 error of u")
    parser.add_argument("--peers", nargs="+", default=list(SETTINGS))
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks"), help="for the exact answers")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in arguments.peers:
        openmm = name == "openmm"
        problem = Problem(
            arguments.atoms,
            precision="float32" if openmm else "float64",
            screening=0.0 if openmm else SCREENING,
        )
        rows = []
        for values in itertools.product(*GRIDS[name].values()):
            settings = dict(zip(GRIDS[name], values, strict=True))
            rows.append((*measure(name, problem, settings, arguments.cache), settings))
        print(f"\n{name}, {arguments.atoms} atoms: ms of u and forces, errors")
        for seconds, errors, settings in sorted(rows, key=lambda row: row[0]):
            reached = errors.get("u", errors["forces"] / 20) <= arguments.accuracy
            shown = ", ".join(f"{key} {value:.1e}" for key, value in errors.items())
            print(f"{'*' if reached else ' '} {1e3 * seconds:9.2f}  {shown}  {settings}")


if __name__ == "__main__":
    main()
