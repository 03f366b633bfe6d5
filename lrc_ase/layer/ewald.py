"""The k-sum term by term, O(atoms x waves): the mesh without its window error.

Two matrix products with the (atoms x waves) phases, for blocks of waves if these are many.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lrc_ase.layer.kernels import apply_kernel
from lrc_ase.layer.lattice import half_mesh_indices

__all__ = ["ewald_sum"]

_PHASES_AT_ONCE = 5_000_000
"""Atoms times waves whose phases are held at once."""


def ewald_sum(
    weights: Tensor, fractional: Tensor, structure: Tensor, table: Tensor, mesh_shape: tuple[int, ...]
) -> Tensor:
    r"""Compute :math:`u_i = \sum_m T_m \sum_j f_j \cos(2\pi m \cdot (s_i - s_j))` over the waves of a half mesh.

    `weights` (n_atoms, n_inputs), `fractional` (n_atoms, d), `structure` (n_atoms,), `table` (n_structures, n_channels,
    *half mesh), or (n_structures, n_outputs, n_inputs, *half mesh) for a matrix -> (n_atoms, n_outputs).
    """
    indices = half_mesh_indices(mesh_shape, device=fractional.device).reshape(-1, len(mesh_shape))
    # a wave of the half mesh stands for its opposite too, unless its last index is its own opposite
    twice = torch.where(indices[:, -1] == 0, 1.0, 2.0).to(table)
    waves = 2 * math.pi * indices.to(fractional)
    fields = weights.new_zeros(len(weights), table.shape[1])
    for index in range(table.shape[0]):
        atoms = (structure == index).nonzero()[:, 0]
        kernel = (table[index].flatten(-len(mesh_shape)) * twice).movedim(-1, 0)
        fields = fields.index_copy(0, atoms, _sum_over_waves(weights[atoms], fractional[atoms], waves, kernel))
    return fields


def _sum_over_waves(weights: Tensor, fractional: Tensor, waves: Tensor, kernel: Tensor) -> Tensor:
    n_waves = max(1, _PHASES_AT_ONCE // max(len(weights), 1))
    if n_waves >= len(waves):
        return _of_block(weights, fractional, waves, kernel)
    blocks = zip(waves.split(n_waves), kernel.split(n_waves), strict=True)
    # evaluated again in the backward pass, which would otherwise hold the phases of all waves
    return sum(
        (checkpoint(_of_block, weights, fractional, *block, use_reentrant=False) for block in blocks),
        weights.new_zeros(()),
    )


def _of_block(weights: Tensor, fractional: Tensor, waves: Tensor, kernel: Tensor) -> Tensor:
    # cos(a - b) = cos a cos b + sin a sin b separates the atoms: two products per factor instead of all pairs
    phases = fractional @ waves.T  # (n_atoms, n_waves)
    cosine, sine = torch.cos(phases), torch.sin(phases)
    return cosine @ apply_kernel(kernel, cosine.T @ weights) + sine @ apply_kernel(kernel, sine.T @ weights)
