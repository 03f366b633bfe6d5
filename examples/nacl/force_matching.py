"""Fit the pair potential to labeled frames: linear least squares on forces and stresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase import Atoms
from pair_potential import N_PAIR_KINDS, Array, PairPotential, PairShape, linear_terms
from scipy.optimize import nnls

DECAY_LENGTHS = (0.18, 0.20, 0.22, 0.25, 0.28, 0.32, 0.36, 0.40)  # Angstrom, scanned
STRESS_WEIGHT = 0.1  # of a stress component times the volume per atom (eV) beside a force component (eV/Angstrom)
FORCE_FLOOR = 0.3  # eV/Angstrom, see _design


@dataclass(frozen=True)
class FitReport:
    """Root-mean-square error and size of the forces (eV/Angstrom), their correlation, and the stress error."""

    force_rmse: float
    force_rms: float
    force_correlation: float
    stress_rmse: float


def _design(frames: Sequence[Atoms], decay_length: float) -> Array:
    """Return the weighted terms, one decay length for all three kinds, (n_rows, n_coefficients).

    Each frame is divided by its own force size, or else the few frames with close contacts would decide the fit.
    """
    rows = []
    for atoms in frames:
        terms = linear_terms(atoms, PairShape(decay_lengths=N_PAIR_KINDS * (decay_length,)))
        weight, stress_weight = _weights(atoms)
        rows += [weight * terms.forces.reshape(len(terms.forces), -1).T, stress_weight * terms.stresses.T]
    return np.concatenate(rows)


def _weights(atoms: Atoms) -> tuple[float, float]:
    weight = 1 / (FORCE_FLOOR + np.sqrt(np.mean(atoms.get_forces() ** 2)))
    # 3 n_atoms force components beside 6 of stress
    return weight, weight * STRESS_WEIGHT * atoms.get_volume() / len(atoms) * np.sqrt(len(atoms) / 2)


def fit_pair_potential(frames: Sequence[Atoms]) -> PairPotential:
    """Return the pair potential of smallest weighted squared error; all coefficients are held non-negative.

    Non-negative repulsion, charge and dispersion keep the potential bounded from below at short range, which
    is what a sampler needs. The three decay lengths are scanned.
    """
    targets = []
    for atoms in frames:
        weight, stress_weight = _weights(atoms)
        targets += [weight * atoms.get_forces().ravel(), stress_weight * atoms.get_stress()]
    target = np.concatenate(targets)
    designs = {length: _design(frames, length) for length in DECAY_LENGTHS}
    best_residual, best = np.inf, None
    for lengths in product(DECAY_LENGTHS, repeat=N_PAIR_KINDS):
        matrix = designs[lengths[0]].copy()
        for kind, length in enumerate(lengths):
            matrix[:, 1 + kind] = designs[length][:, 1 + kind]
        scale = np.linalg.norm(matrix, axis=0)
        # orthogonal reduction to n_coefficients rows: the residual differs by a constant only
        orthogonal, triangular = np.linalg.qr(matrix / scale)
        reduced = orthogonal.T @ target
        coefficients, residual = nnls(triangular, reduced)
        residual = np.sqrt(residual**2 + target @ target - reduced @ reduced)
        if residual < best_residual:
            best_residual, best = residual, PairPotential(coefficients / scale, PairShape(decay_lengths=lengths))
    return best


def compare(potential: PairPotential, frames: Sequence[Atoms]) -> FitReport:
    """Compare forces and stresses of the pair potential with the labels."""
    forces, references, stress_errors = [], [], []
    for atoms in frames:
        trial = atoms.copy()
        trial.calc = potential
        forces.append(trial.get_forces().ravel())
        references.append(atoms.get_forces().ravel())
        stress_errors.append(trial.get_stress() - atoms.get_stress())
    force, reference = np.concatenate(forces), np.concatenate(references)
    return FitReport(
        force_rmse=float(np.sqrt(np.mean((force - reference) ** 2))),
        force_rms=float(np.sqrt(np.mean(reference**2))),
        force_correlation=float(np.corrcoef(force, reference)[0, 1]),
        stress_rmse=float(np.sqrt(np.mean(np.square(stress_errors)))),
    )
