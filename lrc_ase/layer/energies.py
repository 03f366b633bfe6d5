"""Energies from a field that is known at the atoms, the self term of both, and sums over pairs in open space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lrc_ase.layer.direct import pair_gradients, pair_sums
from lrc_ase.layer.kernels import Multiplier, apply_kernel
from lrc_ase.layer.mesh import FieldAndEnergy
from lrc_ase.layer.mesh.evaluation import sum_by_structure

__all__ = ["add_self_term", "joined", "open_sums", "split_energies"]


def split_energies(
    field: Tensor, weights: Tensor, structure: Tensor, n_structures: int, n_energies: int
) -> FieldAndEnergy:
    """Make energies of the first channels of a field by differentiable steps; the others stay as they are."""
    products = 0.5 * weights[:, :n_energies] * field[:, :n_energies]
    energy = sum_by_structure(products, structure, n_structures)
    return FieldAndEnergy(field[:, n_energies:] if n_energies else field, energy, field[:, :n_energies].detach())


def open_sums(
    multiplier: Multiplier,
    weights: Tensor,
    fractional: Tensor,
    cell: Tensor,
    structure: Tensor,
    sizes: Sequence[int],
    n_energies: int,
    *,
    gradient: bool,
) -> FieldAndEnergy:
    """Sum over pairs in open space, without i = j, of structures with `sizes` atoms.

    Other arguments as in `LongRangeConvolution.field_and_energy`.
    """
    d = fractional.shape[-1]
    if d != 3 and not multiplier.radial_in_every_dimension:
        raise ValueError(
            f"{type(multiplier).__name__} in real space is known in three dimensions, not in {d}: make all directions "
            "periodic"
        )
    positions = torch.einsum("ni,nij->nj", fractional, cell[structure])  # (n_atoms, d)
    field = pair_sums(multiplier, weights, positions, structure, sizes)
    sums = split_energies(field, weights, structure, len(cell), n_energies)
    if not gradient:
        return sums
    slopes = pair_gradients(multiplier, weights[:, :n_energies], positions, structure, sizes)
    return sums._replace(gradient=slopes)


def add_self_term(sums: FieldAndEnergy, at_origin: Tensor, weights: Tensor, structure: Tensor) -> FieldAndEnergy:
    """Add what each atom feels of its own weight; `at_origin` is the kernel there as `apply_kernel` takes it."""
    field, energy, potential, gradient = sums  # the gradient of an even kernel vanishes at distance zero
    # 1/2 phi(0) f^2 per atom in the energy, phi(0) f in the field and in the potential, which is without a graph
    if at_origin.ndim > 1:  # a matrix of kernels
        return FieldAndEnergy(field + apply_kernel(at_origin[None], weights), energy, potential, gradient)
    n_energies = energy.shape[1]
    if n_energies:
        charges, weights = weights.split([n_energies, weights.shape[1] - n_energies], dim=1)
        of_charges, at_origin = at_origin[:n_energies], at_origin[n_energies:]
        energy = energy + 0.5 * of_charges * sum_by_structure(charges.square(), structure, len(energy))
        potential = torch.addcmul(potential, of_charges.detach(), charges.detach())
    return FieldAndEnergy(torch.addcmul(field, at_origin, weights), energy, potential, gradient)


def joined(groups: Sequence[tuple[Tensor, Tensor, FieldAndEnergy]], n_atoms: int, n_structures: int) -> FieldAndEnergy:
    """Join the sums of groups of structures; each group comes with the indices of its atoms and structures."""
    # out of place, for autograd
    first = groups[0][2]

    def of_atoms(name: str) -> Tensor:
        like = getattr(first, name)
        values = like.new_zeros(n_atoms, *like.shape[1:])
        for atoms, _, sums in groups:
            values = values.index_copy(0, atoms, getattr(sums, name))
        return values

    energy = first.energy.new_zeros(n_structures, first.energy.shape[1])
    for _, structures, sums in groups:
        energy = energy.index_copy(0, structures, sums.energy)
    gradient = None if first.gradient is None else of_atoms("gradient")
    return FieldAndEnergy(of_atoms("field"), energy, of_atoms("potential"), gradient)
