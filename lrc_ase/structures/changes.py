"""Entries of a structure that a model depends on, and which of them differ between two structures."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_changes

from lrc_ase.structures.charge import charge_entries
from lrc_ase.structures.electric_field import FIELD_NAME, field_entry

__all__ = ["changed_inputs"]


def changed_inputs(before: Atoms | None, after: Atoms) -> list[str]:
    """Return the inputs of a model that differ in any bit, under ASE's names; the total charge is `initial_charges`.

    The electric field, for which ASE has no name, is `external_field`.
    """
    if before is None:
        return list(all_changes)
    old, new = before.arrays, after.arrays  # ASE's properties cost as much as the comparison, in every step
    changes = []
    # bytes: `numpy.array_equal` takes several times as long for few atoms
    if old["positions"].tobytes() != new["positions"].tobytes():
        changes.append("positions")
    if old["numbers"].tobytes() != new["numbers"].tobytes():
        changes.append("numbers")
    if before.cell.array.tobytes() != after.cell.array.tobytes():
        changes.append("cell")
    if before.pbc.tobytes() != after.pbc.tobytes():
        changes.append("pbc")
    if before.info or after.info:
        charges: tuple[Any, Any] = charge_entries(before), charge_entries(after)
        if not np.array_equal(*charges):
            changes.append("initial_charges")
        if not np.array_equal(field_entry(before), field_entry(after)):
            changes.append(FIELD_NAME)
    return changes
