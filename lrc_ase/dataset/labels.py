"""Labels of frames: energies, forces, stresses, response to fields, charges and weights, with remarks on doubts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from pydantic import model_validator

from lrc_ase.dataset.constraints import constrained_components
from lrc_ase.dataset.electric_labels import find_born_effective_charges, find_dipole, find_polarizability
from lrc_ase.dataset.frame_weights import CONFIG_TYPE_KEY, frame_weight, without_switched_off
from lrc_ase.dataset.label_values import (
    DETECTED_KEYS,
    Label,
    Quantity,
    Remark,
    find_energy,
    find_forces,
    find_stress,
    lookalike,
)
from lrc_ase.dataset.magnetism import magnetism_remark
from lrc_ase.dataset.reading import CONVERSION, SOURCE_KEY, is_of_cp2k
from lrc_ase.models.settings import Settings
from lrc_ase.structures.charge import charge_doubt, charge_entries, take_charge_from, total_charge
from lrc_ase.structures.electric_field import FIELD_NAME, external_field, field_text

__all__ = [
    "ELECTRIC_LABELS",
    "Label",
    "LabelKeys",
    "LabelRules",
    "LabelledFrame",
    "UnlabelledFrame",
    "label_frame",
    "labelled_atoms",
]

ELECTRIC_LABELS: tuple[Label, ...] = ("dipole", "born_effective_charges", "polarizability")
"""Labels of the response to electric fields, which a frame may have besides energy, forces and stress."""


class LabelKeys(Settings):
    """Names under which the labels of a frame stand. None: the common names are tried (see `label_frame`)."""

    energy: str | None = None
    """Name of the total energy, eV, in the results of the frame's calculator or in `Atoms.info`."""
    forces: str | None = None
    """Name of the forces, eV/Angstrom, in the results of the frame's calculator or in `Atoms.arrays`."""
    stress: str | None = None
    """Name of the stress, eV/Angstrom^3, positive in tension, in the calculator's results or in `Atoms.info`."""
    virial: str | None = None
    """Name of the virial, eV, in the same places; read as stress = -virial / volume."""
    charge: str | None = None
    """Name of the total charge, e, in `Atoms.info`."""
    dipole: str | None = None
    """Name of the dipole about the origin of the coordinates, e Angstrom, in the calculator's results or in
    `Atoms.info`."""
    born_effective_charges: str | None = None
    """Name of the Born effective charges, e, polarization first and displacement second, in the calculator's results or
    in `Atoms.arrays`."""
    polarizability: str | None = None
    """Name of the polarizability, e^2 Angstrom^2/eV, in the calculator's results or in `Atoms.info`."""

    @model_validator(mode="after")
    def _one_source_of_stress(self) -> LabelKeys:
        if self.stress is not None and self.virial is not None:
            raise ValueError("name the stress or the virial, not both: a virial is read as stress = -virial / volume")
        return self


@dataclass(frozen=True)
class LabelledFrame:
    """Structure with its labels in float64."""

    atoms: Atoms
    energy: float
    """Total energy, eV; NaN without label."""
    forces: np.ndarray
    """Forces, eV/Angstrom, (n_atoms, 3); NaN without label. Constraints do not zero them. Exact zeros of fixed atoms
    are no labels."""
    stress: np.ndarray
    """Stress, eV/Angstrom^3, (3, 3), positive in tension; NaN without label or unless all directions are periodic."""
    name: str
    """Name of the frame in messages."""
    weight: float = 1.0
    """Factor of the frame's part of the loss."""
    remarks: tuple[Remark, ...] = ()
    """Remarks on the reading of the labels, and doubts about them."""
    dipole: np.ndarray | None = None
    """Dipole about the origin of the coordinates, e Angstrom, (3,); NaN along periodic directions. None without
    label."""
    born_effective_charges: np.ndarray | None = None
    """Derivative of the polarization by displacements, e, (n_atoms, 3, 3), polarization first; NaN without label. None
    if no atom has a label."""
    polarizability: np.ndarray | None = None
    """Polarizability, e^2 Angstrom^2/eV, (3, 3); None without label."""

    def has(self, label: Label) -> bool:
        """Return True if the frame has the label, or a part of it."""
        value = getattr(self, label)
        return value is not None and bool(np.isfinite(value).any())


class UnlabelledFrame(ValueError):
    """Error of a frame that has none of the required labels."""


