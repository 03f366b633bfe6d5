r"""A uniform electric field: the entry of `Atoms.info` that holds it, and the checks of its value.

A structure of polarization P (e Angstrom) has the energy :math:`-E \cdot P`, eV, in a field E (V/Angstrom): a charge q
(e) feels the force :math:`+qE`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

__all__ = [
    "FIELD_NAME",
    "LARGEST_FIELD",
    "as_field",
    "check_field",
    "external_field",
    "field_entry",
    "field_text",
    "hold_field",
]

FIELD_NAME = "external_field"
"""Entry of `Atoms.info` with the field in V/Angstrom, the name that MACE and ml-peg use."""
LARGEST_FIELD = 10.0
"""Largest field accepted, V/Angstrom. A few V/Angstrom evaporate metals: more must be a mistake of the unit."""
_OTHER_NAMES = ("electric_field", "external_electric_field", "efield")
_SMALLEST_VOLTAGE = 1e-12
"""Part of field times cell vector below which the field counts as perpendicular to the vector."""


def as_field(value: Any, name: str) -> np.ndarray:
    """Return a field, three numbers in V/Angstrom, as an array (3,).

    Raises
    ------
    ValueError
        `value`, named `name` in the message, is not three finite numbers of at most `LARGEST_FIELD`.
    """
    try:
        field = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        field = np.empty(0)
    if field.shape != (3,):
        raise ValueError(f"{name} must be three numbers, the electric field along x, y, z in V/Angstrom, got {value!r}")
    if not np.isfinite(field).all():
        raise ValueError(f"{name} must be finite, got {field.tolist()}")
    if np.linalg.norm(field) > LARGEST_FIELD:
        raise ValueError(
            f"{name} is {np.linalg.norm(field):g} V/Angstrom strong, more than {LARGEST_FIELD:g}: check its unit; "
            "1 V/nm = 0.1 V/Angstrom, 1e9 V/m = 0.1 V/Angstrom, 1 atomic unit = 51.42 V/Angstrom"
        )
    return field


def field_entry(atoms: Atoms) -> Any:
    """Return the entry of `Atoms.info` with the field as numbers that can be compared, None without one."""
    value = atoms.info.get(FIELD_NAME)
    return value.tolist() if isinstance(value, np.ndarray) else value


def hold_field(atoms: Atoms) -> None:
    """Replace the entry of the field by a copy: copies of `Atoms` share the values of their `info`."""
    if FIELD_NAME in atoms.info:
        atoms.info[FIELD_NAME] = copy.deepcopy(atoms.info[FIELD_NAME])


def external_field(atoms: Atoms) -> np.ndarray | None:
    """Return the field of a structure from `Atoms.info`, (3,) in V/Angstrom; None without the entry `FIELD_NAME`.

    Raises
    ------
    ValueError
        The entry is not a field (`as_field`), or an entry of a similar name is not zero and has no counterpart of the
        right name.
    """
    if atoms.info.get(FIELD_NAME) is not None:
        return as_field(atoms.info[FIELD_NAME], f'atoms.info["{FIELD_NAME}"]')
    for name in _OTHER_NAMES:
        if name in atoms.info and np.any(atoms.info[name]):
            raise ValueError(
                f'atoms.info["{name}"] is not read: write the field in V/Angstrom to atoms.info["{FIELD_NAME}"], '
                "or take the entry out"
            )
    return None


def field_text(field: np.ndarray | None) -> str:
    """Return a field (3,) as text with all digits, "none" for None and for zero.

    >>> field_text(np.array([0, 0, 0.1]))
    '0.0 0.0 0.1'
    """
    return "none" if field is None or not field.any() else " ".join(map(repr, field.tolist()))


def along_periodic(field: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
    """Return True for the periodic cell vectors that a field has a component along, (n_structures, 3).

    `field` (n_structures, 3), `cell` and `pbc` as in `lrc_ase.structures.graph.Graph`.
    """
    # volts between an atom and its image along each cell vector, (n_structures, 3)
    voltage = (cell * field[:, None, :]).sum(dim=-1)
    size = torch.linalg.vector_norm(cell, dim=-1) * torch.linalg.vector_norm(field, dim=-1)[:, None]
    return pbc & (voltage.abs() > _SMALLEST_VOLTAGE * size)


def check_field(field: Tensor, cell: Tensor, pbc: Tensor, charge: Tensor) -> None:
    """Raise a ValueError if the field of a structure is along a periodic direction, and the structure is charged.

    Such a field accelerates the net charge without end, and the energy has no lower bound. `field` (n_structures, 3),
    `cell`, `pbc` and `charge` as in `lrc_ase.structures.graph.Graph`.
    """
    along = along_periodic(field, cell, pbc)
    wrong = along.any(dim=1) & (charge != 0)
    if wrong.any():
        first = int(wrong.nonzero()[0, 0])
        axes = ", ".join(str(axis) for axis in along[first].nonzero()[:, 0].tolist())
        raise ValueError(
            f"an electric field along a periodic direction (cell vector {axes}) needs a neutral cell, got total charge "
            f"{float(charge[first]):+g} e: neutralize the cell, or point the field along an open direction"
        )
