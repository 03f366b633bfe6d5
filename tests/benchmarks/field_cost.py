"""Cost of a field, and of its code where there is none: ``python tests/benchmarks/field_cost.py [POTENTIAL]``.

CPU time of evaluations of moving ions, taken in turns within one process, so that other work on the machine matters
little. Prints medians in ms per step, and the time that a step without a field spends in the code of fields.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import bulk

from lrc_ase import LRCCalculator
from lrc_ase.structures.electric_field import field_entry, hold_field

ROUNDS, STEPS = 24, 8


def cpu_time(function: Callable[[], object]) -> float:
    """Return the CPU time of a call, ms."""
    start = time.thread_time()
    function()
    return 1e3 * (time.thread_time() - start)


def steps(calculator: LRCCalculator, start: Atoms) -> list[float]:
    """Return the CPU times of the steps of a short random walk."""
    atoms, random = start.copy(), np.random.default_rng(0)
    times = []
    for _ in range(STEPS):
        atoms.positions += 1e-3 * random.standard_normal(atoms.positions.shape)
        times.append(cpu_time(lambda: calculator.get_property("forces", atoms)))
    return times


def main() -> None:
    """Measure crystals of 8, 64 and 216 ions."""
    warnings.simplefilter("ignore")  # the shipped potential has charge without a path
    potential = sys.argv[1] if len(sys.argv) > 1 else "nacl"
    calculators = {
        "without": LRCCalculator(potential),
        "in a field": LRCCalculator(potential, electric_field=(0, 0, 0.1)),
    }
    for repeat in (1, 2, 3):
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
        atoms.rattle(0.05, seed=0)
        times: dict[str, list[float]] = {name: [] for name in calculators}
        for turn in range(ROUNDS + 1):
            for name in sorted(calculators, reverse=bool(turn % 2)):
                new = steps(calculators[name], atoms)
                times[name] += new if turn else []  # the first round compiles
        plain, field = (float(np.median(times[name])) for name in calculators)
        idle = calculators["without"]
        graph = idle.neighbor_list.graph(atoms)
        extra = [
            cpu_time(lambda: (hold_field(atoms), field_entry(atoms), idle._field.on(atoms, graph)))  # noqa: B023
            for _ in range(200)
        ]
        print(
            f"{len(atoms)} ions: {plain:.2f} ms without a field, of it {1e3 * np.median(extra):.0f} us for the code of "
            f"fields; {field:.2f} ms in a field, ratio {field / plain:.2f}"
        )


if __name__ == "__main__":
    main()
