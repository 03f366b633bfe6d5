"""Energies, forces and stresses of frames: where they stand, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.stress import voigt_6_to_full_3x3_stress

from lrc_ase.dataset.reading import SOURCE_KEY
from lrc_ase.models.settings import Settings

__all__ = ["Label", "LabelKeys", "LabelledFrame", "label_frame", "labelled_atoms"]

Label = Literal["energy", "forces", "stress"]
DETECTED_KEYS: dict[Label, tuple[str, ...]] = {
    "energy": ("energy", "REF_energy", "ref_energy", "dft_energy", "DFT_energy"),
    "forces": ("forces", "REF_forces", "ref_forces", "dft_forces", "DFT_forces", "force"),
    "stress": ("stress", "REF_stress", "ref_stress", "dft_stress", "DFT_stress"),
}
"""Names under which labels are looked for when the user gives none."""


class LabelKeys(Settings):
    """Where the labels of a frame stand. None: looked for (see `label_frame`)."""

    energy: str | None = None
    """Key of the total energy, eV, in the results of the frame's calculator or in `Atoms.info`."""
    forces: str | None = None
    """Key of the forces, eV/Angstrom, in the results of the frame's calculator or in `Atoms.arrays`."""
    stress: str | None = None
    """Key of the stress, eV/Angstrom^3, positive in tension, in the calculator's results or in `Atoms.info`."""


@dataclass(frozen=True)
class LabelledFrame:
    """An `Atoms` with its labels, in float64."""

    atoms: Atoms
    energy: float
    """Total energy, eV; NaN without label."""
    forces: np.ndarray
    """eV/Angstrom, (n_atoms, 3); NaN without label. As stored: constraints do not zero them, and what a program wrote
    as exactly zero for fixed atoms counts as no label."""
    stress: np.ndarray
    """eV/Angstrom^3, (3, 3), positive in tension; NaN without label or where not all directions are periodic."""
    name: str
    """How messages call the frame."""
    weight: float = 1.0
    """Multiplies the frame's part of the loss."""


def label_frame(
    atoms: Atoms,
    keys: LabelKeys | None = None,
    *,
    required: Sequence[Label] = ("energy", "forces"),
    weight: float = 1.0,
    name: str | None = None,
) -> LabelledFrame:
    """Collect the labels of a frame.

    Without a key of the user, a label is looked for among the results of the frame's calculator and then in
    `Atoms.info` (energy, stress) or `Atoms.arrays` (forces), under the names of `DETECTED_KEYS`. Two different values
    under two of these names are an error: only the user knows which is meant.

    Raises
    ------
    ValueError
        A required label is absent, has another shape than expected, or is not finite.
    """
    keys = keys or LabelKeys()
    name = name or atoms.info.get(SOURCE_KEY, "the frame")
    values = {}
    shapes: dict[Label, tuple[int, ...]] = {"energy": (), "forces": (len(atoms), 3), "stress": (3, 3)}
    for label, shape in shapes.items():
        value = _find_label(atoms, label, getattr(keys, label), required=label in required, name=name)
        if value is None:
            values[label] = np.full(shape, np.nan)
            continue
        value = np.asarray(value, dtype=np.float64)
        if label == "stress" and value.shape == (6,):
            value = voigt_6_to_full_3x3_stress(value)
        if value.size != np.prod(shape):
            raise ValueError(f"{name}: {label} must have shape {list(shape)}, got {list(value.shape)}")
        if label in required and not np.isfinite(value).all():
            raise ValueError(f"{name}: {label} is not finite; remove the frame or repair its label")
        values[label] = value.reshape(shape)
    zeroed = _fixed(atoms) & (values["forces"] == 0)
    if values["forces"][~zeroed].any():  # some are forces
        values["forces"] = np.where(zeroed, np.nan, values["forces"])
    if not atoms.pbc.all():
        values["stress"] = np.full((3, 3), np.nan)
    return LabelledFrame(atoms, float(values["energy"]), values["forces"], values["stress"], name, weight)


def labelled_atoms(frame: LabelledFrame) -> Atoms:
    """Structure and labels of a frame and nothing else, the labels where ASE looks for them."""
    atoms = Atoms(
        frame.atoms.numbers, positions=frame.atoms.positions, cell=frame.atoms.cell.array, pbc=frame.atoms.pbc
    )
    atoms.info = {key: frame.atoms.info[key] for key in ("charge", SOURCE_KEY) if key in frame.atoms.info}
    labels: dict[str, Any] = {"energy": frame.energy, "forces": frame.forces, "stress": frame.stress}
    known = {name: value for name, value in labels.items() if np.isfinite(value).any()}
    atoms.calc = SinglePointCalculator(atoms, **known)
    return atoms


def _fixed(atoms: Atoms) -> np.ndarray:
    """Components that constraints hold in place, bool (n_atoms, 3)."""
    fixed = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            fixed[constraint.index] |= np.asarray(constraint.mask, dtype=bool)
    return fixed


def _find_label(atoms: Atoms, label: Label, key: str | None, *, required: bool, name: str) -> Any:
    # raw results: Atoms.get_forces() would zero the forces of constrained atoms
    results = {} if atoms.calc is None else atoms.calc.results
    stored = atoms.arrays if label == "forces" else atoms.info
    places: list[tuple[str, Callable[[str], Any]]] = [
        ("calculator result", results.get),
        ("array" if label == "forces" else "info entry", stored.get),
    ]
    found = [
        (f"{place} '{candidate}'", value)
        for place, get in places
        for candidate in ((key,) if key else DETECTED_KEYS[label])
        if (value := get(candidate)) is not None
    ]
    if not found:
        if not required:
            return None
        known = sorted({*results, *atoms.info, *atoms.arrays} - {SOURCE_KEY, "numbers", "positions"})
        looked = f"under the key '{key}'" if key else f"under any of {list(DETECTED_KEYS[label])}"
        raise ValueError(f"{name} has no {label} {looked}; it holds {known}. Name the right one as the {label} key")
    for other, value in found[1:]:
        if np.shape(value) == np.shape(found[0][1]) and not np.allclose(value, found[0][1], equal_nan=True):
            raise ValueError(f"{name}: {found[0][0]} and {other} differ; say which is meant by the {label} key")
    return found[0][1]
