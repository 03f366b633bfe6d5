"""Settings of small runs of active learning: aluminium cells of four atoms under ASE's effective-medium potential."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from lrc_ase import ModelSettings, Potential
from lrc_ase.files.potential_file import load_potential
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.model import build_model

EMT = "ase.calculators.emt:EMT"
TINY = {
    "cutoff": 4.0,
    "descriptor": {"n_radial": 4, "n_channels": 4, "degrees": [1, 1]},
    "long_range": None,
    "hidden": [8],
}


def crystal() -> Atoms:
    """A cubic cell of four aluminium atoms."""
    return bulk("Al", "fcc", a=4.05, cubic=True)


def content(folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a small run, whose start is written to `folder`; `changes` such as `first__count` replace some."""
    start = folder / "start.extxyz"
    if not start.exists():
        ase.io.write(start, crystal())
    settings: dict[str, Any] = {
        "starts": [str(start)],
        "teacher": {"calculator": EMT, "check": False},
        "first": {"count": 4},
        "exploration": {
            "temperatures": [300.0, 600.0],
            "pressure": 0.0,
            "length": 0.02,
            "walkers": 2,
            "snapshots": 4,
            "check_every": 1,
        },
        "training": {
            "first_epochs": 3,
            "epochs": 2,
            "final_epochs": 2,
            "held_out": 3,
            "settings": {"model": TINY},
        },
        "budget": {"teacher_calls": 10},
        "frames_per_iteration": 4,
        "n_threads": 1,
    }
    for key, value in changes.items():
        *sections, name = key.split("__")
        inside = settings
        for section in sections:
            inside = inside.setdefault(section, {})
        inside[name] = value
    return settings


def ensemble(n_members: int = 2, *, scale: float = 0.05) -> Potential:
    """Untrained potential of aluminium, whose members differ, and which pulls no atom far."""
    settings = ModelSettings.model_validate(
        {**TINY, "elements": ["Al"], "average_neighbors": 40.0, "energy_scale": scale}
    )
    members = [build_model(settings, generator=torch.Generator().manual_seed(seed)) for seed in range(n_members)]
    return Potential(Ensemble(members), torch.zeros(1, dtype=torch.float64))


def positions(frames: list[Atoms]) -> np.ndarray:
    """Positions of all frames."""
    return np.concatenate([atoms.positions for atoms in frames])


def labels_of(run):
    return ase.io.read(run / "labels.extxyz", ":")


def assert_equal_runs(run, other):
    """Compare labels and potentials bit for bit."""
    mine, theirs = labels_of(run), labels_of(other)
    assert [atoms.info["learn_frame"] for atoms in mine] == [atoms.info["learn_frame"] for atoms in theirs]
    for first, second in zip(mine, theirs, strict=True):
        assert np.array_equal(first.positions, second.positions)
        assert first.get_potential_energy() == second.get_potential_energy()
    digests = [load_potential(folder / "potential.safetensors").digest() for folder in (run, other)]
    assert digests[0] == digests[1]
