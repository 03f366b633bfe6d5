"""Check of the elastic constants of a crystal: stable against strain, and consistent with its energy."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.optimize import LBFGS
from matscipy.elasticity import fit_elastic_constants

from lrc_ase.checks.crystal_cells import FORCE, relaxed_crystal
from lrc_ase.checks.results import CheckResult, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.relaxation import RelaxSettings, relax

__all__ = ["elastic_constants"]

STRAIN_STEP = 2e-3
N_STRAINS = 5
VOLUME_STEP = 0.01
LARGEST_DIFFERENCE = 0.05
"""Largest difference between bulk moduli from stress and from energy, in units of the latter."""
SAME = 0.02
"""Relative difference below which constants count as equal by symmetry."""


def elastic_constants(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Fit the elastic constants to the stress of strained cells, by matscipy, positions relaxed at each strain.

    The matrix is made symmetric, its eigenvalues must be positive (a crystal is stable against every small strain), and
    the bulk modulus under uniform strain must be that of the second difference of the energy.
    """
    atoms = relaxed_crystal(subject)
    subject.progress("strained cells")
    fitted, _ = fit_elastic_constants(
        atoms,
        symmetry="triclinic",
        N_steps=N_STRAINS,
        delta=STRAIN_STEP,
        optimizer=LBFGS,
        verbose=False,
        graphics=False,
        fmax=FORCE,
        steps=200,
    )
    constants = 0.5 * (fitted + fitted.T) / units.GPa
    bulk_modulus = float(constants[:3, :3].mean())
    shear_modulus = float((np.trace(constants[:3, :3]) - 3 * bulk_modulus) / 10 + np.trace(constants[3:, 3:]) / 5)
    energy_modulus = _bulk_modulus(atoms) / units.GPa
    difference = abs(bulk_modulus - energy_modulus) / max(abs(energy_modulus), 1e-3)
    quantities = [
        *(Quantity(name, value, "GPa", is_main=True) for name, value in _independent(constants)),
        Quantity("bulk modulus from stress (Voigt)", bulk_modulus, "GPa"),
        Quantity("bulk modulus from energy", energy_modulus, "GPa"),
        Quantity("difference of both / bulk modulus", difference, at_most=LARGEST_DIFFERENCE),
        Quantity("shear modulus (Voigt)", shear_modulus, "GPa"),
        Quantity("lowest eigenvalue", float(np.linalg.eigvalsh(constants).min()), "GPa", at_least=0.0),
    ]
    sentence = f"Strains up to {100 * STRAIN_STEP * (N_STRAINS // 2):g}% of the relaxed cell of {len(atoms)} atoms."
    return CheckResult.judged("elastic constants", sentence, quantities)


def _bulk_modulus(atoms: Atoms) -> float:
    """Return V d2E/dV2 under uniform strain from energies at five volumes, eV/Angstrom^3, positions relaxed."""
    energies = []
    for change in VOLUME_STEP * np.arange(-2, 3):
        scaled = atoms.copy()
        scaled.calc = atoms.calc
        scaled.set_cell(atoms.cell.array * np.cbrt(1 + change), scale_atoms=True)
        relax(scaled, RelaxSettings(fmax=FORCE, max_steps=200))
        energies.append(scaled.get_potential_energy())
    second = np.array([-1, 16, -30, 16, -1]) / 12  # fourth order in the step
    return float(second @ energies / VOLUME_STEP**2 / atoms.get_volume())


def _independent(constants: np.ndarray) -> list[tuple[str, float]]:
    """Return names and values of the constants that differ and are not small, such as C11, C12, C44 of a cubic crystal.

    >>> cubic = np.diag([5.0, 5.0, 5.0, 2.0, 2.0, 2.0])
    >>> cubic[:3, :3] += 1.0
    >>> [(name, float(value)) for name, value in _independent(cubic)]
    [('C11', 6.0), ('C12', 1.0), ('C44', 2.0)]
    """
    scale = SAME * float(np.abs(constants).max())
    blocks = [
        [(0, 0), (1, 1), (2, 2)],
        [(0, 1), (0, 2), (1, 2)],
        [(3, 3), (4, 4), (5, 5)],
        [(row, column) for row in range(3) for column in range(3, 6)],
        [(3, 4), (3, 5), (4, 5)],
    ]
    kept = []
    for block in blocks:
        values: list[float] = []
        for row, column in block:
            value = float(constants[row, column])
            off_diagonal = row != column and abs(value) < scale
            if off_diagonal or any(abs(value - other) < scale for other in values):
                continue
            values.append(value)
            kept.append((f"C{row + 1}{column + 1}", value))
    return kept
