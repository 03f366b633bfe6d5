"""One program in one process of its own environment: builds calculators and times steps, as `run.py` asks line by line.

    python worker.py ADAPTER MODEL PRECISION --folder FOLDER [--try SYSTEM]

Reads JSON objects from standard input and answers each with one. Needs ASE and the program, not lrc-ase. With `--try`
one system is prepared and timed for a second, with all messages of the program.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from systems import HALF_PERIOD, Motion, structure

SLOW_STEP = 3.0
"""Seconds; a program whose step takes longer is warm after one evaluation."""
HERE = Path(__file__).resolve().parent


def adapter(name: str) -> ModuleType:
    """Return the module `adapters/NAME.py`, under a name that hides no package."""
    specification = importlib.util.spec_from_file_location(f"adapter_of_{name}", HERE / "adapters" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Worker:
    """Moving structures with calculators, by the name of the system."""

    def __init__(self, name: str, model: str, precision: str, folder: Path) -> None:
        self.adapter = adapter(name)
        self.model, self.precision = model, precision
        self.folder = folder / f"{name}-{model}-{precision}".replace(" ", "-")
        self.motions: dict[str, Motion] = {}
        self.step_seconds: dict[str, float] = {}

    def prepare(self, system: str) -> dict[str, Any]:
        """Build the calculator and warm it up for two steps and at least a second; slow programs for one evaluation."""
        atoms = structure(system)
        folder = self.folder / system.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        atoms.calc = self.adapter.calculator(atoms, self.model, self.precision, folder)
        start = time.perf_counter()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        if not (np.isfinite(energy) and np.isfinite(forces).all() and forces.any()):
            raise ValueError(f"forces are not finite, or all zero: energy {energy}")
        motion = self.motions[system] = Motion(atoms)
        first = time.perf_counter() - start
        motion.run(1)
        self.measure(system, seconds=0)
        end = time.perf_counter() + 1
        while self.step_seconds[system] < SLOW_STEP and time.perf_counter() < end:
            self.measure(system, seconds=0)
        return {"first": first, "seconds": self.step_seconds[system], "versions": self.adapter.versions()}

    def measure(self, system: str, seconds: float) -> dict[str, Any]:
        """Return the mean time of a step over whole periods of the motion, or over as many steps as fit.

        Processor time of all threads stands beside it: equal to the time on an idle core, larger with more threads.
        """
        fit = int(seconds / self.step_seconds[system]) if seconds else 1
        period = 2 * HALF_PERIOD
        n_steps = max(1, fit if fit < period else fit // period * period)
        gc.collect()
        start, start_cpu = time.perf_counter(), time.process_time()
        self.motions[system].run(n_steps)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        self.step_seconds[system] = seconds / n_steps
        return {"seconds": seconds / n_steps, "cpu_seconds": cpu_seconds / n_steps, "steps": n_steps}


def answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """Return what the worker answers, or the error that stopped it."""
    try:
        return getattr(worker, request.pop("do"))(**request)
    except Exception as error:  # what it is goes to the caller, which leaves the program out
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def main() -> None:
    """Answer requests until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter")
    parser.add_argument("model")
    parser.add_argument("precision")
    parser.add_argument("--folder", type=Path, required=True, help="where models are made and kept")
    parser.add_argument("--answers", type=int, default=1, help="file descriptor for the answers")
    parser.add_argument("--try", dest="system", help="prepare and time one system")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    worker = Worker(arguments.adapter, arguments.model, arguments.precision, arguments.folder)
    if arguments.system:
        print(worker.prepare(arguments.system), worker.measure(arguments.system, seconds=1.0))
        return
    with os.fdopen(arguments.answers, "w") as answers:
        for line in sys.stdin:
            print(json.dumps(answer(worker, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
