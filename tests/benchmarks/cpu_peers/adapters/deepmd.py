"""DeePMD-kit, TensorFlow: se_e2_a with the settings of its water example, trained for a few steps on random labels.

`plain` is the frozen model, `compressed` the same after `dp compress`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

for name in ("TF_INTRA_OP_PARALLELISM_THREADS", "TF_INTER_OP_PARALLELISM_THREADS"):
    os.environ.setdefault(name, "1")
for name in ("DP_INTRA_OP_PARALLELISM_THREADS", "DP_INTER_OP_PARALLELISM_THREADS"):
    os.environ.setdefault(name, "1")

from deepmd.calculator import DP  # noqa: E402  reads the environment

CUTOFF = 6.0
NEIGHBORS = {"H": 92, "O": 46}
"""Largest numbers of neighbors in water; those of a molecule are counted."""


def calculator(atoms: Atoms, model: str, precision: str, folder: Path) -> Calculator:
    """Return the calculator; both models come from one training."""
    folder = folder.parents[1] / f"deepmd-{precision}-{''.join(sorted(set(atoms.symbols)))}"
    folder.mkdir(parents=True, exist_ok=True)
    frozen, compressed = folder / "frozen.pb", folder / "compressed.pb"
    if not compressed.exists():
        _write_frames(atoms, folder / "frames")
        (folder / "input.json").write_text(json.dumps(_input(atoms, precision, folder)))
        _dp(folder, "train", "input.json")
        _dp(folder, "freeze", "-o", frozen.name)
        _dp(folder, "compress", "-i", frozen.name, "-o", compressed.name)
    return DP(model=str(compressed if model == "compressed" else frozen))


def _dp(folder: Path, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("dp")), "--tf", *arguments]
    with (folder / "dp.log").open("a") as log:
        subprocess.run(command, cwd=folder, check=True, stdout=log, stderr=log)


def _input(atoms: Atoms, precision: str, folder: Path) -> dict[str, object]:
    elements = sorted(set(atoms.symbols))
    numbers = NEIGHBORS if atoms.pbc.any() else atoms.symbols.formula.count()
    neighbors = [numbers[element] for element in elements]
    return {
        "model": {
            "type_map": elements,
            "descriptor": {
                "type": "se_e2_a", "sel": neighbors, "rcut_smth": 0.5, "rcut": CUTOFF, "neuron": [25, 50, 100],
                "resnet_dt": False, "axis_neuron": 16, "seed": 1, "precision": precision, "type_one_side": True,
            },
            "fitting_net": {"neuron": [240, 240, 240], "resnet_dt": True, "seed": 1, "precision": precision},
        },
        "learning_rate": {"type": "exp", "start_lr": 1e-8, "stop_lr": 1e-9, "decay_steps": 10},
        "loss": {"type": "ener", "start_pref_e": 1, "limit_pref_e": 1, "start_pref_f": 1, "limit_pref_f": 1},
        "training": {
            "training_data": {"systems": [str(folder / "frames")], "batch_size": 1},
            "numb_steps": 2, "seed": 1, "disp_freq": 1, "save_freq": 2,
        },
    }  # fmt: skip


def _write_frames(atoms: Atoms, folder: Path) -> None:
    """Write four frames in DeePMD's format, moved at random."""
    rng = np.random.default_rng(0)
    elements = sorted(set(atoms.symbols))
    (folder / "set.000").mkdir(parents=True, exist_ok=True)
    (folder / "type.raw").write_text("\n".join(str(elements.index(symbol)) for symbol in atoms.symbols))
    (folder / "type_map.raw").write_text("\n".join(elements))
    if not atoms.pbc.any():
        (folder / "nopbc").touch()
    cell = atoms.cell.array if atoms.pbc.any() else 20 * np.eye(3)
    coordinates = atoms.positions.reshape(-1) + rng.normal(scale=0.05, size=(4, 3 * len(atoms)))
    arrays = {
        "coord": coordinates,
        "box": np.tile(cell.reshape(-1), (4, 1)),
        "energy": rng.normal(size=4),
        "force": rng.normal(size=coordinates.shape),
    }
    for name, values in arrays.items():
        np.save(folder / "set.000" / f"{name}.npy", values)


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {name: version(name) for name in ("deepmd-kit", "tensorflow_cpu", "ase")}
