"""Hit and false-alarm rates of the data report on sound sets and on falsified copies of them.

    python tests/benchmarks/data_report_rates.py
    LRC_ASE_DATA=folder python tests/benchmarks/data_report_rates.py  # with public sets in extended XYZ

A sound set that gets any warning counts as a false alarm, a falsified set as a hit if it gets a warning that its sound
original does not get. Thresholds were chosen on the synthetic sets, on public sets without falsification and on the
falsifications marked "tuned". None was chosen on those marked "unseen", nor on falsified public sets.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.units import Bohr, GPa, Hartree, Rydberg, kcal, kJ, mol
from data_report_sets import public_sets, synthetic_sets

from lrc_ase.dataset import LabelledFrame, inspect_frames

Frames = Sequence[LabelledFrame]


def scaled(
    *, energy: float = 1, forces: float = 1, positions: float = 1, stress: float = 1
) -> Callable[[Frames], Frames]:
    """Return a falsification that multiplies labels and positions by factors."""

    def apply(frames: Frames) -> Frames:
        result = []
        for frame in frames:
            atoms = frame.atoms.copy()
            atoms.set_cell(positions * atoms.cell.array)
            atoms.positions *= positions
            result.append(
                replace(
                    frame, atoms=atoms, energy=energy * frame.energy, forces=forces * frame.forces,
                    stress=stress * frame.stress,
                )
            )  # fmt: skip
        return result

    return apply


def per_atom(frames: Frames) -> Frames:
    return [replace(frame, energy=frame.energy / len(frame.atoms)) for frame in frames]


def one_absurd_energy(frames: Frames) -> Frames:
    worst = len(frames) // 2
    return [replace(f, energy=f.energy + 1000.0 * (index == worst)) for index, f in enumerate(frames)]


def one_absurd_force(frames: Frames) -> Frames:
    result = list(frames)
    frame = frames[len(frames) // 2]
    forces = frame.forces.copy()
    forces[0] += 500.0
    forces[-1] -= 500.0
    result[len(frames) // 2] = replace(frame, forces=forces)
    return result


def every_second_shifted(frames: Frames) -> Frames:
    """Return frames of two levels of theory, whose energies differ by 50 meV per atom."""
    return [replace(f, energy=f.energy + 0.05 * len(f.atoms) * (index % 2)) for index, f in enumerate(frames)]


def second_half_shifted(frames: Frames) -> Frames:
    half = len(frames) // 2
    return [replace(f, energy=f.energy + 0.05 * len(f.atoms) * (index >= half)) for index, f in enumerate(frames)]


def contradicting(frames: Frames) -> Frames:
    """Return each structure twice, as in two magnetic states."""
    return [*frames, *(replace(frame, energy=frame.energy + 0.05 * len(frame.atoms)) for frame in frames)]


def filled_in(frames: Frames) -> Frames:
    return [replace(frame, energy=0.0) for frame in frames]


def unlabelled(frames: Frames) -> Frames:
    return [
        replace(f, energy=np.nan, forces=np.full_like(f.forces, np.nan), stress=np.full((3, 3), np.nan)) for f in frames
    ]


def one_unlabelled(frames: Frames) -> Frames:
    return [*unlabelled(frames[:1]), *frames[1:]]


def virial_as_stress(frames: Frames) -> Frames:
    return [replace(f, stress=-f.stress * f.atoms.get_volume()) if f.atoms.pbc.all() else f for f in frames]


def shuffled_forces(frames: Frames) -> Frames:
    generator = np.random.default_rng(0)
    return [replace(frame, forces=generator.permutation(frame.forces)) for frame in frames]


FALSIFICATIONS: dict[str, tuple[str, str, Callable[[Frames], Frames]]] = {
    # name: needed label, tuned or unseen, falsification
    "energy in Hartree": ("energy", "tuned", scaled(energy=1 / Hartree)),
    "energy in Rydberg": ("energy", "tuned", scaled(energy=1 / Rydberg)),
    "energy in kcal/mol": ("energy", "tuned", scaled(energy=mol / kcal)),
    "energy per atom": ("energy", "tuned", per_atom),
    "forces in Hartree/Bohr": ("forces", "tuned", scaled(forces=Bohr / Hartree)),
    "forces in Rydberg/Bohr": ("forces", "tuned", scaled(forces=Bohr / Rydberg)),
    "forces in kcal/mol/Angstrom": ("forces", "tuned", scaled(forces=mol / kcal)),
    "gradients for forces": ("forces", "tuned", scaled(forces=-1)),
    "Hartree and Hartree/Bohr": ("forces", "tuned", scaled(energy=1 / Hartree, forces=Bohr / Hartree)),
    "kcal/mol and kcal/mol/Angstrom": ("forces", "tuned", scaled(energy=mol / kcal, forces=mol / kcal)),
    "positions in Bohr": ("energy", "tuned", scaled(positions=1 / Bohr)),
    "stress flipped": ("stress", "tuned", scaled(stress=-1)),
    "stress in GPa": ("stress", "tuned", scaled(stress=1 / GPa)),
    "stress in kbar": ("stress", "tuned", scaled(stress=10 / GPa)),
    "stress in bar": ("stress", "tuned", scaled(stress=1e4 / GPa)),
    "one energy 1000 eV off": ("energy", "tuned", one_absurd_energy),
    "one force of 500 eV/Angstrom": ("forces", "tuned", one_absurd_force),
    "energies filled in": ("energy", "tuned", filled_in),
    "two levels, every second frame": ("energy", "tuned", every_second_shifted),
    "each structure with two energies": ("energy", "tuned", contradicting),
    "no labels": ("energy", "tuned", unlabelled),
    "one frame without labels": ("energy", "tuned", one_unlabelled),
    "two levels, second half": ("energy", "unseen", second_half_shifted),
    "energy in kJ/mol": ("energy", "unseen", scaled(energy=mol / kJ)),
    "energy in meV": ("energy", "unseen", scaled(energy=1000)),
    "forces in kJ/mol/nm": ("forces", "unseen", scaled(forces=mol / kJ * 10)),
    "forces in meV/Angstrom": ("forces", "unseen", scaled(forces=1000)),
    "forces in eV/Bohr": ("forces", "unseen", scaled(forces=Bohr)),
    "forces of atoms in another order": ("forces", "unseen", shuffled_forces),
    "positions in nanometers": ("energy", "unseen", scaled(positions=0.1)),
    "virial for stress": ("stress", "unseen", virial_as_stress),
    "stress in GPa, flipped": ("stress", "unseen", scaled(stress=-1 / GPa)),
}


def has(frames: Frames, label: str) -> bool:
    return any(len(f.atoms) > 1 and np.isfinite(getattr(f, label)).all() and np.any(getattr(f, label)) for f in frames)


def complaints(frames: Frames) -> set[str]:
    """Warnings without the numbers that differ between a set and its falsified copy."""
    report = inspect_frames({"set": frames})
    return {" ".join(word for word in text.split() if word.isalpha()) for text in report.warnings}


def rates(title: str, sets: dict[str, Frames]) -> None:
    """Print false alarms and hits of the sets."""
    sound = {name: complaints(frames) for name, frames in sets.items()}
    n_false = sum(bool(each) for each in sound.values())
    print(f"\n{title}: {n_false} false alarms on {len(sets)} sound sets")
    for name, each in sound.items():
        for text in each:
            print(f"    {name}: {text[:120]}")
    totals = {"tuned": [0, 0], "unseen": [0, 0]}
    for name, (label, kind, falsify) in FALSIFICATIONS.items():
        fitting = {key: frames for key, frames in sets.items() if has(frames, label)}
        if name.startswith("one "):
            fitting = {key: frames for key, frames in fitting.items() if len(frames) >= 4}
        missed = [key for key, frames in fitting.items() if not complaints(falsify(frames)) - sound[key]]
        totals[kind][0] += len(fitting) - len(missed)
        totals[kind][1] += len(fitting)
        examples = f"   missed: {', '.join(missed[:3])}{' ...' if len(missed) > 3 else ''}" if missed else ""
        print(f"  {name:34s} {kind:6s} {len(fitting) - len(missed):3d} of {len(fitting):3d}{examples}")
    for kind, (hits, count) in totals.items():
        print(f"  all, {kind}: {hits} of {count} ({hits / max(count, 1):.0%})")


def main() -> None:
    """Print the rates on synthetic sets, and on public ones where LRC_ASE_DATA names their folder."""
    warnings.simplefilter("ignore")  # neighbor searches tell of unwrapped atoms
    begin = time.perf_counter()
    rates("synthetic sets", dict(synthetic_sets()))
    if folder := os.environ.get("LRC_ASE_DATA"):
        rates("public sets", dict(public_sets(Path(folder))))
    print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
