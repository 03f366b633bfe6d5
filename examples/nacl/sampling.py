"""Draw configurations of crystalline and molten NaCl by molecular dynamics with a cheap calculator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

GRAM_PER_CM3 = units.kg / 1e3 / (units.m / 1e2) ** 3  # in amu / Angstrom^3
TIME_STEP = 4.0 * units.fs
FRICTION = 0.01 / units.fs
MELTING_TEMPERATURE = 3000.0  # K: where a superheated crystal of the pair potential disorders in a few ps


@dataclass(frozen=True)
class Condition:
    """One thermodynamic state to draw frames from.

    `temperature` in K; `lattice_constant` in Angstrom fixes the volume, of the melt too; `strain` is the
    largest component of a random symmetric strain; `n_vacancy_pairs` counts removed Na-Cl pairs; `rattle` in
    Angstrom is the standard deviation of displacements added after the dynamics; `origin` names the kind of
    frame in its `info`.
    """

    state: Literal["crystal", "melt"]
    temperature: float
    lattice_constant: float
    n_cells: int = 2
    n_frames: int = 1
    strain: float = 0.0
    n_vacancy_pairs: int = 0
    rattle: float = 0.0
    origin: str = ""


def density(atoms: Atoms) -> float:
    """Return the mass density in g/cm^3."""
    return float(atoms.get_masses().sum() / atoms.get_volume() / GRAM_PER_CM3)


def lattice_constant_at(density_g_cm3: float) -> float:
    """Return the edge of a cube that holds four NaCl at this density, in Angstrom."""
    mass = bulk("NaCl", "rocksalt", a=1.0, cubic=True).get_masses().sum()
    return float((mass / (density_g_cm3 * GRAM_PER_CM3)) ** (1 / 3))


def start_configuration(condition: Condition, rng: np.random.Generator) -> Atoms:
    """Build the (strained, defective) rocksalt crystal of `condition`."""
    cubic = bulk("NaCl", "rocksalt", a=condition.lattice_constant, cubic=True)
    atoms = cubic.repeat(condition.n_cells)
    if condition.strain > 0:
        strain = rng.uniform(-condition.strain, condition.strain, size=(3, 3))
        deformation = np.eye(3) + (strain + strain.T) / 2
        atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    for _ in range(condition.n_vacancy_pairs):
        for number in (11, 17):
            del atoms[int(rng.choice(np.flatnonzero(atoms.numbers == number)))]
    # frames are labeled on a 1e-6 Angstrom grid of cells, see labeling.rounded
    atoms.set_cell(np.round(atoms.cell.array, 6), scale_atoms=True)
    return atoms


def run_langevin(
    atoms: Atoms, temperature: float, picoseconds: float, rng: np.random.Generator, *, friction: float = FRICTION
) -> None:
    """Advance `atoms` in place at constant volume and temperature (K)."""
    dynamics = Langevin(atoms, TIME_STEP, temperature_K=temperature, friction=friction, fixcm=False, rng=rng)
    dynamics.run(round(picoseconds * 1000 * units.fs / TIME_STEP))


def draw_frames(
    condition: Condition,
    calculator: Calculator,
    rng: np.random.Generator,
    *,
    equilibration: float = 2.0,
    spacing: float = 1.5,
    melting: float = 3.0,
) -> list[Atoms]:
    """Return `condition.n_frames` configurations, `spacing` ps apart.

    A melt starts from the crystal, disordered by `melting` ps at `MELTING_TEMPERATURE`, then cooled for the
    equilibration time; a strained or defective crystal is drawn anew for every frame.
    """
    independent = condition.strain > 0 or condition.n_vacancy_pairs > 0
    n_runs, n_per_run = (condition.n_frames, 1) if independent else (1, condition.n_frames)
    frames = []
    for _ in range(n_runs):
        atoms = start_configuration(condition, rng)
        atoms.calc = calculator
        if condition.state == "melt":
            MaxwellBoltzmannDistribution(atoms, temperature_K=MELTING_TEMPERATURE, rng=rng)
            run_langevin(atoms, MELTING_TEMPERATURE, melting, rng)
        else:
            # half of it goes into the potential energy at once
            MaxwellBoltzmannDistribution(atoms, temperature_K=2 * condition.temperature, rng=rng)
        run_langevin(atoms, condition.temperature, equilibration, rng)
        for number in range(n_per_run):
            if number > 0:
                run_langevin(atoms, condition.temperature, spacing, rng)
            frames.append(_described(atoms, condition, rng))
    return frames


def _described(atoms: Atoms, condition: Condition, rng: np.random.Generator) -> Atoms:
    """Return a bare copy, rattled if the condition says so, with its state of origin in `info`."""
    frame = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    if condition.rattle > 0:
        frame.positions += condition.rattle * rng.standard_normal(frame.positions.shape)
    frame.info = {
        "temperature": float(condition.temperature),
        "state": condition.state,
        "density": round(density(frame), 4),
        "origin": condition.origin,
    }
    return frame


def interleave(groups: list[list[Atoms]]) -> list[Atoms]:
    """Merge the groups so that every stretch of the result holds each of them in proportion."""
    placed = [
        ((position + 0.5) / len(group), number, atoms)
        for number, group in enumerate(groups)
        for position, atoms in enumerate(group)
    ]
    return [atoms for _, _, atoms in sorted(placed, key=lambda entry: entry[:2])]
