"""Check of the energy of a crystal over its volume, and its bulk modulus."""

from __future__ import annotations

import warnings

import numpy as np
from ase import units
from ase.eos import EquationOfState
from scipy.optimize import OptimizeWarning

from lrc_ase.checks.crystal_cells import FORCE, relaxed_crystal
from lrc_ase.checks.results import CheckResult, Curve, Figure, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.relaxation import RelaxSettings, relax

__all__ = ["equation_of_state"]

LARGEST_STRAIN = 0.06
"""Largest relative change of the volume."""
N_VOLUMES = 11
LARGEST_RESIDUAL = 0.5
"""Largest root mean square deviation from the fitted equation of state, meV per atom."""


def equation_of_state(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Fit the equation of state of Birch and Murnaghan (doi:10.1103/PhysRev.71.809) to energies over volumes.

    The cell is scaled as a whole; positions are relaxed at each volume.
    """
    atoms = relaxed_crystal(subject)
    n_atoms = len(atoms)
    scales = 1 + np.linspace(-LARGEST_STRAIN, LARGEST_STRAIN, N_VOLUMES)
    volumes, energies = [], []
    for index, scale in enumerate(scales):
        subject.progress(f"volume {index + 1} of {N_VOLUMES}")
        scaled = atoms.copy()
        scaled.calc = atoms.calc
        scaled.set_cell(atoms.cell.array * np.cbrt(scale), scale_atoms=True)
        relax(scaled, RelaxSettings(fmax=FORCE, max_steps=200))
        volumes.append(scaled.get_volume() / n_atoms)
        energies.append(scaled.get_potential_energy() / n_atoms)
    fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # a fit without covariance shows in the deviation from it
        volume, energy, modulus = fit.fit(warn=False)
    fitted = fit.func(np.array(volumes), *fit.eos_parameters)
    residual = 1000 * float(np.sqrt(np.mean((np.array(energies) - fitted) ** 2)))
    lengths = atoms.cell.lengths() * np.cbrt(volume * n_atoms / atoms.get_volume())
    quantities = [
        Quantity("volume per atom", float(volume), "Angstrom^3"),
        *(
            Quantity(f"lattice constant {name}", float(length), "Angstrom", is_main=True)
            for name, length in _distinct(lengths)
        ),
        Quantity("bulk modulus", float(modulus / units.GPa), "GPa", at_least=0.0, is_main=True),
        Quantity("deviation from the fit", residual, "meV/atom", at_most=LARGEST_RESIDUAL),
    ]
    grid = np.linspace(min(volumes), max(volumes), 100)
    figure = Figure(
        "Equation of state",
        "Volume per atom (Angstrom^3)",
        "Energy - minimum (meV/atom)",
        (
            Curve.of("computed", volumes, 1000 * (np.array(energies) - energy), points=True),
            Curve.of("Birch-Murnaghan", grid, 1000 * (fit.func(grid, *fit.eos_parameters) - energy)),
        ),
        "Points off the curve are steps of the energy, or another phase.",
    )
    sentence = f"{N_VOLUMES} volumes within {100 * LARGEST_STRAIN:g}% of the relaxed cell of {n_atoms} atoms, at 0 K."
    return CheckResult.judged("equation of state", sentence, quantities, [figure])


def _distinct(lengths: np.ndarray) -> list[tuple[str, float]]:
    """Return names and lengths of the cell vectors, each length once.

    >>> [name for name, _ in _distinct(np.array([3.0, 3.0, 5.0]))]
    ['a', 'c']
    """
    kept: list[tuple[str, float]] = []
    for name, length in zip("abc", lengths, strict=True):
        if all(abs(length - other) > 1e-3 * length for _, other in kept):
            kept.append((name, float(length)))
    return kept
