"""The k-sum term by term, O(atoms x waves): the mesh without its window error.

Small sums are two matrix products; large ones are KeOps reductions, which never store the (atoms x waves) phases.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lrc_ase.layer.kernels import apply_kernel
from lrc_ase.layer.lattice import half_mesh_indices

__all__ = ["ewald_sum"]

_DENSE_BELOW = 20_000_000
"""Atoms times waves up to which the phases are stored."""


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
        sum_over_waves = _dense if len(atoms) * len(indices) <= _DENSE_BELOW else _keops
        fields = fields.index_copy(0, atoms, sum_over_waves(weights[atoms], fractional[atoms], waves, kernel))
    return fields


def _dense(weights: Tensor, fractional: Tensor, waves: Tensor, kernel: Tensor) -> Tensor:
    # cos(a - b) = cos a cos b + sin a sin b separates the atoms: two products per factor instead of all pairs
    phases = fractional @ waves.T  # (n_atoms, n_waves)
    cosine, sine = torch.cos(phases), torch.sin(phases)
    return cosine @ apply_kernel(kernel, cosine.T @ weights) + sine @ apply_kernel(kernel, sine.T @ weights)


def _keops(weights: Tensor, fractional: Tensor, waves: Tensor, kernel: Tensor) -> Tensor:
    # imported here: KeOps looks for a compiler as soon as it is imported
    from pykeops.torch import LazyTensor

    def reduce(at: Tensor, over: Tensor, cosine_part: Tensor, sine_part: Tensor) -> Tensor:
        """Sum over `over` of cos(phase) cosine_part + sin(phase) sine_part, at each of `at`."""
        phase = (LazyTensor(at[:, None].contiguous()) * LazyTensor(over[None].contiguous())).sum(-1)
        parts = [LazyTensor(part[None].contiguous()) for part in (cosine_part, sine_part)]
        return (phase.cos() * parts[0] + phase.sin() * parts[1]).sum(dim=1)

    zeros = torch.zeros_like(weights)
    cosine = reduce(waves, fractional, weights, zeros)  # (n_waves, n_inputs)
    sine = reduce(waves, fractional, zeros, weights)
    return reduce(fractional, waves, apply_kernel(kernel, cosine), apply_kernel(kernel, sine))
