"""Structures that occur more than once: copies of a frame, and frames whose labels contradict each other."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.files.counted import counted
from lrc_ase.structures.charge import total_charge

__all__ = ["warn_of_repeats"]

_ENERGY_TOLERANCE = 1e-3
"""eV per atom: what two calculations of one structure may differ by."""
_FORCE_TOLERANCE = 0.02
"""eV/Angstrom, in the largest component."""

Occurrence = tuple[str, LabelledFrame]
"""Name of a set, and a frame of it."""


def warn_of_repeats(sets: Mapping[str, Sequence[LabelledFrame]]) -> list[str]:
    """Return sentences about structures that occur more than once, in a set or in several.

    Frames of one structure and total charge with equal labels are copies. With different labels they contradict each
    other: energy and forces of a potential are functions of structure and charge, so that it can only fit a mean.
    """
    copies: dict[bytes, list[Occurrence]] = {}
    for name, frames in sets.items():
        for frame in frames:
            copies.setdefault(_digest(frame), []).append((name, frame))
    repeated: Counter[tuple[str, ...]] = Counter()
    example: dict[tuple[str, ...], str] = {}
    contradictions: dict[tuple[str, ...], list[list[Occurrence]]] = {}
    for occurrences in copies.values():
        if len(occurrences) < 2:
            continue
        key = tuple(dict.fromkeys(name for name, _ in occurrences))
        if _differ(occurrences):
            contradictions.setdefault(key, []).append(occurrences)
            continue
        repeated[key] += len(occurrences) - 1
        example.setdefault(key, _first_two(occurrences))
    warnings = [_contradiction(key, groups) for key, groups in contradictions.items()]
    for key, count in repeated.items():
        frames_occur = "frames occur" if count > 1 else "frame occurs"
        warnings.append(f"{count} {frames_occur} more than once {_where(key)}, for example {example[key]}")
    return warnings


def _digest(frame: LabelledFrame) -> bytes:
    """Return a digest of everything that a potential sees of a frame."""
    atoms = frame.atoms
    digest = hashlib.sha256(atoms.pbc.tobytes() + f"{total_charge(atoms):.6f}".encode())
    for array in (atoms.numbers, atoms.positions, atoms.cell.array):
        # rounded, as files write few digits; adding zero turns -0 into 0, which has other bytes
        digest.update(np.ascontiguousarray(np.round(array, 6) + 0.0).tobytes())
    return digest.digest()


def _spreads(occurrences: Sequence[Occurrence]) -> tuple[float, float]:
    """Return the largest differences of energies per atom and of force components; 0 where labels are missing."""
    energies = np.array([frame.energy / len(frame.atoms) for _, frame in occurrences])
    energies = energies[np.isfinite(energies)]
    forces = np.array([frame.forces for _, frame in occurrences])
    known = np.isfinite(forces).all(axis=0)
    return (
        float(np.ptp(energies)) if len(energies) else 0.0,
        float(np.ptp(forces, axis=0)[known].max()) if known.any() else 0.0,
    )


def _differ(occurrences: Sequence[Occurrence]) -> bool:
    """Return True if the frames of one structure have different energies or forces."""
    energy, force = _spreads(occurrences)
    return energy > _ENERGY_TOLERANCE or force > _FORCE_TOLERANCE


def _contradiction(key: tuple[str, ...], groups: Sequence[list[Occurrence]]) -> str:
    """Return a sentence about structures with contradicting labels."""
    energy, force = np.max([_spreads(occurrences) for occurrences in groups], axis=0)
    return (
        f"{counted(len(groups), 'structure')} with different labels {_where(key)}: energies differ by up to "
        f"{1e3 * energy:.3g} meV/atom, forces by up to {force:.3g} eV/Angstrom, for example {_first_two(groups[0])}. "
        "A potential fits their mean: keep frames of one magnetic state and one level of theory, and name total charges"
    )


def _first_two(occurrences: Sequence[Occurrence]) -> str:
    return f"{occurrences[0][1].name} and {occurrences[1][1].name}"


def _where(key: tuple[str, ...]) -> str:
    """Return the sets in which structures occur as a phrase."""
    return f"in {key[0]}" if len(key) == 1 else f"in both {' and '.join(key)}"