def label_frame(
    atoms: Atoms,
    keys: LabelKeys | None = None,
    *,
    required: Sequence[Label] = ("energy", "forces"),
    partial: bool = False,
    weight: float = 1.0,
    name: str | None = None,
) -> LabelledFrame:
    """Collect the labels of a frame.

    `keys` names labels. Other labels are looked up under the names of `DETECTED_KEYS`: first in the results of the
    frame's calculator, then in `Atoms.arrays` (forces, Born effective charges) or `Atoms.info` (all others). Different
    values under two of these names are an error, as only the user knows the right one. `weight` is multiplied by the
    weight stored with the frame (`lrc_ase.dataset.frame_weights`). The atoms of the result hold the total charge.

    A single atom needs no forces: its force is zero by symmetry. With `partial`, one of the `required` labels suffices,
    unless an entry looks like a missing label.

    Raises
    ------
    UnlabelledFrame
        A required label is absent; with `partial`: all of them are.
    ValueError
        A label has another shape than expected, holds text, or is required and not finite; two labels or two charges
        contradict each other; an atom has no element; the frame is in an electric field.
    """
    keys = keys or LabelKeys()
    name = name or atoms.info.get(SOURCE_KEY, "the frame")
    if (dummies := np.flatnonzero(atoms.numbers == 0)).size:
        raise ValueError(
            f"{name}: atoms {dummies[:5].tolist()} are 'X' (atomic number 0), which is no element: remove or name them"
        )
    remarks: list[Remark] = []
    atoms = _with_charge(atoms, keys.charge, name, remarks)
    values: dict[Label, np.ndarray | None] = {
        "energy": find_energy(atoms, keys.energy, name, remarks),
        "forces": find_forces(atoms, keys.forces, name),
        "stress": find_stress(atoms, keys.stress, keys.virial, name, remarks),
    }
    values |= _electric_labels(atoms, keys, required, name, remarks)
    _refuse_field(atoms, values, name)
    values = without_switched_off(values, atoms, name, remarks)
    if magnetic := magnetism_remark(atoms):
        remarks.append(magnetic)
    _check_presence(atoms, values, keys, required, partial=partial, name=name, remarks=remarks)
    for label in required:
        value = None if label in ELECTRIC_LABELS else values[label]
        if value is not None and not np.isfinite(value).all():
            raise ValueError(f"{name}: {label} is not finite; remove the frame or repair its label")
    energy = np.nan if values["energy"] is None else float(values["energy"])
    forces = np.full((len(atoms), 3), np.nan) if values["forces"] is None else values["forces"]
    stress = np.full((3, 3), np.nan) if values["stress"] is None else values["stress"]
    zeroed = constrained_components(atoms) & (forces == 0)
    # where all other forces are zero too, as in a perfect crystal, zeros of fixed atoms are labels
    if forces[~zeroed].any():
        forces = np.where(zeroed, np.nan, forces)
    weight *= frame_weight(atoms, name, remarks)
    electric = {label: values[label] for label in ELECTRIC_LABELS}
    return LabelledFrame(atoms, energy, forces, stress, name, weight, tuple(remarks), **electric)


class LabelRules(Settings):
    """Rules by which the frames of a set are labelled."""

    keys: LabelKeys = LabelKeys()
    """Names of the labels."""
    required: tuple[Label, ...] = ("energy", "forces")
    """Labels that a frame must have."""
    partial: bool = False
    """Accept frames that have one of the required labels."""
    skip_unlabelled: bool = False
    """Leave out frames that have none of the required labels, in place of an error."""

    def label(self, atoms: Atoms, *, weight: float = 1.0) -> LabelledFrame | None:
        """Label a frame (see `label_frame`); return None if the frame is to be left out."""
        try:
            return label_frame(atoms, self.keys, required=self.required, partial=self.partial, weight=weight)
        except UnlabelledFrame as error:
            if self.skip_unlabelled:
                return None
            raise UnlabelledFrame(f"{error}, or leave unlabelled frames out by --skip-unlabelled") from error


def _electric_labels(
    atoms: Atoms, keys: LabelKeys, required: Sequence[Label], name: str, remarks: list[Remark]
) -> dict[Label, np.ndarray | None]:
    """Return dipole, Born effective charges and polarizability.

    Calculators and files carry them without anybody's intent. One that is unusable is an error only if the user named
    its key or requires it, and a doubt otherwise.
    """
    values: dict[Label, np.ndarray | None] = dict.fromkeys(ELECTRIC_LABELS)
    find: dict[Label, Callable[[], np.ndarray | None]] = {
        "dipole": lambda: find_dipole(atoms, keys.dipole, name, remarks),
        "born_effective_charges": lambda: find_born_effective_charges(
            atoms, keys.born_effective_charges, name, values["dipole"]
        ),
        "polarizability": lambda: find_polarizability(atoms, keys.polarizability, name, remarks),
    }
    for label, find_label in find.items():
        try:
            values[label] = find_label()
        except ValueError as error:
            if getattr(keys, label) is not None or label in required:
                raise
            remarks.append(Remark(f"not read: {str(error).removeprefix(f'{name}: ')}", is_warning=True))
    return values


