"""Subject of a check: a system and the calculators that are checked on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from lrc_ase.checks.results import NotApplicable
from lrc_ase.checks.settings import CheckSettings
from lrc_ase.structures.domain import DOMAIN_KEY

__all__ = ["Candidate", "Kind", "Subject", "kind_of"]

Kind = Literal["crystal", "liquid", "molecule"]
ROOM_TEMPERATURE = 300.0
RATTLE = 0.05
"""Standard deviation of displacements, Angstrom."""
CRYSTAL_FORCE = 0.2
"""Largest mean force of a structure that counts as a crystal, eV/Angstrom: it lies close to a minimum of the energy."""


@dataclass(frozen=True)
class Candidate:
    """Calculator under test, its variants and what is known of it."""

    calculator: Calculator
    """Calculator in double precision."""
    single: Calculator | None = None
    """Calculator of the same potential in single precision; None where there is none."""
    elements: tuple[str, ...] = ()
    """Elements that the potential knows; empty for a calculator that does not tell."""
    shortest: dict[str, float] = field(default_factory=dict)
    """Shortest distances in training, Angstrom, by pair as ``"Na-Cl"``."""

    def shortest_distance(self, first: str, second: str) -> float | None:
        """Return the shortest distance of two elements in training, Angstrom; None where it is not known."""
        return self.shortest.get(f"{first}-{second}", self.shortest.get(f"{second}-{first}"))

    @classmethod
    def of(cls, calculator: Calculator, single: Calculator | None = None) -> Candidate:
        """Collect elements and training domain of a calculator, where it has the attributes of `LRCCalculator`."""
        potential: Any = getattr(calculator, "potential", None)
        if potential is None or not hasattr(potential, "settings"):
            return cls(calculator, single)
        domain = potential.description.get(DOMAIN_KEY) or {}
        return cls(calculator, single, tuple(potential.settings.elements), dict(domain.get("shortest_distances") or {}))


@dataclass(frozen=True)
class Subject:
    """System on which checks run."""

    candidate: Candidate
    structure: Atoms
    """Structure without a calculator; checks take copies of it."""
    kind: Kind
    folder: Path
    """Folder for the files of runs."""
    settings: CheckSettings
    progress: Callable[[str], None] = lambda _: None
    """Function that shows what a long check is doing."""
    labels: Sequence[Atoms] = ()
    """Labelled frames for the check of errors."""
    reference: Calculator | None = None

    def atoms(self) -> Atoms:
        """Return a copy of the structure with the calculator."""
        atoms = self.structure.copy()
        atoms.calc = self.candidate.calculator
        return atoms

    def rattled(self, rng: np.random.Generator) -> Atoms:
        """Return a copy with displaced atoms, so that forces do not vanish."""
        atoms = self.atoms()
        atoms.positions += RATTLE * rng.standard_normal(atoms.positions.shape)
        return atoms

    def require(self, *kinds: Kind) -> None:
        """Raise NotApplicable unless the system is of one of these kinds."""
        if self.kind not in kinds:
            raise NotApplicable(f"needs a {' or a '.join(kinds)}, and this system is a {self.kind}")

    @property
    def is_periodic(self) -> bool:
        """Return True if the system is periodic in three directions."""
        return bool(self.structure.pbc.all())

    @property
    def temperature(self) -> float:
        """Return the temperature of runs, K."""
        if self.settings.temperature is not None:
            return self.settings.temperature
        return float(self.structure.info.get("temperature", ROOM_TEMPERATURE))

    @property
    def timestep(self) -> float:
        """Return the time step of runs, fs."""
        if self.settings.timestep is not None:
            return self.settings.timestep
        return 0.5 if 1 in self.structure.numbers else 1.0

    @property
    def elements(self) -> list[str]:
        """Return the elements of the system in the order of first appearance."""
        return list(dict.fromkeys(self.structure.get_chemical_symbols()))


def kind_of(structure: Atoms, calculator: Calculator) -> Kind:
    """Return the kind of a structure: its name in ``atoms.info["kind"]``, or a guess.

    Without three periodic directions it is a molecule. A periodic structure close to a minimum of the energy, with a
    mean force below `CRYSTAL_FORCE`, is a crystal; a snapshot of a liquid has larger forces.

    Raises
    ------
    ValueError
        ``atoms.info["kind"]`` is none of crystal, liquid and molecule.
    """
    if (kind := structure.info.get("kind")) is not None:
        if kind not in ("crystal", "liquid", "molecule"):
            raise ValueError(f'`info["kind"]` must be crystal, liquid or molecule, got {kind!r}')
        return kind
    if not structure.pbc.all():
        return "molecule"
    forces = calculator.get_forces(structure.copy())
    return "crystal" if float(np.linalg.norm(forces, axis=1).mean()) < CRYSTAL_FORCE else "liquid"
