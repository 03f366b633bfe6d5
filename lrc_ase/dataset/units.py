"""Checks of units: signs of labels in kcal/mol, Hartree or Bohr, and checks that came to no verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from ase.units import Hartree, Rydberg, kcal, kJ, mol

from lrc_ase.dataset.bonds import BondConstant, bond_constants, contact_radii, forces_against_bonds
from lrc_ase.dataset.check import Check, nearest_meaning
from lrc_ase.dataset.electric_checks import check_electric_labels
from lrc_ase.dataset.energy_scale import atomization_energies, variation_of_energies
from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.dataset.lazy import sample
from lrc_ase.dataset.near_frames import energies_against_forces, energies_against_stresses
from lrc_ase.dataset.stress_scale import (
    pressure_against_volume,
    size_of_stresses,
    stresses_against_bonds,
    stresses_against_forces,
)
from lrc_ase.files.counted import counted

__all__ = ["check_units"]

_TOTAL_ENERGIES = {"Hartree": 1 / Hartree, "Rydberg": 1 / Rydberg, "kcal/mol": mol / kcal, "kJ/mol": mol / kJ}
_SAMPLE = 200
"""Number of frames whose total energies are compared."""
_SMALL_FORCE, _LARGE_FORCE = 0.01, 8.0
"""Root mean square forces below and above which units are doubted, eV/Angstrom."""
_MEASURED, _LARGEST_MEASURED = 20, 2000
"""Frames in which all distances are computed, and atoms that such a frame may have."""


def check_units(frames: Sequence[LabelledFrame], isolated: Mapping[int, float]) -> list[Check]:
    """Check labels and positions of a set for units other than eV and Angstrom.

    `isolated` holds energies of isolated atoms by atomic number, from any set. Labels that no frame has are one entry
    without a basis.
    """
    checks = [_distances(frames)]
    has_energy = any(np.isfinite(frame.energy) for frame in frames)
    has_forces = any(np.isfinite(frame.forces).any() for frame in frames)
    constants = bond_constants(frames) if has_forces else []
    if has_energy:
        checks.append(_total_energies(frames))
        checks.append(atomization_energies(frames, isolated, constants))
    else:
        checks.append(Check("energies", obstacle="no frame has one"))
    if has_forces:
        bonds = forces_against_bonds(constants)
        checks += [bonds] if bonds.basis else [bonds, _size_of_forces(frames)]
    else:
        checks.append(Check("forces", obstacle="no frame has any"))
    if has_energy and has_forces:
        near = energies_against_forces(frames)
        checks += [near] if near.basis else [near, variation_of_energies(frames, constants)]
    checks += _check_stresses(frames, constants)
    return checks + check_electric_labels(frames)


def _check_stresses(frames: Sequence[LabelledFrame], constants: Sequence[BondConstant]) -> list[Check]:
    """Check stresses; report the checks without verdict only if no check of the sign came to one."""
    if not any(np.isfinite(frame.stress).all() for frame in frames):
        return [Check("stresses", obstacle="no frame has one")]
    signed = [
        energies_against_stresses(frames),
        stresses_against_forces(frames),
        stresses_against_bonds(frames, constants),
        pressure_against_volume(frames),
    ]
    verdicts = [check for check in signed if check.basis]
    return [size_of_stresses(frames), *(verdicts or signed)]


def _total_energies(frames: Sequence[LabelledFrame]) -> Check:
    """Compare total energies with those of all electrons, which point to a unit other than eV.

    All-electron energies follow a law of the nuclear charges (Thomas, Fermi, Scott, Schwinger) to some percent.
    """
    ratios = []
    for frame in sample(frames, _SAMPLE):
        z = frame.atoms.numbers.astype(float)
        expected = -Hartree * float((0.768745 * z ** (7 / 3) - 0.5 * z**2 + 0.2699 * z ** (5 / 3)).sum())
        ratios.append(frame.energy / expected if expected else math.nan)
    ratio = float(np.nanmedian(ratios)) if np.isfinite(ratios).any() else math.nan
    unit = nearest_meaning(ratio, _TOTAL_ENERGIES, 0.03)
    text = f"the total energies are those of all electrons in {unit}: eV is expected" if unit else None
    return Check("total energies of all electrons", counted(len(ratios), "frame"), warning=text)


def _distances(frames: Sequence[LabelledFrame]) -> Check:
    """Compare nearest-neighbor distances with the sums of covalent radii (of van der Waals radii for noble gases)."""
    subject = "nearest-neighbor distances"
    radii = contact_radii()
    ratios: list[float] = []
    for frame in sample(frames, _MEASURED):
        positions = frame.atoms.positions
        if not 1 < len(positions) <= _LARGEST_MEASURED or not np.isfinite(positions).all():
            continue
        distances = frame.atoms.get_all_distances(mic=bool(frame.atoms.pbc.any()))
        each = radii[frame.atoms.numbers]
        relative = distances / (each[:, None] + each)
        np.fill_diagonal(relative, np.inf)
        ratios.extend(relative.min(axis=1))
    if not ratios:
        return Check(subject, obstacle=f"no frame has two to {_LARGEST_MEASURED} atoms")
    ratio = float(np.median(ratios))
    guess = None
    if 1.6 < ratio < 2.4:
        guess = "in Bohr"
    elif ratio < 0.2:
        guess = "in nanometers"
    elif ratio < 0.7:
        guess = "converted twice"
    text = None
    if guess:
        text = f"nearest neighbors are {ratio:.2f} times their usual distance apart: positions may be {guess}"
    return Check(subject, f"{len(ratios)} atoms", warning=text)


def _size_of_forces(frames: Sequence[LabelledFrame]) -> Check:
    """Compare the root mean square force with usual values."""
    subject = "size of forces"
    squares = np.concatenate([frame.forces.ravel() for frame in frames]) ** 2
    rms = math.sqrt(np.nanmean(squares))
    basis = f"{int(np.isfinite(squares).sum())} components"
    if rms < _SMALL_FORCE:
        return Check(
            subject,
            obstacle=f"a root mean square of {rms:.3g} may mean relaxed or rigid structures, or Hartree/Bohr",
        )
    if rms < _LARGE_FORCE:
        return Check(subject, basis)
    text = (
        f"the root mean square force of {rms:.3g} is large for eV/Angstrom: kcal/mol/Angstrom, kJ/mol or meV "
        "would give such numbers"
    )
    return Check(subject, basis, warning=text)
