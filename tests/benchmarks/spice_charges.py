"""Latent charges, learned from energies and forces, against dipoles and Born effective charges of SPICE.

LRC_ASE_DATA=folder python tests/benchmarks/spice_charges.py POTENTIAL [--frames 119]

The folder holds the sets `spice_bec` (dipoles in e Angstrom and Born effective charges in e, polarization first; Zhong,
Kim, King and Cheng, arXiv:2504.05169). The potential is trained on `spice_dipep`, whose frames carry neither into the
loss::

    lrc-ase train spice_dipep/train.extxyz --validation spice_dipep/val.extxyz

Printed for each set whose elements the potential knows: coefficient of determination R2 and root mean square error of
dipole components and of the components of the Born charges. Then additivity: pairs of molecules 100 Angstrom apart,
their net charges, and their energy less the sum of both alone, with and without the Coulomb energy between the latent
charges of one and those of the other, which is real and decays as r^-3.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms

import lrc_ase
from lrc_ase.models.long_range import COULOMB_CONSTANT

SETS = ("dipeptides", "des370k_monomers", "des370k_dimers")
DISTANCE = 100.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential")
    parser.add_argument("--frames", type=int, default=0, help="frames of each set; all if not given")
    parser.add_argument("--pairs", type=int, default=10, help="pairs of molecules for additivity")
    arguments = parser.parse_args()
    if "LRC_ASE_DATA" not in os.environ:
        raise SystemExit("set LRC_ASE_DATA to the folder that holds spice_bec")
    torch.set_num_threads(1)
    folder = Path(os.environ["LRC_ASE_DATA"]) / "spice_bec"
    calculator = lrc_ase.load(arguments.potential)
    known = set(calculator.model.settings.elements)
    print(f"{'set':<18} {'frames':>6} {'dipole R2':>9} {'RMSE':>8} {'Born R2':>8} {'RMSE':>8}   (e Angstrom, e)")
    molecules: list[Atoms] = []
    for name in SETS:
        frames = ase.io.read(folder / f"{name}.extxyz", f":{arguments.frames or ''}")
        usable = [frame for frame in frames if set(frame.get_chemical_symbols()) <= known]
        molecules += usable[: arguments.pairs]
        if not usable:
            print(f"{name:<18}      0   (elements that the potential does not know)")
            continue
        dipole, born = compared(calculator, usable)
        print(
            f"{name:<18} {len(usable):>6} {determination(dipole):>9.4f} {rmse(dipole):>8.4f} "
            f"{determination(born):>8.4f} {rmse(born):>8.4f}"
        )
    print_additivity(calculator, molecules[: arguments.pairs + 1])


Pairs = tuple[np.ndarray, np.ndarray]
"""Labels and predictions."""


def compared(calculator: lrc_ase.LRCCalculator, frames: Sequence[Atoms]) -> tuple[Pairs, Pairs]:
    """Return labels and predictions of dipoles and of Born effective charges."""
    dipoles: list[Pairs] = []
    born: list[Pairs] = []
    for frame in frames:
        atoms = plain(frame)
        dipoles.append((np.array(label(frame, "dipole")), calculator.get_property("dipole", atoms)))
        reference = label(frame, "born_effective_charges").reshape(-1, 3, 3)
        born.append((reference.ravel(), calculator.get_born_effective_charges(atoms).ravel()))
    return joined(dipoles), joined(born)


def joined(pairs: Sequence[Pairs]) -> Pairs:
    labels, predictions = zip(*pairs, strict=True)
    return np.concatenate(labels), np.concatenate(predictions)


def plain(frame: Atoms) -> Atoms:
    """Return the molecule without labels; its total charge stays."""
    atoms = Atoms(frame.numbers, positions=frame.positions)
    atoms.info["charge"] = float(frame.info.get("charge", 0))
    return atoms


def label(frame: Atoms, name: str) -> np.ndarray:
    """Return a label, which versions of ASE put into the frame's calculator, its arrays or its `info`."""
    for holder in (frame.calc.results if frame.calc else {}, frame.arrays, frame.info):
        if name in holder:
            return np.asarray(holder[name])
    raise SystemExit(f"a frame has no {name}: the set differs from that of the docs")


def determination(pairs: Pairs) -> float:
    labels, predictions = pairs
    return float(1 - ((predictions - labels) ** 2).sum() / ((labels - labels.mean()) ** 2).sum())


def rmse(pairs: Pairs) -> float:
    return float(np.sqrt(((pairs[1] - pairs[0]) ** 2).mean()))


def print_additivity(calculator: lrc_ase.LRCCalculator, molecules: Sequence[Atoms]) -> None:
    """Print the largest deviations from additivity over pairs of molecules at a distance of 100 Angstrom."""
    largest = dict.fromkeys(("net charge", "energy", "energy less Coulomb"), 0.0)
    for first, second in pairwise(molecules):
        parts = [plain(first), plain(second)]
        parts[1].translate([DISTANCE, 0, 0])
        together = parts[0] + parts[1]
        energy, charges = calculator.get_potential_energy(together), calculator.get_charges(together)
        alone = [(calculator.get_potential_energy(part), calculator.get_charges(part)) for part in parts]
        separations = np.linalg.norm(parts[0].positions[:, None] - parts[1].positions, axis=2)
        coulomb = COULOMB_CONSTANT * (alone[0][1][:, None] * alone[1][1] / separations).sum()
        difference = energy - alone[0][0] - alone[1][0]
        nets = abs(charges[: len(first)].sum()), abs(charges[len(first) :].sum())
        found = {"net charge": max(nets), "energy": abs(difference), "energy less Coulomb": abs(difference - coulomb)}
        largest = {name: max(value, found[name]) for name, value in largest.items()}
    print(f"pairs {DISTANCE:g} Angstrom apart: largest " + ", ".join(f"{name} {v:.1e}" for name, v in largest.items()))


if __name__ == "__main__":
    main()