def labelled_atoms(frame: LabelledFrame) -> Atoms:
    """Return the structure of a frame with its labels as results of a calculator, and no other entries."""
    atoms = Atoms(
        frame.atoms.numbers, positions=frame.atoms.positions, cell=frame.atoms.cell.array, pbc=frame.atoms.pbc
    )
    atoms.info = {key: frame.atoms.info[key] for key in (SOURCE_KEY, CONFIG_TYPE_KEY) if key in frame.atoms.info}
    if charge_entries(frame.atoms):
        atoms.info["charge"] = total_charge(frame.atoms)
    known: dict[str, Any] = {label: getattr(frame, label) for label in get_args(Label) if frame.has(label)}
    if "polarizability" in known:  # no property of ASE's calculators
        atoms.info["polarizability"] = known.pop("polarizability")
    atoms.calc = SinglePointCalculator(atoms, **known)
    return atoms


def _with_charge(atoms: Atoms, key: str | None, name: str, remarks: list[Remark]) -> Atoms:
    """Return the atoms with the total charge of the user's key; add remarks on charges under unusual names."""
    try:
        if key is not None:
            return take_charge_from(atoms, key)
        total_charge(atoms)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    entries = charge_entries(atoms)
    if entries and "charge" not in entries:
        remarks.append(Remark(f"total charge read from info entry '{next(iter(entries))}'"))
    if not entries and name.rpartition("@")[0].endswith((".db", ".json")):
        remarks.append(
            Remark("neutral: an ASE database keeps no `Atoms.info`; write a charge as key-value pair `total_charge`")
        )
    if doubt := charge_doubt(atoms):
        remarks.append(Remark(doubt, is_warning=True))
    return atoms


def _refuse_field(atoms: Atoms, values: Mapping[Label, np.ndarray | None], name: str) -> None:
    """Raise a ValueError for labels that hold the energy of an electric field: graphs of frames have no field."""
    try:
        field = external_field(atoms)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if field is not None and field.any() and any(value is not None for value in values.values()):
        raise ValueError(
            f"{name} is in an electric field ({FIELD_NAME} {field_text(field)} V/Angstrom), which its labels include: "
            "training and evaluation read frames without a field, leave it out"
        )


def _check_presence(
    atoms: Atoms,
    values: dict[Label, np.ndarray | None],
    keys: LabelKeys,
    required: Sequence[Label],
    *,
    partial: bool,
    name: str,
    remarks: list[Remark],
) -> None:
    """Raise an error for required labels that are absent; add doubts about entries that look like an absent label."""
    absent = [label for label in values if values[label] is None]
    missing = [label for label in required if label in absent and not (label == "forces" and len(atoms) == 1)]
    if missing and (not partial or all(values[label] is None for label in required)):
        message = _missing(atoms, missing[0], keys, name)
        if missing == ["forces"] and lookalike(atoms, "forces") is None:
            message += ", or train on energies alone: --set stages.loss.forces=0"
        raise UnlabelledFrame(message)
    # an absent label of a partly labelled frame may be one under a name that is not looked up
    for label in absent:
        if label == "stress" and not atoms.pbc.all():
            continue
        key = keys.stress or keys.virial if label == "stress" else getattr(keys, label)
        if key is not None and label not in missing and not (label == "forces" and len(atoms) == 1):
            remarks.append(Remark(f"no {label} under the key '{key}'", is_warning=True))
        entry = lookalike(atoms, label)
        if entry is None:
            continue
        if label in missing:
            raise ValueError(f"{_missing(atoms, label, keys, name)}: '{entry}' looks like it")
        remarks.append(
            Remark(f"'{entry}' looks like {label} but is not read: name it as the {label} key", is_warning=True)
        )


def _missing(atoms: Atoms, label: Label, keys: LabelKeys, name: str) -> str:
    """Return the message on a missing label: names that were tried, and entries of the frame."""
    results = {} if atoms.calc is None else atoms.calc.results
    known = sorted({*results, *map(str, atoms.info), *atoms.arrays} - {SOURCE_KEY, "numbers", "positions"})
    quantity: Quantity = "virial" if label == "stress" and keys.virial else label
    key = getattr(keys, quantity)
    tried = f"under the key '{key}'" if key else f"under any of {list(DETECTED_KEYS[quantity])}"
    message = f"{name} has no {label} {tried}; it holds {known}. Name the right one as the {quantity} key"
    if label == "dipole" and atoms.pbc.any():
        message += ". One that it may hold is left out: along periodic directions a dipole is known up to cell vectors"
    if is_of_cp2k(atoms):
        message += f", or, if CP2K wrote it: {CONVERSION.format(path='FOLDER')}"
    return message
