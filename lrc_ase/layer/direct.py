r"""Sums over all pairs in open space, :math:`u_i = \sum_{j \ne i} \phi(|x_i - x_j|) f_j`, O(atoms^2).

Few atoms: all pairs of all structures at once, each taken once. Many: KeOps where the kernel is written with its
operations, else blocks of rows that are evaluated again in the backward pass, so that memory stays bounded either way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lrc_ase.layer.kernels import Multiplier, apply_kernel

__all__ = ["pair_gradients", "pair_sums"]

_PAIRS_AT_ONCE = 2_000_000
"""Pairs whose kernel values are held at once."""


def pair_sums(
    multiplier: Multiplier, weights: Tensor, positions: Tensor, structure: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Compute the field at the atoms without i = j, structure by structure, (n_atoms, n_outputs).

    `weights` (n_atoms, n_inputs), `positions` (n_atoms, d) in Angstrom, `structure` (n_atoms,), `sizes` the number
    of atoms of each.
    """
    members = torch.split(torch.argsort(structure, stable=True), list(sizes))
    if sum(size**2 for size in sizes) <= _PAIRS_AT_ONCE:
        # each pair once: half the distances and kernel values, which cost more than the sums
        pairs = [atoms[torch.triu_indices(len(atoms), len(atoms), 1, device=atoms.device)] for atoms in members]
        return _all_pairs(multiplier, weights, positions, torch.cat(pairs, dim=1))
    field = weights.new_zeros(len(weights), multiplier.n_outputs)
    for atoms in members:
        if len(atoms) > 1:
            field = field.index_copy(0, atoms, _one_structure(multiplier, weights[atoms], positions[atoms]))
    return field


def pair_gradients(
    multiplier: Multiplier, weights: Tensor, positions: Tensor, structure: Tensor, sizes: Sequence[int]
) -> Tensor:
    r"""Compute the gradient of the field at the atoms, :math:`\sum_j f_j \phi'(r_{ij}) (x_i - x_j) / r_{ij}`.

    `weights` (n_atoms, n_channels) belong to the first channels of the multiplier; returns (n_atoms, 3, n_channels).
    """
    gradient = weights.new_zeros(len(weights), positions.shape[1], weights.shape[1])
    members = torch.split(torch.argsort(structure, stable=True), list(sizes))
    if sum(size**2 for size in sizes) <= _PAIRS_AT_ONCE:
        pairs = [atoms[torch.triu_indices(len(atoms), len(atoms), 1, device=atoms.device)] for atoms in members]
        first, second = torch.cat(pairs, dim=1)
        slopes = _slopes(multiplier, positions[first] - positions[second], weights.shape[1])  # (n_pairs, 3, n_channels)
        gradient = gradient.index_add(0, first, slopes * weights[second][:, None])
        return gradient.index_add(0, second, -slopes * weights[first][:, None])
    for atoms in members:
        for rows in atoms.split(max(1, _PAIRS_AT_ONCE // max(1, len(atoms)))):
            arguments = multiplier, weights, positions, rows, atoms
            # not kept for the backward pass, as in `pair_sums`
            gradient = gradient.index_copy(0, rows, checkpoint(_gradient_rows, *arguments, use_reentrant=False))
    return gradient


def _gradient_rows(multiplier: Multiplier, weights: Tensor, positions: Tensor, rows: Tensor, atoms: Tensor) -> Tensor:
    separations = positions[rows][:, None] - positions[atoms]  # (n_rows, n_atoms, 3)
    same = (rows[:, None] == atoms)[..., None]
    # 1 Angstrom between an atom and itself, as in `_rows`
    slopes = _slopes(multiplier, torch.where(same, 1.0, separations), weights.shape[1])
    return torch.einsum("ijdc,jc->idc", torch.where(same[..., None], 0.0, slopes), weights[atoms])


def _slopes(multiplier: Multiplier, separations: Tensor, n_channels: int) -> Tensor:
    """Return the gradient of the kernel by the vectors `separations` (..., 3), (..., 3, n_channels)."""
    distances = torch.linalg.norm(separations, dim=-1)
    return separations[..., None] * multiplier.radial_slope(distances, n_channels).to(separations)[..., None, :]


def _one_structure(multiplier: Multiplier, weights: Tensor, positions: Tensor) -> Tensor:
    n_atoms = len(positions)
    if n_atoms * n_atoms <= _PAIRS_AT_ONCE:
        pairs = torch.triu_indices(n_atoms, n_atoms, 1, device=positions.device)
        return _all_pairs(multiplier, weights, positions, pairs)
    if not multiplier.is_matrix:
        field = _keops(multiplier, weights, positions)
        if field is not None:
            return field
    rows = max(1, _PAIRS_AT_ONCE // n_atoms)
    blocks = []
    for start in range(0, n_atoms, rows):
        chosen = torch.arange(start, min(start + rows, n_atoms), device=positions.device)
        # not kept for the backward pass, which would hold the kernel of all pairs at once
        blocks.append(checkpoint(_rows, multiplier, weights, positions, chosen, use_reentrant=False))
    return torch.cat(blocks)


def _all_pairs(multiplier: Multiplier, weights: Tensor, positions: Tensor, pairs: Tensor) -> Tensor:
    first, second = pairs
    distances = torch.linalg.norm(positions[first] - positions[second], dim=-1)
    kernel = multiplier.arranged(multiplier.radial(distances).to(weights))
    field = weights.new_zeros(len(weights), multiplier.n_outputs)
    field = field.index_add(0, first, apply_kernel(kernel, weights[second]))
    return field.index_add(0, second, apply_kernel(kernel, weights[first]))


def _rows(multiplier: Multiplier, weights: Tensor, positions: Tensor, chosen: Tensor) -> Tensor:
    separations = positions[chosen][:, None] - positions  # (n_rows, n_atoms, d)
    same = chosen[:, None] == torch.arange(len(positions), device=positions.device)
    # each atom is put at 1 Angstrom from itself and its kernel left out: at distance zero the kernel's derivatives are
    # infinite or NaN, and a mask alone would multiply these by zero, which is NaN
    squared = torch.where(same, 1.0, (separations**2).sum(dim=-1))
    kernel = multiplier.radial(squared.sqrt()).to(weights)
    kernel = multiplier.arranged(torch.where(same[..., None], 0.0, kernel))
    return apply_kernel(kernel, weights[None]).sum(dim=1)


def _keops(multiplier: Multiplier, weights: Tensor, positions: Tensor) -> Tensor | None:
    """Sum by a KeOps reduction; return None if the kernel has no KeOps formula."""
    # imported here: KeOps looks for a compiler as soon as it is imported
    from pykeops.torch import LazyTensor

    # KeOps has no indices in formulas: numbers of atoms are data, and i = j where they differ by less than one half
    number = torch.arange(len(positions), device=positions.device, dtype=positions.dtype)[:, None]
    at, over = LazyTensor(positions[:, None].contiguous()), LazyTensor(positions[None].contiguous())
    same = 1 - ((LazyTensor(number[:, None]) - LazyTensor(number[None])) ** 2 - 0.5).step()
    squared = ((at - over) ** 2).sum(-1) + same
    kernel = multiplier.keops_radial(squared)
    if kernel is None:
        return None
    return (kernel * (1 - same) * LazyTensor(weights[None].contiguous())).sum(dim=1)
