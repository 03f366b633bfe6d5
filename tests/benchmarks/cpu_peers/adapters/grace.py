"""GRACE by tensorpotential, with random weights: FS (no messages) and one layer, of the program's own sizes."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf  # noqa: E402  reads the environment
from ase import Atoms  # noqa: E402
from ase.calculators.calculator import Calculator  # noqa: E402
from tensorpotential.calculator import TPCalculator  # noqa: E402
from tensorpotential.potentials import get_preset, get_preset_settings  # noqa: E402
from tensorpotential.tpmodel import TPModel  # noqa: E402

CUTOFF = 6.0
PRESETS = {"fs": ("FS", "small"), "one layer": ("GRACE_1LAYER_latest", "small")}


def calculator(atoms: Atoms, model: str, precision: str, folder: Path) -> Calculator:
    """Return the calculator, in its mode for dynamics."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    preset, size = PRESETS[model]
    settings = get_preset_settings(preset)[size] | {"rcut": CUTOFF}
    elements = {symbol: index for index, symbol in enumerate(sorted(set(atoms.symbols)))}
    neighbors = 14.0 if len(atoms) == 15 else 90.0
    instructions = get_preset(preset)(element_map=elements, avg_n_neigh=neighbors, dense_nbr=True, **settings)
    network = TPModel(instructions.get_instructions())
    network.build(getattr(tf, precision))
    network.decorate_compute_function(getattr(tf, precision), jit_compile=True)
    return TPCalculator(network, mode="uniform", cutoff=CUTOFF)


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {name: version(name) for name in ("tensorpotential", "tensorflow_cpu", "ase")}
