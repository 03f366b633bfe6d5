"""Cost of the polarization current beside that of a step, and of all Born charges.

python tests/benchmarks/polarization_current.py POTENTIAL STRUCTURE [--repeats 20]

A step is energy, forces and stress. The current is one product with a vector (`get_polarization_current`); beside it
the three backward passes of Born charges (`get_born_effective_charges`). Each repeat times all of them in turn; ratios
to the step are medians over the repeats.
"""

from __future__ import annotations

import argparse
import time

import ase.io
import numpy as np

import lrc_ase


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential")
    parser.add_argument("structure")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    atoms = ase.io.read(arguments.structure)
    calculator = lrc_ase.load(arguments.potential)
    ways = {
        "step": calculator.get_forces,
        "current": calculator.get_polarization_current,
        "Born charges": calculator.get_born_effective_charges,
    }
    times = np.zeros((arguments.repeats + 1, len(ways)))
    for row in times:
        atoms.positions[0, 0] += 1e-4  # a new structure
        for column, way in enumerate(ways.values()):
            started = time.perf_counter()
            way(atoms)
            row[column] = time.perf_counter() - started
    warm = times[1:]
    for name, column in zip(ways, warm.T, strict=True):
        print(f"{name:14} {1e3 * np.median(column):8.2f} ms, {np.median(column / warm[:, 0]):.2f} steps")


if __name__ == "__main__":
    main()
