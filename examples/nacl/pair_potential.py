r"""A cheap pair potential for NaCl, linear in its coefficients, that only proposes configurations.

.. math::

    E = c_0 \, \tfrac{1}{2} \sum_{i \ne j} \frac{e^2 z_i z_j}{4 \pi \epsilon_0 r_{ij}}
      + \tfrac{1}{2} \sum_{i \ne j} \Big[ a_p \, e^{-r_{ij} / \rho_p}
      - \frac{b_p}{r_{ij}^6 + r_0^6} \Big], \qquad z = \pm 1,

with p = p(i, j) one of Na-Na, Na-Cl, Cl-Cl; the Coulomb sum runs over all periodic images (Ewald).
The coefficient c_0 is a squared effective charge. Since E is linear in (c_0, a, b), force matching is
linear least squares (`force_matching`). No energy or force of this potential enters the training set: every
configuration is labeled by GFN1-xTB afterwards (`labeling`).

Units: eV, Angstrom, eV/Angstrom, eV/Angstrom^3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, InputError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray
from scipy.special import erfc

Array = NDArray[np.float64]

COULOMB_CONSTANT = units.Hartree * units.Bohr  # e^2 / (4 pi epsilon_0) in eV Angstrom
N_PAIR_KINDS = 3  # Na-Na, Na-Cl, Cl-Cl
N_COEFFICIENTS = 1 + 2 * N_PAIR_KINDS


@dataclass(frozen=True)
class PairShape:
    """The parameters in which the potential is not linear, and the accuracy of the Ewald sum.

    `decay_lengths` are rho of Na-Na, Na-Cl, Cl-Cl and `core_radius` is r_0, all in Angstrom. `ewald_accuracy` x sets
    the splitting eta = x / cutoff and the reciprocal cutoff 2 x eta: both sums are cut at a weight of about exp(-x^2).
    """

    decay_lengths: tuple[float, float, float] = (0.30, 0.30, 0.30)
    core_radius: float = 2.0
    cutoff: float = 7.0
    ewald_accuracy: float = 2.8


@dataclass(frozen=True)
class LinearTerms:
    """The terms that multiply each coefficient.

    `energies` (n_coefficients,), `forces` (n_coefficients, n_atoms, 3) and `stresses` (n_coefficients, 6) in
    Voigt order.
    """

    energies: Array
    forces: Array
    stresses: Array


def unit_charges(atoms: Atoms) -> Array:
    """Return +1 for Na and -1 for Cl, (n_atoms,)."""
    unknown = set(atoms.get_chemical_symbols()) - {"Na", "Cl"}
    if unknown:
        raise InputError(f"`atoms` must hold Na and Cl only, got {sorted(unknown)}")
    return np.where(atoms.numbers == 11, 1.0, -1.0)


@lru_cache(maxsize=8)
def _half_space(cell_bytes: bytes, k_cutoff: float) -> Array:
    """Return one of each pair (k, -k) of reciprocal vectors shorter than `k_cutoff`, (n_k, 3)."""
    cell = np.frombuffer(cell_bytes).reshape(3, 3)
    # |n_a| = |k . a| / (2 pi) <= |k| |a| / (2 pi)
    n_max = np.floor(k_cutoff * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)
    axes = [np.arange(-n, n + 1) for n in n_max]
    indices = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    # meshgrid order is antisymmetric about the origin, so its second half holds one of each pair
    indices = indices[len(indices) // 2 + 1 :]
    k_vectors = 2 * np.pi * indices @ np.linalg.inv(cell).T
    return k_vectors[np.einsum("kc,kc->k", k_vectors, k_vectors) < k_cutoff**2]


def _reciprocal_coulomb(atoms: Atoms, charges: Array, eta: float, k_cutoff: float) -> tuple[float, Array, Array]:
    r"""Return energy, forces and stress (3, 3) of the Ewald sum's reciprocal part, self energy included.

    .. math:: E = \frac{2\pi}{V} \sum_{k \ne 0} \frac{e^{-k^2/4\eta^2}}{k^2} |S(k)|^2
              - \frac{\eta}{\sqrt\pi} \sum_i z_i^2, \qquad S(k) = \sum_i z_i e^{i k \cdot r_i}
    """
    volume = atoms.get_volume()
    k_vectors = _half_space(atoms.cell.array.tobytes(), k_cutoff)
    k_squared = np.einsum("kc,kc->k", k_vectors, k_vectors)
    # twice, for the half space that was left out
    multiplier = 2 * (2 * np.pi / volume) * np.exp(-k_squared / (4 * eta**2)) / k_squared
    phases = atoms.positions @ k_vectors.T  # (n_atoms, n_k)
    cosines, sines = np.cos(phases), np.sin(phases)
    real, imaginary = charges @ cosines, charges @ sines  # (n_k,)
    power = multiplier * (real**2 + imaginary**2)
    energy = power.sum() - eta / np.sqrt(np.pi) * (charges**2).sum()
    gradient_weights = sines * (multiplier * real) - cosines * (multiplier * imaginary)
    forces = 2 * charges[:, None] * (gradient_weights @ k_vectors)
    virial = np.einsum("k,ka,kb->ab", 2 * power * (1 / k_squared + 1 / (4 * eta**2)), k_vectors, k_vectors)
    return energy, forces, (virial - power.sum() * np.eye(3)) / volume


def linear_terms(atoms: Atoms, shape: PairShape) -> LinearTerms:
    """Compute energy, forces and stress of every term at unit coefficient."""
    charges = unit_charges(atoms)
    n_atoms, volume = len(atoms), atoms.get_volume()
    eta = shape.ewald_accuracy / shape.cutoff
    first, second, distances, vectors = neighbour_list("ijdD", atoms, cutoff=shape.cutoff)
    products = charges[first] * charges[second]
    pair_kinds = np.where(products < 0, 1, np.where(charges[first] > 0, 0, 2))

    screened = products * erfc(eta * distances) / distances
    gaussian = products * 2 * eta / np.sqrt(np.pi) * np.exp(-((eta * distances) ** 2))
    repulsions = [np.exp(-distances / length) for length in shape.decay_lengths]
    softened = distances**6 + shape.core_radius**6
    values = [screened, *repulsions] + N_PAIR_KINDS * [-1 / softened]
    slopes = [
        -(screened + gaussian) / distances,
        *(-value / length for value, length in zip(repulsions, shape.decay_lengths, strict=True)),
    ] + N_PAIR_KINDS * [6 * distances**5 / softened**2]

    energies = np.zeros(N_COEFFICIENTS)
    forces = np.zeros((N_COEFFICIENTS, n_atoms, 3))
    stresses = np.zeros((N_COEFFICIENTS, 3, 3))
    for term, (value, slope) in enumerate(zip(values, slopes, strict=True)):
        chosen = slice(None) if term == 0 else pair_kinds == (term - 1) % N_PAIR_KINDS
        energies[term] = 0.5 * value[chosen].sum()
        # D = r_j - r_i, and the force on i is +phi' D / r; every pair is listed twice
        pair_forces = (slope[chosen] / distances[chosen])[:, None] * vectors[chosen]  # (n_pairs, 3)
        for axis in range(3):
            forces[term, :, axis] = np.bincount(first[chosen], pair_forces[:, axis], minlength=n_atoms)
        stresses[term] = 0.5 * pair_forces.T @ vectors[chosen] / volume

    energy, reciprocal_forces, stress = _reciprocal_coulomb(atoms, charges, eta, 2 * shape.ewald_accuracy * eta)
    energies[0] = COULOMB_CONSTANT * (energies[0] + energy)
    forces[0] = COULOMB_CONSTANT * (forces[0] + reciprocal_forces)
    stresses[0] = COULOMB_CONSTANT * (stresses[0] + stress)
    return LinearTerms(energies, forces, full_3x3_to_voigt_6_stress(stresses))


class PairPotential(Calculator):
    """ASE calculator of the pair potential: fully periodic cells of Na and Cl, as many of one as of the other.

    `coefficients` (7,): the squared charge, then repulsion and dispersion of Na-Na, Na-Cl, Cl-Cl.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, coefficients: Array, shape: PairShape) -> None:
        super().__init__()
        if np.shape(coefficients) != (N_COEFFICIENTS,):
            raise InputError(f"`coefficients` must have shape ({N_COEFFICIENTS},), got {np.shape(coefficients)}")
        self.coefficients = np.asarray(coefficients, dtype=float)
        self.shape = shape

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        if not self.atoms.pbc.all():
            raise InputError(f"`atoms` must be periodic in all directions, got pbc {self.atoms.pbc}")
        terms = linear_terms(self.atoms, self.shape)
        energy = float(self.coefficients @ terms.energies)
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": np.tensordot(self.coefficients, terms.forces, axes=1),
            "stress": self.coefficients @ terms.stresses,
        }
