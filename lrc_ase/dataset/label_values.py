"""Values of labels: names, numbers from text, shapes, conversion of virials, contradictions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

__all__ = [
    "DETECTED_KEYS",
    "Label",
    "Remark",
    "Value",
    "agreed",
    "find_energy",
    "find_forces",
    "find_stress",
    "lookalike",
    "values_of",
]

Label = Literal["energy", "forces", "stress", "dipole", "born_effective_charges", "polarizability"]
Quantity = Literal["energy", "forces", "stress", "virial", "dipole", "born_effective_charges", "polarizability"]
_PREFIXES = ("", "REF_", "ref_", "dft_", "DFT_")
DETECTED_KEYS: dict[Quantity, tuple[str, ...]] = {
    "energy": tuple(f"{prefix}energy" for prefix in _PREFIXES),
    "forces": tuple(f"{prefix}{name}" for name in ("forces", "force") for prefix in _PREFIXES),
    "stress": tuple(f"{prefix}stress" for prefix in _PREFIXES),
    "virial": tuple(f"{prefix}{name}" for name in ("virial", "virials") for prefix in _PREFIXES),
    "dipole": tuple(f"{prefix}dipole" for prefix in _PREFIXES),
    # not `bec`: programs that write this name disagree about the order of its indices
    "born_effective_charges": tuple(f"{prefix}born_effective_charges" for prefix in _PREFIXES),
    "polarizability": tuple(f"{prefix}polarizability" for prefix in _PREFIXES),
}
"""Names under which labels are looked up unless the user names one."""
_UNITS: dict[Quantity, str] = {
    "energy": "eV",
    "forces": "eV/Angstrom",
    "stress": "eV/Angstrom^3",
    "virial": "eV",
    "dipole": "e Angstrom",
    "born_effective_charges": "e",
    "polarizability": "e^2 Angstrom^2/eV",
}
_TOLERANCES: dict[Label, tuple[float, float]] = {
    "energy": (1e-5, 1e-9),
    "forces": (1e-5, 1e-5),
    "stress": (1e-6, 1e-4),
    "dipole": (1e-4, 1e-4),
    "born_effective_charges": (1e-4, 1e-4),
    "polarizability": (1e-4, 1e-4),
}
"""Absolute and relative difference up to which two values count as the same number, written with different digits."""
_FORTRAN = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))[dD]([+-]?\d+)$")
_LARGEST_ASYMMETRY = 0.01
"""Difference of two off-diagonal elements, as a fraction of the largest element, from which a stress is doubted."""
_WORDS: dict[Label, tuple[str, ...]] = {
    "energy": ("energy", "energie"),
    "forces": ("force", "gradient"),
    "stress": ("stress", "virial"),
    "dipole": ("dipole",),
    "born_effective_charges": ("born", "bec"),
    "polarizability": ("polarizability", "polarisability"),
}
_PER_ATOM = ("forces", "born_effective_charges")
"""Labels that stand in `Atoms.arrays`."""
_OTHER_MEANINGS = ("weight", "std", "error", "uncert", "kinetic", "per_atom", "formation", "max", "rms")
"""Parts of names that are no label although they hold one of `_WORDS`."""


class Remark(NamedTuple):
    """Sentence about the reading of the labels of a frame."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Value:
    """Value of a label and the entry it was read from."""

    source: str
    numbers: np.ndarray


def find_energy(atoms: Atoms, key: str | None, name: str, remarks: list[Remark]) -> np.ndarray | None:
    """Return the total energy in eV, shape (), or None.

    Programs with smeared occupations report two energies: `energy` extrapolated to zero smearing, and `free_energy`,
    of which the forces are the derivative. Without a key of the user `free_energy` is read where the two differ.
    """
    values = [_scalar(value, name) for value in values_of(atoms, "energy", key, name)]
    free = None if key else _free_energy(atoms, name)
    if free is None:
        return agreed(values, "energy", name)
    if not values:
        return free.numbers
    smeared = values[0].source == "calculator result 'energy'" and not _same(values[0].numbers, free.numbers, "energy")
    if not smeared:
        return agreed(values, "energy", name)
    # other names may repeat either of the two energies, but no third one
    agreed([value for value in values if not _same(value.numbers, free.numbers, "energy")], "energy", name)
    remarks.append(
        Remark(
            "energy read from 'free_energy', of which the forces are the derivative, and not from 'energy', its value "
            "at zero smearing; the energy key 'energy' chooses the other"
        )
    )
    return free.numbers


