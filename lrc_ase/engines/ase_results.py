"""Results of an evaluation under ASE's names, with ASE's shapes and signs."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from lrc_ase.models.derivatives import Results

__all__ = ["ases_results", "numpy_copy", "voigt"]


def ases_results(evaluation: Results, reference_energies: Tensor, atoms: Atoms) -> dict[str, Any]:
    """Return energies and forces, and charges and dipole where they exist, of an evaluation of one structure.

    The energy is the sum of the model's atomic energies and of `reference_energies` (n_atoms,), eV. The model leaves
    them out because they are large. The dipole exists with an open direction alone.

    Raises
    ------
    CalculationFailed
        The energy or a force is not finite.
    """
    assert evaluation.forces is not None
    energies = evaluation.atomic_energies + reference_energies
    energy = float(energies.sum())
    forces = numpy_copy(evaluation.forces)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise CalculationFailed(
            "the model gives energies or forces that are not finite for these atoms: look at the step that made "
            "their positions, or evaluate in float64"
        )
    results = {"energy": energy, "free_energy": energy, "energies": numpy_copy(energies), "forces": forces}
    if evaluation.charges is not None:
        results["charges"] = numpy_copy(evaluation.charges)
    if evaluation.dipole is not None and not atoms.pbc.all():
        results["dipole"] = _across(numpy_copy(evaluation.dipole)[0], atoms.cell.array[atoms.pbc])
    return results


def voigt(stresses: Tensor) -> np.ndarray:
    """Return stress tensors (n, 3, 3) as ASE's components xx, yy, zz, yz, xz, xy, (n, 6), eV/Angstrom^3."""
    return np.array([full_3x3_to_voigt_6_stress(stress) for stress in numpy_copy(stresses)])


def numpy_copy(tensor: Tensor) -> np.ndarray:
    """Return a copy of a tensor in float64, which no later evaluation overwrites."""
    return tensor.double().cpu().numpy().copy()


def _across(dipole: np.ndarray, periodic_vectors: np.ndarray) -> np.ndarray:
    """Return the component of `dipole` (3,) perpendicular to the periodic cell vectors (n, 3)."""
    if not len(periodic_vectors):
        return dipole
    basis = np.linalg.qr(periodic_vectors.T)[0]
    return np.asarray(dipole - basis @ (basis.T @ dipole))
