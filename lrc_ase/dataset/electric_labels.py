"""Labels of the response to electric fields: dipoles, Born effective charges and polarizabilities of frames."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from lrc_ase.dataset.label_values import Label, Remark, Value, agreed, values_of
from lrc_ase.structures.charge import total_charge

__all__ = ["find_born_effective_charges", "find_dipole", "find_polarizability", "rotation_of_dipole"]

_LARGEST_ASYMMETRY = 0.01
"""Difference of two off-diagonal elements, as a fraction of the largest element, from which a tensor is doubted."""
_FAR_FROM_ORIGIN = 2.0
"""Total charge times distance of the center of mass from the origin, e Angstrom, from which the origin is checked."""


def find_dipole(atoms: Atoms, key: str | None, name: str, remarks: list[Remark]) -> np.ndarray | None:
    """Return the dipole about the origin of the coordinates in e Angstrom, (3,), or None.

    Components along periodic directions are NaN: there a dipole is known up to multiples of the cell vectors alone.
    """
    values = [_shaped(value, "dipole", (3,), ((3,), (1, 3)), name) for value in values_of(atoms, "dipole", key, name)]
    dipole = _labelled(agreed(values, "dipole", name), "dipole", name)
    if dipole is None:
        return None
    periodic = _periodic_components(atoms)
    if periodic.any():
        axes = "" if periodic.all() else f" {', '.join(np.array(['x', 'y', 'z'])[periodic])} components of"
        remarks.append(
            Remark(f"{axes} dipole left out: along periodic directions a dipole is known up to cell vectors".strip())
        )
        dipole = np.where(periodic, np.nan, dipole)
    elif doubt := _doubt_about_origin(atoms, dipole):
        remarks.append(Remark(doubt, is_warning=True))
    return dipole if np.isfinite(dipole).any() else None


def find_born_effective_charges(
    atoms: Atoms, key: str | None, name: str, dipole: np.ndarray | None
) -> np.ndarray | None:
    """Return Born effective charges in e, (n_atoms, 3, 3), indices atom, polarization, displacement, or None.

    Raises
    ------
    ValueError
        The shape is another one, or a rotation of the molecule turns its `dipole` only if the last two indices are
        exchanged (see `rotation_of_dipole`).
    """
    n_atoms = len(atoms)
    accepted = ((n_atoms, 3, 3), (n_atoms, 9), (1, n_atoms, 3, 3))
    values = [
        _shaped(value, "born_effective_charges", (n_atoms, 3, 3), accepted, name)
        for value in values_of(atoms, "born_effective_charges", key, name)
    ]
    charges = _labelled(agreed(values, "born_effective_charges", name), "born_effective_charges", name)
    if charges is None or dipole is None or atoms.pbc.any() or total_charge(atoms):
        return charges
    turned, dipole_turned = rotation_of_dipole(atoms, charges, dipole)
    exchanged, _ = rotation_of_dipole(atoms, charges.transpose(0, 2, 1), dipole)
    error, error_of_exchanged = (float(np.linalg.norm(each - dipole_turned)) for each in (turned, exchanged))
    if error > 0.1 and error > 5 * error_of_exchanged:
        raise ValueError(
            f"{name}: {values[0].source} holds Born effective charges with displacement first and polarization second, "
            "as its dipole shows; expected polarization first: exchange the last two indices"
        )
    return charges


def find_polarizability(atoms: Atoms, key: str | None, name: str, remarks: list[Remark]) -> np.ndarray | None:
    """Return the polarizability in e^2 Angstrom^2/eV, (3, 3), or None; 1 Angstrom^3 is 0.0694 of these units."""
    values = [
        _shaped(value, "polarizability", (3, 3), ((3, 3), (9,), (1, 3, 3), (1, 9)), name)
        for value in values_of(atoms, "polarizability", key, name)
    ]
    tensor = _labelled(agreed(values, "polarizability", name), "polarizability", name)
    if tensor is not None and np.isfinite(tensor).all():
        if np.abs(tensor - tensor.T).max() > _LARGEST_ASYMMETRY * np.abs(tensor).max():
            remarks.append(Remark("the polarizability is not symmetric", is_warning=True))
        elif np.linalg.eigvalsh(tensor).min() <= 0:
            remarks.append(Remark("the polarizability is not positive in all directions", is_warning=True))
    return tensor


def rotation_of_dipole(atoms: Atoms, charges: np.ndarray, dipole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the change of the dipole by rotations in two ways, each (3, 3), indices dipole and axis, in e Angstrom.

    A rotation by a small angle about axis c moves atoms by :math:`e_c \times x` and turns the dipole by
    :math:`e_c \times \mu`. The first result is the response of Born effective charges to this displacement,
    :math:`\sum_{ib} Z_{iab} (e_c \times x_i)_b`, the second the turn of the dipole; they agree in open, neutral
    structures.
    """
    axes = np.eye(3)
    displacements = np.cross(axes[:, None], atoms.positions[None])  # (axis, n_atoms, 3)
    return np.einsum("iab,cib->ac", charges, displacements), np.cross(axes, dipole).T


def _shaped(
    value: Value, label: Label, shape: tuple[int, ...], accepted: tuple[tuple[int, ...], ...], name: str
) -> Value:
    """Return a value in the shape of its label; ValueError unless its shape is one of `accepted`."""
    if value.numbers.shape not in accepted:
        expected = " or ".join(str(list(each)) for each in accepted[:2])
        raise ValueError(
            f"{name}: {label} must have shape {expected}, got {list(value.numbers.shape)} in {value.source}"
        )
    return Value(value.source, value.numbers.reshape(shape))


def _labelled(numbers: np.ndarray | None, label: Label, name: str) -> np.ndarray | None:
    """Return a label, None if all of it is NaN; ValueError for infinite numbers."""
    if numbers is None or np.isnan(numbers).all():
        return None
    if np.isinf(numbers).any():
        raise ValueError(f"{name}: {label} is not finite; remove the frame or repair its label")
    return numbers


def _periodic_components(atoms: Atoms) -> np.ndarray:
    """Return True for each Cartesian component that a periodic cell vector has a part of, bool (3,)."""
    vectors = atoms.cell.array[atoms.pbc]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray((np.abs(vectors) > 1e-6 * lengths).any(axis=0))


def _doubt_about_origin(atoms: Atoms, dipole: np.ndarray) -> str | None:
    """Return a sentence if the dipole of a charged structure seems to count from the center of mass, else None."""
    charge = total_charge(atoms)
    if not charge:
        return None
    moved = charge * atoms.get_center_of_mass()
    if np.linalg.norm(moved) < _FAR_FROM_ORIGIN or np.linalg.norm(dipole) > 0.5 * np.linalg.norm(dipole - moved):
        return None
    return (
        "the dipole of a charged structure looks as if it counts from the center of mass: expected is a dipole about "
        "the origin of the coordinates; add the total charge times the center of mass, or move the atoms there"
    )