def find_forces(atoms: Atoms, key: str | None, name: str) -> np.ndarray | None:
    """Return the forces in eV/Angstrom, (n_atoms, 3), or None."""
    values = [_rows(value, len(atoms), name) for value in values_of(atoms, "forces", key, name)]
    return agreed(values, "forces", name)


def find_stress(
    atoms: Atoms, stress_key: str | None, virial_key: str | None, name: str, remarks: list[Remark]
) -> np.ndarray | None:
    r"""Return the stress in eV/Angstrom^3, (3, 3), or None; a virial W is converted by :math:`\sigma = -W / V`.

    A key for stress or virial excludes the other. Structures that are open in some direction have no volume and hence
    no stress.
    """
    stresses = [] if virial_key else [_matrix(value, name) for value in values_of(atoms, "stress", stress_key, name)]
    virials = [] if stress_key else [_matrix(value, name) for value in values_of(atoms, "virial", virial_key, name)]
    if not atoms.pbc.all():
        if any(np.isfinite(value.numbers).all() for value in [*stresses, *virials]):
            remarks.append(Remark("stress left out: a structure that is open in some direction has no volume"))
        return None
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    if virials and volume == 0:
        raise ValueError(f"{name}: {virials[0].source} needs a cell with a volume to become a stress, got none")
    if stresses and volume == 0:
        remarks.append(Remark("stress left out: the cell has no volume", is_warning=True))
        return None
    converted = [Value(f"{value.source} (as -virial / volume)", -value.numbers / volume) for value in virials]
    chosen = agreed([*stresses, *converted], "stress", name)
    if chosen is None:
        return None
    if virials and not stresses:
        remarks.append(Remark(f"stress = -virial / volume, virial read from {virials[0].source}"))
    asymmetry = np.abs(chosen - chosen.T).max()
    if asymmetry > _LARGEST_ASYMMETRY * np.abs(chosen).max():
        remarks.append(Remark("the stress is not symmetric: are its numbers in another order?", is_warning=True))
    return chosen


def lookalike(atoms: Atoms, label: Label) -> str | None:
    """Return the name of an entry that looks like the label but is not read, or None."""
    quantities: tuple[Quantity, ...] = ("stress", "virial") if label == "stress" else (label,)
    shapes: dict[Label, tuple[tuple[int, ...], ...]] = {
        "energy": ((),),
        "forces": ((len(atoms), 3),),
        "stress": ((6,), (9,), (3, 3)),
        "dipole": ((3,),),
        "born_effective_charges": ((len(atoms), 9), (len(atoms), 3, 3)),
        "polarizability": ((9,), (3, 3)),
    }
    known = {"free_energy", "energies", "stresses"}.union(*(DETECTED_KEYS[quantity] for quantity in quantities))
    for name, value in {**_results(atoms), **(atoms.arrays if label in _PER_ATOM else atoms.info)}.items():
        folded = name.lower() if isinstance(name, str) else ""
        if name in known or not any(word in folded for word in _WORDS[label]):
            continue
        if any(word in folded for word in _OTHER_MEANINGS) or isinstance(value, (str, bool)):
            continue
        if np.shape(value) in shapes[label]:
            return str(name)
    return None


def _results(atoms: Atoms) -> Mapping[str, Any]:
    # raw results: Atoms.get_forces() would zero the forces of constrained atoms
    return {} if atoms.calc is None else atoms.calc.results


def values_of(atoms: Atoms, quantity: Quantity, key: str | None, name: str) -> Iterator[Value]:
    """Yield the values of a quantity under the key of the user or the common names, from the calculator first."""
    stored = atoms.arrays if quantity in _PER_ATOM else atoms.info
    stored_kind = "array" if quantity in _PER_ATOM else "info entry"
    for kind, entries in (("calculator result", _results(atoms)), (stored_kind, stored)):
        for candidate in (key,) if key else DETECTED_KEYS[quantity]:
            if (value := entries.get(candidate)) is not None:
                source = f"{kind} '{candidate}'"
                yield Value(source, _numbers(value, f"{name}: {quantity}, {source},", _UNITS[quantity]))


