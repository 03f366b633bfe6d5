"""Weights of frames and labels in `Atoms.info`, after the conventions of MACE's data files."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from lrc_ase.dataset.label_values import Label, Remark

__all__ = ["CONFIG_TYPE_KEY", "WEIGHT_KEYS", "frame_weight", "without_switched_off"]

WEIGHT_KEYS = ("config_weight", "weight")
"""Entries of `Atoms.info` that multiply the frame's part of the loss."""
CONFIG_TYPE_KEY = "config_type"
"""Entry of `Atoms.info` that names the kind of a frame; a configuration may assign weights to kinds."""
_LABEL_WEIGHTS: dict[str, Label] = {
    "config_energy_weight": "energy",
    "config_forces_weight": "forces",
    "config_stress_weight": "stress",
    "config_virials_weight": "stress",
    "config_dipole_weight": "dipole",
    "config_polarizability_weight": "polarizability",
}
"""Entries of `Atoms.info` with the weight of one label: 0 leaves the label out."""


def frame_weight(atoms: Atoms, name: str, remarks: list[Remark]) -> float:
    """Return the weight of a frame under `WEIGHT_KEYS`, 1 if it has none."""
    weights = {key: _as_weight(atoms.info[key], key, name) for key in WEIGHT_KEYS if key in atoms.info}
    if len(set(weights.values())) > 1:
        raise ValueError(f"{name}: the weights 'config_weight' and 'weight' differ; keep one of them")
    for key, weight in weights.items():
        if weight != 1:
            remarks.append(Remark(f"weight in the loss read from info entry '{key}'"))
        return weight
    return 1.0


def without_switched_off(
    values: dict[Label, np.ndarray | None], atoms: Atoms, name: str, remarks: list[Remark]
) -> dict[Label, np.ndarray | None]:
    """Return the labels of a frame without those of weight zero; add a doubt about other weights to `remarks`."""
    kept = dict(values)
    for key, label in _LABEL_WEIGHTS.items():
        if key not in atoms.info or kept[label] is None:
            continue
        weight = _as_weight(atoms.info[key], key, name)
        if weight == 0:
            kept[label] = None
            remarks.append(Remark(f"{label} left out: info entry '{key}' is 0"))
        elif weight != 1:
            remarks.append(Remark(f"info entry '{key}' is not read: only 0 has a meaning here", is_warning=True))
    return kept


def _as_weight(value: Any, key: str, name: str) -> float:
    """Return a weight as a number; ValueError for text, negative or infinite values."""
    try:
        weight = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: info entry '{key}' must be a weight, one number, got {value!r}") from error
    if not 0 <= weight < np.inf:
        raise ValueError(f"{name}: info entry '{key}' must be a weight of 0 or more, got {value!r}")
    return weight
