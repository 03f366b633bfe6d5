"""Checks of units of dipoles, Born effective charges and polarizabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from ase.calculators.vdwcorrection import vdWDB_alphaC6
from ase.units import Bohr, Debye, Hartree

from lrc_ase.dataset.check import Check, nearest_meaning
from lrc_ase.dataset.electric_labels import rotation_of_dipole
from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.dataset.lazy import sample
from lrc_ase.files.counted import counted
from lrc_ase.structures.charge import total_charge

__all__ = ["check_electric_labels"]

_SAMPLE = 200
"""Largest number of frames that a check looks at."""
_DIPOLES = {"Debye": 1 / Debye, "e Bohr": 1 / Bohr}
"""Numbers in a unit over numbers in e Angstrom."""
_POLARIZABILITIES = {"Angstrom^3": Hartree * Bohr, "Bohr^3": Hartree / Bohr**2}
"""Numbers in a unit over numbers in e^2 Angstrom^2/eV; e^2 is Hartree times Bohr."""
_FREE_ATOMS = cast(Mapping[str, Sequence[float]], vdWDB_alphaC6)
"""Polarizability and C6 of free atoms in atomic units, by chemical symbol."""
_LARGEST_SUM = 0.3
"""Element of the sum of the Born effective charges of a frame minus its total charge, e."""


def check_electric_labels(frames: Sequence[LabelledFrame]) -> list[Check]:
    """Check units of dipoles, Born effective charges and polarizabilities; no check for a label that no frame has."""
    checks = []
    few = sample(frames, _SAMPLE)
    if any(frame.has("dipole") for frame in few):
        checks.append(_dipoles_against_born_charges(few))
    if any(frame.has("born_effective_charges") for frame in few):
        checks.append(_sums_of_born_charges(few))
    if any(frame.has("polarizability") for frame in few):
        checks.append(_size_of_polarizabilities(few))
    return checks


def _dipoles_against_born_charges(frames: Sequence[LabelledFrame]) -> Check:
    """Compare the turn of dipoles by rotations with the response of Born charges, see `rotation_of_dipole`."""
    subject = "dipoles against Born effective charges"
    expected, computed = [], []
    for frame in frames:
        dipole, charges = frame.dipole, frame.born_effective_charges
        if dipole is None or charges is None or frame.atoms.pbc.any() or total_charge(frame.atoms):
            continue
        if np.isfinite(dipole).all() and np.isfinite(charges).all():
            response, turned = rotation_of_dipole(frame.atoms, charges, dipole)
            expected.append(response.ravel())
            computed.append(turned.ravel())
    if not computed:
        obstacle = f"no open, neutral frame has both; e Angstrom is expected, a Debye is {Debye:.4f} of it"
        return Check(subject, obstacle=obstacle)
    x, y = np.concatenate(expected), np.concatenate(computed)
    ratio = float(x @ y) / max(float(x @ x), 1e-12)
    unit = nearest_meaning(ratio, _DIPOLES, 0.1)
    text = (
        f"dipoles are {ratio:.3g} times those of their Born effective charges: they may be in {unit}" if unit else None
    )
    return Check(subject, counted(len(computed), "frame"), warning=text)


def _sums_of_born_charges(frames: Sequence[LabelledFrame]) -> Check:
    """Compare the sum of the Born effective charges of a frame with its total charge times the unit matrix."""
    subject = "sums of Born effective charges"
    errors = []
    for frame in frames:
        charges = frame.born_effective_charges
        if charges is not None and np.isfinite(charges).all():
            errors.append(np.abs(charges.sum(axis=0) - total_charge(frame.atoms) * np.eye(3)).max())
    if not errors:
        return Check(subject, obstacle="no frame has those of all atoms")
    error = float(np.median(errors))
    text = None
    if error > _LARGEST_SUM:
        text = f"Born effective charges of a frame miss its total charge by {error:.2g} e: is its charge named?"
    return Check(subject, counted(len(errors), "frame"), warning=text)


def _size_of_polarizabilities(frames: Sequence[LabelledFrame]) -> Check:
    """Compare polarizabilities with the sum over free atoms (Chu, Dalgarno, doi:10.1063/1.1779576)."""
    subject = "size of polarizabilities"
    ratios = []
    for frame in frames:
        if frame.polarizability is None:
            continue
        in_bohr = [float(_FREE_ATOMS.get(symbol, (np.nan,))[0]) for symbol in frame.atoms.get_chemical_symbols()]
        if np.isfinite(in_bohr).all():
            free_atoms = sum(in_bohr) / _POLARIZABILITIES["Bohr^3"]
            ratios.append(float(np.nanmean(np.diag(frame.polarizability))) / free_atoms)
    if not ratios:
        return Check(subject, obstacle="no frame of elements with known polarizability has one")
    ratio = float(np.median(ratios))
    unit = nearest_meaning(ratio, _POLARIZABILITIES, 0.8)
    text = None
    if unit:
        text = f"polarizabilities are {ratio:.3g} times those of free atoms: they may be in {unit}"
    return Check(subject, counted(len(ratios), "frame"), warning=text)
