"""Total charge of a structure: the entries of `Atoms.info` that hold it, and signs of one that is not read."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms

from lrc_ase.structures.caller_warnings import warn_caller

__all__ = [
    "CHARGE_NAMES",
    "ChargeWarning",
    "charge_doubt",
    "charge_entries",
    "repeated",
    "set_total_charge",
    "take_charge_from",
    "total_charge",
]

CHARGE_NAMES = (
    "charge",
    "total_charge",
    "tot_charge",
    "charge_total",
    "net_charge",
    "system_charge",
    "molecular_charge",
    "molecule_charge",
    "mol_charge",
    "ref_charge",
    "ref_total_charge",
    "dft_charge",
    "dft_total_charge",
)
"""Entries of `Atoms.info` read as the total charge. Case, underscores and hyphens make no difference: `TotalCharge`,
`REF_charge` and `Charge` are read too."""
_INTEGER = 0.02
"""Distance from an integer within which a sum of initial charges counts as that integer, e."""


@lru_cache(maxsize=256)
def _folded(name: Any) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "") if isinstance(name, str) else ""


_FOLDED_NAMES = frozenset(_folded(name) for name in CHARGE_NAMES)


def charge_entries(atoms: Atoms) -> dict[str, Any]:
    """Return the entries of `Atoms.info` that name a total charge (see `CHARGE_NAMES`)."""
    return {name: value for name, value in atoms.info.items() if _folded(name) in _FOLDED_NAMES}


def total_charge(atoms: Atoms) -> float:
    """Return the total charge of a structure in e, 0 where `Atoms.info` names none under `CHARGE_NAMES`.

    Raises
    ------
    ValueError
        An entry is not one finite number, or two entries differ.
    """
    entries = charge_entries(atoms) if atoms.info else {}
    if not entries:
        return 0.0
    charges = {name: _as_charge(name, value) for name, value in entries.items()}
    first, *others = charges
    for other in others:
        if abs(charges[other] - charges[first]) > 1e-9:
            raise ValueError(
                f"`atoms.info` names two total charges, '{first}' {charges[first]:g} and '{other}' {charges[other]:g}: "
                "keep the right one, or name it as the charge key"
            )
    return charges[first]


def set_total_charge(atoms: Atoms, charge: float) -> None:
    """Write `charge` (e) to ``atoms.info["charge"]`` in place of all entries that name a total charge."""
    for name in charge_entries(atoms):
        del atoms.info[name]
    atoms.info["charge"] = float(charge)


def repeated(atoms: Atoms, repetitions: tuple[int, int, int]) -> Atoms:
    """Return the structure repeated along its cell vectors, and its total charge with it; without a calculator."""
    large = atoms.repeat(repetitions)
    if charge := total_charge(atoms):
        set_total_charge(large, charge * math.prod(repetitions))
    return large


def take_charge_from(atoms: Atoms, key: str) -> Atoms:
    """Return a copy of `atoms`, calculator included, whose total charge is the entry `key` of `Atoms.info`."""
    if key not in atoms.info:
        raise ValueError(f"no charge under the key '{key}'; `atoms.info` holds {sorted(map(str, atoms.info))}")
    charge = _as_charge(key, atoms.info[key])
    taken = atoms.copy()
    taken.calc = atoms.calc
    taken.info.pop(key)
    set_total_charge(taken, charge)
    return taken


def charge_doubt(atoms: Atoms) -> str | None:
    """Return a sentence if a structure without a named total charge looks charged, else None."""
    if charge_entries(atoms):
        return None
    for name, value in atoms.info.items():
        if isinstance(name, str) and "charge" in name.lower() and np.isscalar(value) and not isinstance(value, str):
            return f"info entry '{name}' looks like a total charge but is not read: name it 'charge' or as the key"
    initial = float(atoms.arrays["initial_charges"].sum()) if "initial_charges" in atoms.arrays else 0.0
    whole = round(initial) if np.isfinite(initial) else 0
    if whole and abs(initial - whole) < _INTEGER:
        return (
            f"initial charges sum to {whole:+d} e but no total charge is named, so the structure counts as neutral: "
            "write the total charge to `atoms.info['charge']`"
        )
    return None


class ChargeWarning:
    """Warn once of a structure that looks charged and counts as neutral."""

    def __init__(self) -> None:
        self._told = False

    def tell(self, atoms: Atoms) -> None:
        """Warn if there is a doubt about the total charge of `atoms`, see `charge_doubt`."""
        if not self._told and (doubt := charge_doubt(atoms)):
            self._told = True
            warn_caller(doubt)


def _as_charge(name: str, value: Any) -> float:
    try:
        charge = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`atoms.info['{name}']` must be the total charge in e, one number, got {value!r}") from error
    if not np.isfinite(charge):
        raise ValueError(f"`atoms.info['{name}']` must be finite, got {value!r}")
    return charge
