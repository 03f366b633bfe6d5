"""Checks of the scale of energies: against forces of frames far apart, isolated atoms, and element references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from ase.data import chemical_symbols

from lrc_ase.dataset.bonds import BondConstant
from lrc_ase.dataset.check import Check, centered, slope_and_correlation
from lrc_ase.dataset.frame_weights import CONFIG_TYPE_KEY
from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.files.counted import counted
from lrc_ase.structures.charge import total_charge

__all__ = [
    "NEAREST_IMAGE",
    "atomization_energies",
    "doubt_about_references",
    "is_isolated_atom",
    "isolated_atoms",
    "variation_of_energies",
]

NEAREST_IMAGE = 6.0
"""Distance to periodic images from which an atom counts as isolated, Angstrom."""

_FEWEST_FRAMES = 8
_LEAST_CORRELATION = 0.6
_SOUND_VARIATION = 0.06, 8.0
"""Range of the ratio of energy changes to those of harmonic bonds under the same forces; 0.16 to 2.9 in sound sets."""
_STRONG_BOND = 8.0
"""eV/Angstrom^2: bonds that are stiffer are covalent and cost at least `_WEAKEST` per atom."""
_STRONGEST, _WEAKEST = -13.0, -0.6
"""Range of atomization energies of covalent structures, eV per atom; tungsten has -8.9, diamond -7.4, H2 -2.3."""


def variation_of_energies(frames: Sequence[LabelledFrame], constants: Sequence[BondConstant]) -> Check:
    r"""Compare the variation of energies with that of :math:`\sum_i |F_i|^2 / 2 k_i`, the energy of harmonic bonds.

    The check needs neither order nor near frames, but detects only factors of more than ten. `bond_constants` measured
    the force constants k from the same forces.
    """
    subject = "variation of energies against forces"
    by_element: dict[int, list[float]] = {}
    for each in constants:
        for number in each.elements:
            by_element.setdefault(number, []).append(abs(each.constant))
    if not by_element:
        return Check(subject, obstacle="no force constants of bonds are known")
    typical = float(np.mean([np.mean(values) for values in by_element.values()]))
    stiffness = np.full(len(chemical_symbols), typical)
    for number, values in by_element.items():
        stiffness[number] = np.mean(values)
    groups: dict[str, list[tuple[float, float]]] = {}
    for frame in frames:
        if len(frame.atoms) > 1 and np.isfinite(frame.energy) and np.isfinite(frame.forces).all():
            strain = float(((frame.forces**2).sum(axis=1) / (2 * stiffness[frame.atoms.numbers])).sum())
            groups.setdefault(frame.atoms.get_chemical_formula(), []).append((strain, frame.energy))
    large = [np.array(group) for group in groups.values() if len(group) > 2]
    if sum(map(len, large)) < _FEWEST_FRAMES:
        obstacle = f"fewer than {_FEWEST_FRAMES} frames of equal compositions with the forces on all atoms"
        return Check(subject, obstacle=obstacle)
    expected, energies = centered(large)
    slope, correlation = slope_and_correlation(expected, energies)
    if abs(correlation) < _LEAST_CORRELATION:
        return Check(subject, obstacle="energies do not follow forces from frame to frame")
    basis = counted(len(energies), "frame")
    if _SOUND_VARIATION[0] < slope < _SOUND_VARIATION[1]:
        return Check(subject, basis)
    if slope < 0:
        return Check(subject, obstacle="energies fall where forces grow, as in dimers pulled apart")
    guess = "Hartree, Rydberg or energies per atom" if slope < 1 else "kcal/mol, kJ/mol or meV"
    return Check(
        subject,
        basis,
        warning=f"energies vary {slope:.2g} times as much as the forces suggest: {guess} in place of eV would do so",
    )


def is_isolated_atom(frame: LabelledFrame) -> bool:
    """Return True for a frame of one neutral atom with an energy that is far from its periodic images.

    An atom counts as far if no direction is periodic, if its images are at least `NEAREST_IMAGE` away, or if its
    ``info["config_type"]`` says ``IsolatedAtom``.
    """
    atoms = frame.atoms
    if len(atoms) != 1 or not np.isfinite(frame.energy) or total_charge(atoms) != 0:
        return False
    if str(atoms.info.get(CONFIG_TYPE_KEY, "")).replace("_", "").lower() == "isolatedatom" or not atoms.pbc.any():
        return True
    # the shortest lattice vector is the distance to the nearest image
    steps = np.array([step for step in product(*[(-1, 0, 1) if axis else (0,) for axis in atoms.pbc]) if any(step)])
    return bool(np.linalg.norm(steps @ atoms.cell.array, axis=1).min() >= NEAREST_IMAGE)


def isolated_atoms(sets: Mapping[str, Sequence[LabelledFrame]]) -> dict[int, float]:
    """Return the energies of isolated atoms among all sets by atomic number, the lowest of each."""
    energies: dict[int, float] = {}
    for frames in sets.values():
        for frame in frames:
            if is_isolated_atom(frame):
                number = int(frame.atoms.numbers[0])
                energies[number] = min(frame.energy, energies.get(number, np.inf))
    return energies


def atomization_energies(
    frames: Sequence[LabelledFrame], isolated: Mapping[int, float], constants: Sequence[BondConstant]
) -> Check:
    """Compare energies with the sums of the energies of isolated atoms: the difference is the energy of the bonds."""
    subject = "energies against isolated atoms"
    if not isolated:
        return Check(subject, obstacle="no frame is an isolated atom")
    per_atom = [
        (frame.energy - sum(isolated[number] for number in frame.atoms.numbers.tolist())) / len(frame.atoms)
        for frame in frames
        if len(frame.atoms) > 1 and np.isfinite(frame.energy) and set(frame.atoms.numbers.tolist()) <= set(isolated)
    ]
    if not per_atom:
        return Check(subject, obstacle="no frame consists of elements whose isolated atoms are known")
    energy, basis = float(np.median(per_atom)), counted(len(per_atom), "frame")
    strong = any(each.predicted > _STRONG_BOND for each in constants)
    if _STRONGEST < energy < (_WEAKEST if strong else 2.0):
        return Check(subject, basis)
    return Check(
        subject,
        basis,
        warning=f"energies lie {energy:+.3g} eV per atom from isolated atoms, where {_STRONGEST:g} to {_WEAKEST:g} is "
        "usual: they are not in eV, or of another level of theory than the isolated atoms",
    )


def doubt_about_references(frames: Sequence[LabelledFrame], references: Mapping[str, float]) -> str | None:
    """Return a sentence if element references (eV by symbol) do not fit the energies of frames."""
    per_atom = [
        (frame.energy - sum(references[symbol] for symbol in frame.atoms.get_chemical_symbols())) / len(frame.atoms)
        for frame in frames
        if len(frame.atoms) and np.isfinite(frame.energy) and set(frame.atoms.get_chemical_symbols()) <= set(references)
    ]
    if not per_atom or abs(energy := float(np.median(per_atom))) < abs(_STRONGEST):
        return None
    return (
        f"energies lie {energy:+.3g} eV per atom from the element references, more than any bond explains: the "
        "references are of another level of theory, another unit, or other pseudopotentials than the frames"
    )
