"""Check that forces and stress are the derivatives of the energy."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from lrc_ase.checks.results import CheckResult, Quantity
from lrc_ase.checks.subject import Subject

__all__ = ["finite_differences"]

LARGEST_ERROR = 2e-3
"""Largest error of forces and stress, in units of their root mean square."""
N_ATOMS = 3
FORCE_STEP = 1e-3
"""Displacement for forces, Angstrom; the error is of fourth order, as two steps are extrapolated to zero."""
STRAIN_STEP = 1e-3


def finite_differences(subject: Subject, rng: np.random.Generator) -> CheckResult:
    r"""Compare forces and stress with central differences of the energy on a rattled structure.

    Differences with steps h and h/2 are combined, :math:`(4 D(h/2) - D(h)) / 3`, so that neither a large step nor the
    rounding of total energies in single precision dominates.
    """
    atoms = subject.rattled(rng)
    forces = atoms.get_forces(apply_constraint=False)  # differences of energies know no constraint
    scale = max(float(np.sqrt(np.mean(forces**2))), 1e-3)
    chosen = rng.choice(len(atoms), min(N_ATOMS, len(atoms)), replace=False)
    steps = [calculate_numerical_forces(atoms, eps=step, iatoms=chosen) for step in (FORCE_STEP, FORCE_STEP / 2)]
    error = float(np.abs(_extrapolated(*steps) - forces[chosen]).max())
    quantities = [
        Quantity(
            "largest error of forces / root mean square force", error / scale, at_most=LARGEST_ERROR, is_main=True
        ),
        Quantity("largest error of forces", error, "eV/Angstrom"),
    ]
    sentence = f"Forces on {len(chosen)} of {len(atoms)} atoms were compared with central differences of the energy"
    if subject.is_periodic:
        with suppress(PropertyNotImplementedError):
            stress = atoms.get_stress(apply_constraint=False)
            steps = [calculate_numerical_stress(atoms, eps=step) for step in (STRAIN_STEP, STRAIN_STEP / 2)]
            # the stress of a relaxed crystal is small: pressures of 0.1 GPa are the scale below which nobody looks
            scale = max(float(np.sqrt(np.mean(stress**2))), 6e-4)
            error = float(np.abs(_extrapolated(*steps) - stress).max())
            quantities += [
                Quantity("largest error of stress / root mean square stress", error / scale, at_most=LARGEST_ERROR),
                Quantity("largest error of stress", error, "eV/Angstrom^3"),
            ]
            sentence += ", and all six components of the stress with those of strained cells"
    return CheckResult.judged("finite differences", f"{sentence}.", quantities)


def _extrapolated(whole: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Combine central differences of a step and of half a step to fourth order."""
    return np.asarray((4 * half - whole) / 3)
