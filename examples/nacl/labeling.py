"""Label configurations with GFN1-xTB, and keep every result so that an interrupted run loses nothing."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

PROPERTIES = ("energy", "forces", "stress", "charges")


def xtb_calculator() -> Calculator:
    """Return the reference: GFN1-xTB at the Gamma point, electronic temperature 300 K (tblite's defaults)."""
    # imported here, so that reading the set or the pair potential needs no tblite
    from tblite.ase import TBLite

    return TBLite(method="GFN1-xTB", verbosity=0)


def rounded(atoms: Atoms) -> Atoms:
    """Return a bare copy with wrapped positions on a 1e-6 Angstrom grid.

    Rounded before it is labeled, so that the text file holds exactly the positions that were labeled.
    """
    bare = Atoms(numbers=atoms.numbers, cell=np.round(atoms.cell.array, 6), pbc=True, info=dict(atoms.info))
    bare.positions = atoms.positions
    bare.wrap()
    bare.positions = np.round(bare.positions, 6)
    return bare


def configuration_key(atoms: Atoms) -> str:
    """Return a digest of species, cell and positions."""
    digest = hashlib.sha256()
    for array in (atoms.numbers.astype("<i8"), atoms.cell.array.astype("<f8"), atoms.positions.astype("<f8")):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]


class LabelCache:
    """One JSON line per labeled configuration, appended as soon as it is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._results: dict[str, dict] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                # a line without its end was cut by an interruption: its configuration is labeled again
                if line.endswith("}"):
                    entry = json.loads(line)
                    self._results[entry.pop("key")] = entry

    def __contains__(self, atoms: Atoms) -> bool:
        return configuration_key(atoms) in self._results

    def labeled(self, atoms: Atoms) -> Atoms:
        """Return a copy of `atoms` that carries its stored results in a SinglePointCalculator."""
        entry = self._results[configuration_key(atoms)]
        frame = atoms.copy()
        results = {name: np.array(entry[name]) for name in PROPERTIES if name != "energy"}
        frame.calc = SinglePointCalculator(frame, energy=entry["energy"], **results)
        return frame

    def labeled_frames(self, frames: Iterable[Atoms]) -> list[Atoms]:
        """Return the labeled copies of those frames that are labeled already, in order."""
        return [self.labeled(atoms) for atoms in frames if atoms in self]

    def add(self, atoms: Atoms, results: dict) -> None:
        """Store `results`, which must hold energy, forces, stress and charges."""
        key = configuration_key(atoms)
        entry = {name: np.asarray(results[name]).tolist() for name in PROPERTIES}
        self._results[key] = entry
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, **entry}) + "\n")


def label(frames: Iterable[Atoms], cache: LabelCache, *, log: Path | None = None) -> list[Atoms]:
    """Label every frame that is not in the cache, and return all of them with their results."""
    frames = list(frames)
    calculator = xtb_calculator()
    n_atoms = None
    for number, atoms in enumerate(frames):
        if atoms in cache:
            continue
        if len(atoms) != n_atoms:
            n_atoms, calculator = len(atoms), xtb_calculator()
        start = time.perf_counter()
        trial = atoms.copy()
        trial.calc = calculator
        trial.get_forces()
        cache.add(atoms, calculator.results)
        if log is not None:
            seconds = time.perf_counter() - start
            with log.open("a") as file:
                file.write(f"{number + 1}/{len(frames)} n_atoms={n_atoms} {seconds:.1f} s\n")
    return [cache.labeled(atoms) for atoms in frames]
