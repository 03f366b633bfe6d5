"""Phonons by phonopy: force constants, Born effective charges and electronic permittivity of a potential.

Optical vibrations of a polar crystal make an electric field that force constants of a supercell do not contain: close
to the zone center longitudinal modes lie above transverse ones. phonopy adds this non-analytic term from Born effective
charges and the electronic permittivity, its `nac_params`, or a file BORN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.symmetry import symmetrize_borns_and_epsilon
from scipy.constants import e, epsilon_0

from lrc_ase.simulation.current import check_eps_inf

__all__ = ["nac_params", "phonons"]

_EPSILON_0 = epsilon_0 / e * 1e-10
"""Vacuum permittivity, e/(V Angstrom)."""
_COULOMB = 1 / (4 * np.pi * _EPSILON_0)
"""phonopy's `factor` for eV and Angstrom: k_e in eV Angstrom / e^2."""


def phonons(
    atoms: Atoms,
    calculator: Calculator,
    supercell: Sequence[int] | np.ndarray,
    *,
    displacement: float = 0.01,
    primitive: Any = "auto",
    eps_inf: float | None = None,
) -> Any:
    """Compute force constants and non-analytic correction of a crystal; return a `Phonopy` object, ready for bands.

    Parameters
    ----------
    atoms
        Relaxed unit cell, periodic in three directions.
    calculator
        Any calculator; the correction is left out for one without Born effective charges.
    supercell
        Repetitions along the cell vectors (3,), or a matrix (3, 3) as in phonopy.
    displacement
        Length of the displacements, Angstrom.
    primitive
        Primitive cell as in phonopy.
    eps_inf
        See `nac_params`.
    """
    if not atoms.pbc.all():
        raise ValueError(f"phonons need three periodic directions, got pbc {atoms.pbc.tolist()}")
    matrix = np.diag(supercell) if np.ndim(supercell) == 1 else np.asarray(supercell)
    cell = PhonopyAtoms(symbols=atoms.get_chemical_symbols(), cell=atoms.cell.array, positions=atoms.positions)
    phonon: Any = Phonopy(cell, supercell_matrix=matrix, primitive_matrix=primitive)  # attributes are optional types
    phonon.generate_displacements(distance=displacement)
    phonon.forces = [calculator.get_forces(_as_atoms(moved)) for moved in phonon.supercells_with_displacements]
    phonon.produce_force_constants()
    phonon.symmetrize_force_constants()
    if hasattr(calculator, "get_born_effective_charges"):
        try:
            phonon.nac_params = nac_params(phonon, calculator, eps_inf=eps_inf)
        except PropertyNotImplementedError:  # a potential without charges
            phonon.nac_params = None
    return phonon


def nac_params(phonon: Any, calculator: Any, *, eps_inf: float | None = None) -> dict[str, Any]:
    r"""Return Born effective charges and electronic permittivity in phonopy's form, `Phonopy.nac_params`.

    The entries are `born` (n_primitive, 3, 3) in e, with indices atom, polarization, displacement; `dielectric` (3, 3),
    :math:`1 + \alpha / \epsilon_0 V` with the polarizability of the calculator; and `factor`. Both tensors are those of
    the supercell, with the symmetry of the crystal and charges that sum to zero.
    ``phonopy.file_IO.write_BORN(phonon.primitive, params["born"], params["dielectric"])`` writes a file BORN.

    Parameters
    ----------
    calculator
        Calculator with a method ``get_born_effective_charges(atoms)``, and ``get_polarizability(atoms)`` if charges
        answer to a field.
    eps_inf
        Electronic permittivity that screens the charges. Latent charges, learned from energies and forces alone, are
        smaller than true ones by its root: charges are multiplied by the root and `dielectric` by the number. None
        leaves both as they are. Frequencies are the same.
    """
    supercell = _as_atoms(phonon.supercell)
    charges = np.array(calculator.get_born_effective_charges(supercell))
    permittivity = np.eye(3)
    if hasattr(calculator, "get_polarizability"):
        permittivity = permittivity + calculator.get_polarizability(supercell) / (_EPSILON_0 * supercell.get_volume())
    if eps_inf is not None:
        check_eps_inf(eps_inf)
        charges, permittivity = charges * np.sqrt(eps_inf), permittivity * eps_inf
    born, dielectric = symmetrize_borns_and_epsilon(
        charges, permittivity, phonon.supercell, primitive=phonon.primitive, symprec=1e-4
    )
    return {"born": born, "dielectric": dielectric, "factor": _COULOMB}


def _as_atoms(cell: PhonopyAtoms) -> Atoms:
    """Convert phonopy's atoms to ASE's."""
    return Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, masses=cell.masses, pbc=True)
