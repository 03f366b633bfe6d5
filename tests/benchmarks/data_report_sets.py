"""Sound sets of frames for calibrating the data report: labels and structures that belong together by construction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Octahedron
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet

import lrc_ase
from lrc_ase.dataset import LabelledFrame, label_frame, read_frames

__all__ = ["public_sets", "synthetic_sets"]

Structures = list[Atoms]


def labelled(structures: Structures, calculator: Calculator) -> list[LabelledFrame]:
    """Label structures by a calculator, with stresses where all directions are periodic."""
    frames = []
    for number, structure in enumerate(structures):
        atoms = structure.copy()
        atoms.calc = calculator
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        if atoms.pbc.all():
            labels["stress"] = atoms.get_stress()
        atoms = structure.copy()
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(label_frame(atoms, name=f"frame {number}"))
    return frames


def dynamics(atoms: Atoms, calculator: Calculator, n_frames: int, *, temperature: float, interval: int) -> Structures:
    """Return structures of molecular dynamics at constant energy, `interval` femtoseconds apart."""
    atoms = atoms.copy()
    atoms.calc = calculator
    rng = np.random.default_rng(n_frames)
    spread = np.sqrt(2 * temperature * units.kB * atoms.get_masses())[:, None]  # half of it becomes potential energy
    atoms.set_momenta(spread * rng.normal(size=(len(atoms), 3)))
    simulation = VelocityVerlet(atoms, units.fs)
    simulation.run(100)
    structures = []
    for _ in range(n_frames):
        simulation.run(interval)
        structures.append(atoms.copy())
    return structures


def rattled(atoms: Atoms, n_frames: int, amplitude: float, *, strain: float = 0.0) -> Structures:
    """Return copies with normal displacements of all atoms and of all elements of the strain."""
    rng = np.random.default_rng(n_frames)
    structures = []
    for _ in range(n_frames):
        copy = atoms.copy()
        if strain:
            deformation = rng.normal(0, strain, (3, 3))
            copy.set_cell(copy.cell.array @ (np.eye(3) + (deformation + deformation.T) / 2), scale_atoms=True)
        copy.positions += rng.normal(0, amplitude, copy.positions.shape)
        structures.append(copy)
    return structures


def scaled(atoms: Atoms, lowest: float, highest: float, n_frames: int) -> Structures:
    """Return copies of different volume, for an equation of state."""
    structures = []
    for factor in np.linspace(lowest, highest, n_frames):
        structures.append(atoms.copy())
        structures[-1].set_cell(factor * atoms.cell.array, scale_atoms=True)
    return structures


def synthetic_sets() -> Iterator[tuple[str, list[LabelledFrame]]]:
    """Yield sets labelled by EMT, Lennard-Jones, Morse and the shipped potential of NaCl."""
    copper, alloy = bulk("Cu", cubic=True) * (2, 2, 1), bulk("Cu", cubic=True) * (2, 1, 1)
    alloy.symbols[::3] = "Au"
    slab = fcc111("Al", (2, 2, 3), vacuum=6.0)
    covered = fcc111("Pt", (2, 2, 2), vacuum=6.0)
    add_adsorbate(covered, "O", 1.2, "fcc")
    boxed_slab, held = slab.copy(), covered.copy()
    boxed_slab.pbc = True
    held.set_constraint(FixAtoms([atom.index for atom in held if atom.tag == 2]))
    boxed = Octahedron("Cu", 3)
    boxed.center(vacuum=6.0)
    boxed.pbc = True
    argon = bulk("Ar", a=5.26, cubic=True) * (2, 2, 1)
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    nitrogen = Atoms("N2", positions=[[0, 0, 0], [1.1, 0, 0]])
    lennard_jones = LennardJones(sigma=3.405, epsilon=0.0103, rc=8.0, smooth=True)
    morse = MorsePotential(epsilon=9.8, r0=1.1, rho0=2.9)
    shipped = lrc_ase.load("nacl")
    # each line: name, calculator, structures; what is slow to construct is made when its turn comes
    recipes: list[tuple[str, Calculator, Callable[[], Structures]]] = [
        ("Cu, MD 600 K", EMT(), lambda: dynamics(copper, EMT(), 30, temperature=600, interval=5)),
        ("Cu, MD 1200 K, sparse", EMT(), lambda: dynamics(copper, EMT(), 20, temperature=1200, interval=60)),
        ("Cu, rattled 0.02", EMT(), lambda: rattled(copper, 12, 0.02)),
        ("Cu, rattled 0.1", EMT(), lambda: rattled(copper, 20, 0.1)),
        ("Cu, rattled 0.2", EMT(), lambda: rattled(copper, 25, 0.2)),
        ("Cu, strained", EMT(), lambda: rattled(copper, 24, 0.05, strain=0.02)),
        ("Cu, equation of state", EMT(), lambda: scaled(bulk("Cu", cubic=True), 0.94, 1.08, 11)),
        ("CuAu, rattled and strained", EMT(), lambda: rattled(alloy, 18, 0.08, strain=0.01)),
        ("Al slab, MD 500 K", EMT(), lambda: dynamics(slab, EMT(), 25, temperature=500, interval=8)),
        ("O on Pt, rattled 0.06", EMT(), lambda: rattled(covered, 15, 0.06)),
        ("Al slab in a box, MD 500 K", EMT(), lambda: dynamics(boxed_slab, EMT(), 25, temperature=500, interval=8)),
        ("Al slab in a box, strained", EMT(), lambda: rattled(boxed_slab, 20, 0.05, strain=0.02)),
        ("O on Pt, layer held, MD 300 K", EMT(), lambda: dynamics(held, EMT(), 25, temperature=300, interval=8)),
        ("Cu cluster, MD 400 K", EMT(), lambda: dynamics(Octahedron("Cu", 3), EMT(), 25, temperature=400, interval=10)),
        ("Cu cluster in a box", EMT(), lambda: rattled(boxed, 12, 0.08)),
        ("Pd, single frame", EMT(), lambda: rattled(bulk("Pd", cubic=True) * (2, 2, 2), 1, 0.1)),
        ("Ni, three frames", EMT(), lambda: rattled(bulk("Ni", cubic=True), 3, 0.05)),
        ("Ar, MD 60 K", lennard_jones, lambda: dynamics(argon, lennard_jones, 25, temperature=60, interval=40)),
        ("Ar, rattled 0.15", lennard_jones, lambda: rattled(argon, 20, 0.15)),
        ("Ar, strained", lennard_jones, lambda: rattled(argon, 20, 0.05, strain=0.02)),
        ("N2, MD", morse, lambda: dynamics(nitrogen, morse, 40, temperature=600, interval=3)),
        ("N2, rattled 0.05", morse, lambda: rattled(nitrogen, 20, 0.05)),
        ("N2, rattled 0.1", morse, lambda: rattled(nitrogen, 20, 0.1)),
        ("CO, EMT, rattled", EMT(), lambda: rattled(molecule("CO"), 15, 0.06)),
        ("NaCl, rattled 0.05", shipped, lambda: rattled(salt, 15, 0.05)),
        ("NaCl, rattled 0.15", shipped, lambda: rattled(salt, 20, 0.15)),
        ("NaCl, strained", shipped, lambda: rattled(salt, 20, 0.04, strain=0.02)),
        ("NaCl, MD 800 K", shipped, lambda: dynamics(salt, shipped, 20, temperature=800, interval=10)),
        ("NaCl pairs", shipped, lambda: rattled(Atoms("NaCl", positions=[[0, 0, 0], [2.5, 0, 0]]), 20, 0.1)),
    ]  # fmt: skip
    for name, calculator, structures in recipes:
        yield name, labelled(structures(), calculator)
    for name in ("small", "large"):
        path = Path(__file__).parents[2] / "examples" / "nacl" / f"{name}.extxyz"
        yield f"NaCl (GFN1-xTB), {name}", [label_frame(atoms) for atoms in read_frames(f"{path}@:60")]


def public_sets(folder: Path, largest: int = 40) -> Iterator[tuple[str, list[LabelledFrame]]]:
    """Yield up to `largest` frames of the largest extended XYZ file of each folder below `folder`."""
    for parent in sorted({path.parent for path in folder.rglob("*.extxyz")}):
        path = max(parent.glob("*.extxyz"), key=lambda each: (each.stat().st_size, each.name))
        frames = [label_frame(atoms, required=()) for atoms in read_frames(f"{path}@:{largest}")]
        yield f"{parent.name}/{path.stem}", frames