def _free_energy(atoms: Atoms, name: str) -> Value | None:
    """Return the finite `free_energy` of the calculator, or None."""
    value = _results(atoms).get("free_energy")
    if value is None:
        return None
    source = "calculator result 'free_energy'"
    numbers = _scalar(Value(source, _numbers(value, f"{name}: energy, {source},", "eV")), name)
    return numbers if np.isfinite(numbers.numbers) else None


def _numbers(value: Any, where: str, unit: str) -> np.ndarray:
    """Return a value as float64; text is parsed, including exponents as Fortran writes them (1.0D+02)."""
    if isinstance(value, (str, bytes)):
        words = (value.decode(errors="replace") if isinstance(value, bytes) else value).replace(",", " ").split()
        try:
            numbers = [float(_FORTRAN.sub(r"\1e\2", word)) for word in words]
        except ValueError as error:
            raise ValueError(f"{where} is the text {value[:40]!r}: expected numbers in {unit}, and no unit") from error
        return np.array(numbers[0] if len(numbers) == 1 else numbers, dtype=np.float64)
    try:
        array = np.asarray(value)
        if array.dtype.kind in "US":
            array = np.array([_numbers(str(each), where, unit) for each in array.ravel()]).reshape(array.shape)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"numbers of type {array.dtype}")
        return array.astype(np.float64)
    except TypeError as error:
        raise ValueError(f"{where} must hold numbers in {unit}, got {str(value)[:40]!r}") from error


def _scalar(value: Value, name: str) -> Value:
    """Return an energy as a number; ValueError for an array."""
    if value.numbers.size != 1:
        raise ValueError(f"{name}: energy must be one number, got shape {list(value.numbers.shape)} in {value.source}")
    return Value(value.source, value.numbers.reshape(()))


def _rows(value: Value, n_atoms: int, name: str) -> Value:
    """Return forces as (n_atoms, 3); ValueError for a transposed array, whose numbers would land on other atoms."""
    shape = value.numbers.shape
    if shape not in ((n_atoms, 3), (1, n_atoms, 3), (3 * n_atoms,)):
        raise ValueError(f"{name}: forces must have shape {[n_atoms, 3]}, got {list(shape)} in {value.source}")
    return Value(value.source, value.numbers.reshape(n_atoms, 3))


def _matrix(value: Value, name: str) -> Value:
    """Return a stress or virial as a matrix (3, 3): six numbers in Voigt's order, or nine."""
    shape = value.numbers.shape[1:] if value.numbers.shape[:1] == (1,) else value.numbers.shape
    # programs order six numbers differently (VASP: xx yy zz xy yz zx): messages name the order that is read
    if shape == (6,):
        return Value(f"{value.source}, xx yy zz yz xz xy", voigt_6_to_full_3x3_stress(value.numbers.reshape(6)))
    if shape not in ((9,), (3, 3)):
        raise ValueError(
            f"{name}: {value.source} must hold nine numbers, or six in the order xx yy zz yz xz xy, "
            f"got shape {list(value.numbers.shape)}"
        )
    return Value(value.source, value.numbers.reshape(3, 3))


def _same(one: np.ndarray, other: np.ndarray, label: Label) -> bool:
    """Return True if two values are the same number, possibly written with different digits."""
    absolute, relative = _TOLERANCES[label]
    scale = np.abs(other[np.isfinite(other)]).max(initial=0.0)
    return bool(np.allclose(one, other, rtol=0, atol=absolute + relative * scale, equal_nan=True))


def agreed(values: Sequence[Value], label: Label, name: str) -> np.ndarray | None:
    """Return the first of several values; ValueError if another one differs, as only the user knows the right one."""
    for other in values[1:]:
        if not _same(other.numbers, values[0].numbers, label):
            raise ValueError(
                f"{name}: {values[0].source} and {other.source} differ; say which is meant by the {label} key"
            )
    return values[0].numbers if values else None
