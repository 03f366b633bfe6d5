"""Run every compiled kernel once and print what it wrote; see `test_cold_kernels.py`.

Each line names a kernel, holds a digest of the arrays that it was called with, after the call, names the module, and
says where the kernel came from: compiled by this process, or loaded from NUMBA_CACHE_DIR.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lrc_ase
from lrc_ase.compiled import compilation

plain_compiled = compilation.compiled


def recorded(function: Callable[..., Any], *variant: object) -> Callable[..., Any]:
    """A kernel that prints a line after each call."""
    kernel = plain_compiled(function, *variant)
    name = "_".join(map(str, variant))
    module = Path(sys._getframe(1).f_code.co_filename).relative_to(Path(lrc_ase.__file__).parent)

    def call(*arguments: Any) -> Any:
        result = kernel(*arguments)
        digest = hashlib.sha256()
        for array in arrays_in(arguments):
            digest.update(array.tobytes())
        origin = "loaded" if sum(kernel.stats.cache_hits.values()) else "compiled"
        print(name, digest.hexdigest()[:16], module, origin)
        return result

    return call


def arrays_in(arguments: Any) -> list[np.ndarray]:
    if isinstance(arguments, np.ndarray):
        return [arguments]
    if isinstance(arguments, (tuple, list)):
        return [array for argument in arguments for array in arrays_in(argument)]
    return []


def main() -> None:
    compilation.compiled = recorded  # before the kernels' modules import it
    from ase.build import bulk

    from lrc_ase import LongRangeSettings, LRCCalculator, ModelSettings, SphereSettings
    from lrc_ase.files.potential_file import Potential
    from lrc_ase.models.derivatives import evaluate
    from lrc_ase.models.model import build_model

    torch.set_num_threads(1)
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 2
    atoms.rattle(0.1, seed=0)
    for dtype in (torch.float64, torch.float32):
        for n_blocks, neighbor_degree in ((1, 0), (2, 0), (2, 1)):
            torch.manual_seed(0)
            settings = ModelSettings(
                elements=("Na", "Cl"),
                cutoff=4.0,
                descriptor=SphereSettings(n_blocks=n_blocks, neighbor_degree=neighbor_degree),
                long_range=LongRangeSettings(n_dipoles=2),
                # longer than any distance between neighbors, so that the repulsion acts
                baseline=[{"name": "zbl", "ranges": {"Na-Na": 4.0, "Na-Cl": 4.0, "Cl-Cl": 4.0}}],
            )
            model = build_model(settings, generator=torch.Generator().manual_seed(0)).to(dtype)
            atoms.calc = LRCCalculator(Potential(model, torch.zeros(2, dtype=torch.float64), {}))
            atoms.get_forces()
            graph = atoms.calc.neighbor_list.graph(atoms)
            model.requires_grad_(True)
            results = evaluate(model, graph, stress=True, training=True)
            (results.forces.pow(2).sum() + results.stress.pow(2).sum()).backward()
        molecule = atoms[:6]
        molecule.pbc = False
        molecule.calc = LRCCalculator(Potential(model.requires_grad_(False), torch.zeros(2, dtype=torch.float64), {}))
        molecule.get_forces()


if __name__ == "__main__":
    main()
