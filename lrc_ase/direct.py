r"""Sums over all pairs in open space, :math:`u_i = \sum_{j \ne i} \phi(|x_i - x_j|) f_j`, O(atoms^2).

Few atoms: all pairs at once, each taken once. Many: KeOps where the kernel is written with its operations, else blocks
of rows that are evaluated again in the backward pass, so that memory stays bounded either way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .multipliers import Multiplier, apply_kernel

__all__ = ["pair_sum"]

_PAIRS_AT_ONCE = 2_000_000
"""Pairs whose kernel values are held at once."""


def pair_sum(multiplier: Multiplier, weights: Tensor, positions: Tensor) -> Tensor:
    """Field at the atoms without i = j; `weights` (n_atoms, n_inputs), `positions` (n_atoms, d) in Angstrom."""
    n_atoms = len(positions)
    if n_atoms < 2:
        return weights.new_zeros(n_atoms, multiplier.n_outputs) + 0 * (weights.sum() + positions.sum())
    if n_atoms * n_atoms <= _PAIRS_AT_ONCE:
        return _all_pairs(multiplier, weights, positions)
    if not multiplier.is_matrix:
        field = _keops(multiplier, weights, positions)
        if field is not None:
            return field
    rows = max(1, _PAIRS_AT_ONCE // n_atoms)
    blocks = []
    for start in range(0, n_atoms, rows):
        chosen = torch.arange(start, min(start + rows, n_atoms), device=positions.device)
        blocks.append(checkpoint(_rows, multiplier, weights, positions, chosen, use_reentrant=False))
    return torch.cat(blocks)


def _all_pairs(multiplier: Multiplier, weights: Tensor, positions: Tensor) -> Tensor:
    n_atoms = len(positions)
    first, second = torch.triu_indices(n_atoms, n_atoms, 1, device=positions.device)
    distances = torch.linalg.norm(positions[first] - positions[second], dim=-1)
    kernel = multiplier.arranged(multiplier.radial(distances).to(weights))
    field = weights.new_zeros(n_atoms, multiplier.n_outputs)
    field = field.index_add(0, first, apply_kernel(kernel, weights[second]))
    return field.index_add(0, second, apply_kernel(kernel, weights[first]))


def _rows(multiplier: Multiplier, weights: Tensor, positions: Tensor, chosen: Tensor) -> Tensor:
    separations = positions[chosen][:, None] - positions  # (n_rows, n_atoms, d)
    same = chosen[:, None] == torch.arange(len(positions), device=positions.device)
    # an atom is put at 1 Angstrom from itself, and its kernel left out
    squared = torch.where(same, 1.0, (separations**2).sum(dim=-1))
    kernel = multiplier.radial(squared.sqrt()).to(weights)
    kernel = multiplier.arranged(torch.where(same[..., None], 0.0, kernel))
    return apply_kernel(kernel, weights[None]).sum(dim=1)


def _keops(multiplier: Multiplier, weights: Tensor, positions: Tensor) -> Tensor | None:
    """The sum as a KeOps reduction; None where the kernel is no KeOps formula."""
    # imported here: KeOps looks for a compiler as soon as it is imported
    from pykeops.torch import LazyTensor

    number = torch.arange(len(positions), device=positions.device, dtype=positions.dtype)[:, None]
    at, over = LazyTensor(positions[:, None].contiguous()), LazyTensor(positions[None].contiguous())
    same = 1 - ((LazyTensor(number[:, None]) - LazyTensor(number[None])) ** 2 - 0.5).step()
    squared = ((at - over) ** 2).sum(-1) + same
    kernel = multiplier.keops_radial(squared)
    if kernel is None:
        return None
    return (kernel * (1 - same) * LazyTensor(weights[None].contiguous())).sum(dim=1)
