"""Energies from a field that is known at the atoms, and the self term of both."""

from __future__ import annotations

import torch
from torch import Tensor

from lrc_ase.layer.kernels import apply_kernel
from lrc_ase.layer.mesh import FieldAndEnergy
from lrc_ase.layer.mesh.evaluation import sum_by_structure

__all__ = ["add_self_term", "split_energies"]


def split_energies(
    field: Tensor, weights: Tensor, structure: Tensor, n_structures: int, n_energies: int
) -> FieldAndEnergy:
    """Make energies of the first channels of a field by differentiable steps; the others stay as they are."""
    products = 0.5 * weights[:, :n_energies] * field[:, :n_energies]
    energy = sum_by_structure(products, structure, n_structures)
    return FieldAndEnergy(field[:, n_energies:] if n_energies else field, energy, field[:, :n_energies].detach())


def add_self_term(sums: FieldAndEnergy, at_origin: Tensor, weights: Tensor, structure: Tensor) -> FieldAndEnergy:
    """Add what each atom feels of its own weight; `at_origin` is the kernel there as `apply_kernel` takes it."""
    field, energy, potential = sums
    # 1/2 phi(0) f^2 per atom in the energy, phi(0) f in the field and in the potential, which is without a graph
    if at_origin.ndim > 1:  # a matrix of kernels
        return FieldAndEnergy(field + apply_kernel(at_origin[None], weights), energy, potential)
    n_energies = energy.shape[1]
    if n_energies:
        charges, weights = weights.split([n_energies, weights.shape[1] - n_energies], dim=1)
        of_charges, at_origin = at_origin[:n_energies], at_origin[n_energies:]
        energy = energy + 0.5 * of_charges * sum_by_structure(charges.square(), structure, len(energy))
        potential = torch.addcmul(potential, of_charges.detach(), charges.detach())
    return FieldAndEnergy(torch.addcmul(field, at_origin, weights), energy, potential)
