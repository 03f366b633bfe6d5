"""matscipy's neighbor search against that of vesin: the same pairs, and how long each takes.

pip install vesin
python tests/benchmarks/neighbor_search.py [--cutoff 5.5] [--structures 300]

Pairs with their lattice shifts are compared on random structures of 1 to 40 atoms in slanted cells, many smaller than
the cutoff, with every mixture of boundaries and positions outside the cell. Times are the best of 15 on rattled rock
salt, one thread, beside the whole of `neighbor_graph`, which calls matscipy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import vesin
from ase import Atoms
from ase.build import bulk
from matscipy.neighbours import neighbour_list

from lrc_ase.structures.neighbors import _enclosing_cell, complete_cell, neighbor_graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cutoff", type=float, default=5.5)
    parser.add_argument("--structures", type=int, default=300)
    arguments = parser.parse_args()
    search = vesin.NeighborList(cutoff=arguments.cutoff, full_list=True, sorted=True, n_threads=1)

    def by_matscipy(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> list[np.ndarray]:
        return neighbour_list("ijdS", positions=positions, cell=cell, pbc=pbc, cutoff=arguments.cutoff)

    def by_vesin(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> list[np.ndarray]:
        return search.compute(positions, cell, pbc, "ijdS")

    different = 0
    for seed in range(arguments.structures):
        atoms = structure(np.random.default_rng(seed))
        cell = complete_cell(atoms.cell.array, atoms.pbc)
        place = atoms.positions, _enclosing_cell(atoms.positions, cell, atoms.pbc), atoms.pbc
        different += pairs(by_matscipy(*place)) != pairs(by_vesin(*place))
    print(f"{arguments.structures} structures, {different} with different pairs")
    for repeat in (1, 2, 3, 5, 8):
        atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * repeat
        atoms.rattle(0.1, seed=0)
        place = atoms.positions, atoms.cell.array, atoms.pbc
        times = [best(lambda f=f, p=place: f(*p)) for f in (by_matscipy, by_vesin)]
        graph = best(lambda a=atoms: neighbor_graph(a, ("Na", "Cl"), arguments.cutoff))
        print(f"{len(atoms):5d} atoms: matscipy {times[0]:.3f}, vesin {times[1]:.3f}, neighbor_graph {graph:.3f} ms")


def structure(rng: np.random.Generator) -> Atoms:
    """Atoms in and around a slanted cell of at least 3 cubic Angstrom."""
    while True:
        cell = np.diag(rng.uniform(1.5, 12, 3)) @ (np.eye(3) + rng.uniform(-0.7, 0.7, (3, 3)))
        if abs(np.linalg.det(cell)) > 3:
            break
    n_atoms = int(rng.integers(1, 40))
    return Atoms(f"Na{n_atoms}", positions=rng.uniform(-15, 15, (n_atoms, 3)), cell=cell, pbc=rng.random(3) < 0.6)


def pairs(found: list[np.ndarray]) -> set[tuple[int, ...]]:
    """First atom, second atom and lattice shift of every pair."""
    first, second, _, shifts = found
    return set(zip(first.tolist(), second.tolist(), *shifts.T.tolist(), strict=True))


def best(task: Callable[[], object]) -> float:
    """Shortest time of 15, ms."""
    times = []
    for _ in range(15):
        begin = time.perf_counter()
        task()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


if __name__ == "__main__":
    main()
