"""Errors of the ASE calculator: unknown keywords, and errors of a model as ASE's exceptions."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, InputError

__all__ = ["absence", "ases_errors", "unknown_keyword"]

_KEYWORDS = ("device", "dtype", "default_dtype", "skin", "electric_field", "label", "directory", "atoms")
_OF_OTHERS = {
    **dict.fromkeys(
        ("charge", "total_charge", "tot_charge", "net_charge"),
        'the charge belongs to the structure, set atoms.info["charge"]',
    ),
    **dict.fromkeys(("external_field", "field", "efield"), "say electric_field=(0, 0, 0.1), in V/Angstrom"),
    **dict.fromkeys(("threads", "n_threads", "num_threads"), "set threads by torch.set_num_threads"),
    **dict.fromkeys(("spin", "multiplicity", "magmoms"), "its potentials know no spin"),
}
"""Keywords of other calculators, and what to do instead."""


def unknown_keyword(name: str) -> str:
    """Return the message for a keyword that the calculator does not have."""
    if name in _OF_OTHERS:
        return f"LRCCalculator has no keyword '{name}': {_OF_OTHERS[name]}"
    near = difflib.get_close_matches(name, _KEYWORDS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"it knows {', '.join(_KEYWORDS)}"
    return f"LRCCalculator has no keyword '{name}'; {hint}"


def absence(name: str, atoms: Atoms | None) -> str | None:
    """Return why a structure has no stress or dipole because of its boundaries, and what to do; None if it has one."""
    if atoms is None:
        return None
    if name in ("stress", "stresses") and not atoms.pbc.all():
        return (
            f"the {name} of a structure need{'s' if name == 'stress' else ''} three periodic directions, got pbc "
            f"{atoms.pbc.tolist()}: keep the cell of a slab, or make it periodic with vacuum (pbc=True) and relax the "
            "in-plane strains alone (`mask` of ASE's cell filters)"
        )
    if name == "dipole" and atoms.pbc.all():
        return (
            "a dipole needs an open direction, got pbc [True, True, True]: `calc.get_polarization(atoms)` is for cells"
        )
    return None


class ases_errors:
    """Translate errors of a model and a lack of memory within a block into ASE's exceptions."""

    def __init__(self, n_atoms: int) -> None:
        self._n_atoms = n_atoms

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Raise ASE's exception for an error that has one."""
        if isinstance(error, ValueError):
            raise InputError(str(error)) from error
        if isinstance(error, (MemoryError, RuntimeError)) and _is_lack_of_memory(error):
            raise CalculationFailed(
                f"out of memory with {self._n_atoms} atoms: take a smaller structure, dtype=torch.float32, a smaller "
                "skin, or a potential with a lower long-range accuracy or cutoff"
            ) from error


def _is_lack_of_memory(error: Exception) -> bool:
    # torch has an exception class for lack of memory only on GPUs; on the CPU the message tells
    known = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
    return known or "can't allocate memory" in str(error)
