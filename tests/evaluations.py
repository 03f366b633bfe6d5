"""Evaluations made up for tests of tables, plots and files."""

from __future__ import annotations

import numpy as np

from lrc_ase.evaluation import Evaluation
from lrc_ase.evaluation.electric import Comparison

FRAMES = 4
ATOMS = 3


def evaluation(
    *, labels=("energy", "forces", "stress"), sets=None, config_types=(), std=False, n_frames=FRAMES, seed=0
):
    """Predictions and references of frames of three atoms, random but for absent labels."""
    rng = np.random.default_rng(seed)
    n_atoms = np.full(n_frames, ATOMS)
    values = {"energy": (n_frames,), "forces": (n_frames * ATOMS, 3), "stress": (n_frames, 3, 3)}
    predicted = {name: rng.normal(size=shape) for name, shape in values.items()}
    reference = {
        f"reference_{name}": rng.normal(size=shape) if name in labels else np.full(shape, np.nan)
        for name, shape in values.items()
    }
    electric: dict = {}
    frame = np.repeat(np.arange(n_frames), ATOMS)
    if "dipole" in labels:
        pair = rng.normal(size=(2, n_frames, 3))
        electric["dipole"] = Comparison(*pair, np.arange(n_frames))
    if "born_effective_charges" in labels:
        electric["born_effective_charges"] = Comparison(*rng.normal(size=(2, n_frames * ATOMS, 3, 3)), frame)
    return Evaluation(
        n_atoms=n_atoms,
        symbols=np.array(["Na", "Cl", "Cl"] * n_frames),
        sets=tuple(sets or ["all"] * n_frames),
        config_types=tuple(config_types),
        energy_std=np.abs(rng.normal(size=n_frames)) if std else None,
        forces_std=np.abs(rng.normal(size=(n_frames * ATOMS, 3))) if std else None,
        electric=electric,
        **predicted,
        **reference,
    )
