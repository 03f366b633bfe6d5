"""Whether `torch.compile` makes an evaluation faster.

python tests/benchmarks/torch_compile.py [POTENTIAL] [--atoms 64 216] [--dtype float64]

Energy, forces and stress of rattled rock salt by `lrc_ase.evaluate`, one thread, median of 40, plain and compiled in
turn, three times. What Numba compiles already, neighbor vectors, descriptor and mesh, is left out by
`torch._dynamo.disable`: Dynamo cannot trace it. Left for it are the read-out networks and the arithmetic between.
First calls are timed apart.
"""

from __future__ import annotations

import argparse
import time
from copy import deepcopy

import numpy as np
import torch
from ase.build import bulk

import lrc_ase
import lrc_ase.models.model

REPEATS = {8: 1, 64: 2, 216: 3, 512: 4, 1000: 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential", nargs="?", default="nacl")
    parser.add_argument("--atoms", type=int, nargs="+", default=[64, 216], choices=list(REPEATS))
    parser.add_argument("--dtype", default="float64", choices=["float32", "float64"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    calculator = lrc_ase.load(arguments.potential, dtype=getattr(torch, arguments.dtype))
    plain = calculator.model
    compiled = deepcopy(plain)
    lrc_ase.models.model.neighbor_vectors = torch._dynamo.disable(lrc_ase.models.model.neighbor_vectors)
    compiled.descriptor.forward = torch._dynamo.disable(compiled.descriptor.forward)
    compiled.long_range.convolution.forward = torch._dynamo.disable(compiled.long_range.convolution.forward)
    models = {"plain": plain, "compiled": torch.compile(compiled)}
    for n_atoms in arguments.atoms:
        atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * REPEATS[n_atoms]
        atoms.rattle(0.1, seed=0)
        graph = calculator.neighbor_list.graph(atoms)
        forces = {}
        for name, model in models.items():
            begin = time.perf_counter()
            forces[name] = lrc_ase.evaluate(model, graph, stress=True).forces
            print(f"{n_atoms} ions, {name}: first call {time.perf_counter() - begin:.1f} s")
        print(f"largest difference of forces {(forces['plain'] - forces['compiled']).abs().max():.1e} eV/Angstrom")
        for _ in range(3):
            times = {name: median(model, graph) for name, model in models.items()}
            print(", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in times.items()))


def median(model: torch.nn.Module, graph: lrc_ase.structures.graph.Graph) -> float:
    """Seconds of an evaluation."""
    times = []
    for _ in range(40):
        begin = time.perf_counter()
        lrc_ase.evaluate(model, graph, stress=True)
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


if __name__ == "__main__":
    main()
