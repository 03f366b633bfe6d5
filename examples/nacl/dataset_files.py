"""Write the finished files, and check what a user will read from them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from labeling import PROPERTIES


def write_compact_extxyz(path: Path, frames: Sequence[Atoms]) -> None:
    """Write extended XYZ as ASE does, with single spaces between the columns: a third smaller."""
    text = io.StringIO()
    write(text, list(frames), format="extxyz")
    lines = text.getvalue().splitlines()
    start = 0
    while start < len(lines):
        # a frame is the number of atoms, a comment line that stays as it is, and a line per atom
        n_atoms = int(lines[start])
        for row in range(start + 2, start + 2 + n_atoms):
            lines[row] = " ".join(lines[row].split())
        start += 2 + n_atoms
    path.write_text("\n".join(lines) + "\n")


def spread_frames(frames: Sequence[Atoms], n_frames: int) -> list[Atoms]:
    """Return `n_frames` of the frames at equal distances in time, wrapped and without momenta."""
    chosen = []
    for index in np.linspace(0, len(frames) - 1, n_frames).round().astype(int):
        source = frames[index]
        frame = Atoms(numbers=source.numbers, positions=source.positions, cell=source.cell, pbc=True)
        frame.wrap()
        frame.info = dict(source.info)
        frame.calc = SinglePointCalculator(frame, **{name: source.calc.results[name] for name in PROPERTIES})
        chosen.append(frame)
    return chosen


def check_frames(frames: Sequence[Atoms]) -> None:
    """Raise ValueError at the first frame that is incomplete, unphysical or a duplicate."""
    seen = set()
    for number, atoms in enumerate(frames):
        missing = [name for name in PROPERTIES if name not in atoms.calc.results]
        if missing:
            raise ValueError(f"frame {number}: expected {PROPERTIES}, {missing} missing")
        forces = atoms.get_forces()
        net_force = np.abs(forces.sum(axis=0)).max()
        if net_force > 1e-4:
            raise ValueError(f"frame {number}: net force should vanish, got {net_force:.1e} eV/Angstrom")
        if np.sum(atoms.numbers == 11) != np.sum(atoms.numbers == 17):
            raise ValueError(f"frame {number}: expected as many Na as Cl, got {atoms.get_chemical_formula()}")
        if abs(atoms.get_charges().sum()) > 1e-3:
            raise ValueError(f"frame {number}: charges should add up to zero, got {atoms.get_charges().sum():.1e}")
        key = np.round(atoms.positions, 4).tobytes()
        if key in seen:
            raise ValueError(f"frame {number}: a frame before it has the same positions")
        seen.add(key)


def summary_rows(frames: Sequence[Atoms]) -> list[str]:
    """Return a Markdown table of counts and ranges by state and origin."""
    groups: dict[tuple, list[Atoms]] = {}
    for atoms in frames:
        groups.setdefault((atoms.info["state"], atoms.info["origin"]), []).append(atoms)
    rows = [
        "| state | origin | frames | atoms | T (K) | density (g/cm^3) | energy (eV/atom) | force rms, max (eV/A) "
        "| pressure (GPa) | shortest distance (A) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (state, origin), members in sorted(groups.items()):
        forces = np.concatenate([atoms.get_forces() for atoms in members])
        columns = [
            state,
            origin,
            str(len(members)),
            "/".join(str(n) for n in sorted({len(atoms) for atoms in members})),
            _span([atoms.info["temperature"] for atoms in members], ".0f"),
            _span([atoms.info["density"] for atoms in members], ".2f"),
            _span([atoms.get_potential_energy() / len(atoms) for atoms in members], ".3f"),
            f"{np.sqrt(np.mean(forces**2)):.3f}, {np.abs(forces).max():.2f}",
            _span([-atoms.get_stress()[:3].mean() / units.GPa for atoms in members], ".2f"),
            f"{min(shortest_distance(atoms) for atoms in members):.2f}",
        ]
        rows.append("| " + " | ".join(columns) + " |")
    return rows


def shortest_distance(atoms: Atoms) -> float:
    """Return the shortest distance between two atoms, images included, in Angstrom."""
    return float(atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min())


def _span(values: Sequence[float], spec: str) -> str:
    low, high = format(min(values), spec), format(max(values), spec)
    return low if low == high else f"{low} to {high}"


def write_and_check(path: Path, frames: Sequence[Atoms]) -> list[str]:
    """Write the frames, read them back, check them, and return their table as lines of Markdown."""
    write_compact_extxyz(path, frames)
    stored = read(path, ":")
    check_frames(stored)
    for atoms, source in zip(stored, frames, strict=True):
        if abs(atoms.get_potential_energy() - source.get_potential_energy()) > 1e-6:
            raise ValueError(f"{path} does not give back the energies that were written")
    return [f"## {path.name}: {len(stored)} frames, {path.stat().st_size / 1e6:.2f} MB", "", *summary_rows(stored), ""]
