r"""Forces of a model with a linear read-out, feature by feature: the columns of a least-squares problem.

The descriptor sums over pairs and the weights of the layer are constants, so that forces are linear in the read-out:

.. math:: F_j = -\partial_{x_j} \sum_i \Big[\sum_a c_a D^a_i + \sum_b c_b u^b_i\Big].

The field's part is a fixed matrix, forces per shell of equal |k|, times the multiplier on the shells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lrc_ase.dataset import collate_labelled
from lrc_ase.layer.kernels import Multiplier
from lrc_ase.models.descriptors.paper import PaperDescriptor
from lrc_ase.paper.model import PointCloudModel
from lrc_ase.paper.pair_features import pair_features
from lrc_ase.paper.problems import Snapshots, labelled_graphs
from lrc_ase.structures.vectors import neighbor_vectors

__all__ = ["ForceColumns"]


class ForceColumns:
    """Pairs, wave forces and targets (in units of `scale`) of `snapshots`, constant while a model is trained."""

    def __init__(self, snapshots: Snapshots, *, n_modes: int | None, scale: float) -> None:
        problem = snapshots.problem
        batch = collate_labelled(labelled_graphs(snapshots))
        graph = batch.graph
        vectors = neighbor_vectors(
            graph.positions, graph.cell, graph.neighbors, graph.shifts, graph.structure, torch.float64
        )
        self.n_points, self.dimension = graph.n_atoms, problem.dimension
        centers, columns = graph.neighbor_mask.nonzero().T
        neighbors = graph.neighbors[centers, columns]
        once = centers < neighbors
        self.first, self.second = centers[once], neighbors[once]  # (n_pairs,)
        self.vectors = vectors[centers, columns][once]  # (n_pairs, d)
        self.target = batch.forces.reshape(-1) / scale
        self.k_squared, self.wave_forces = torch.empty(0), torch.empty(0)
        if n_modes is not None:
            positions = torch.from_numpy(snapshots.positions)
            self.k_squared, self.wave_forces = _forces_by_shell(positions, problem.length, n_modes)

    def of(self, model: PointCloudModel) -> Tensor:
        """Compute the columns (n_points * d, n_features + n_channels) in the order of `LinearReadOut`."""
        columns = self._of_descriptor(model.descriptor)
        if model.convolution is None:
            return columns
        return torch.cat([columns, self._of_kernel(model.convolution.multiplier)], dim=1)

    def _of_descriptor(self, descriptor: PaperDescriptor) -> Tensor:
        slopes = pair_features(descriptor, self.vectors).slopes()  # (d, n_pairs, n_features)
        zeros = slopes.new_zeros(self.n_points, descriptor.n_features)
        columns = [zeros.index_add(0, self.first, slope).index_add(0, self.second, -slope) for slope in slopes]
        return torch.stack(columns, dim=1).flatten(0, 1)

    def _of_kernel(self, multiplier: Multiplier) -> Tensor:
        return self.wave_forces @ multiplier.fourier(self.k_squared, self.dimension)


def _forces_by_shell(positions: Tensor, length: float, n_modes: int) -> tuple[Tensor, Tensor]:
    r"""Return squared wave numbers of shells (n_shells,) and forces of a unit multiplier on each shell.

    The forces (n_snapshots * n_points * d, n_shells) are those of :math:`\frac1V \sum_k |S(k)|^2`, for waves of a mesh
    of `n_modes` (odd) points along each direction. `positions` (n_snapshots, n_points, d).
    """
    n_snapshots, n_points, d = positions.shape
    half = n_modes // 2
    axis = torch.arange(-half, half + 1)
    waves = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    waves = waves[len(waves) // 2 + 1 :]  # one of each k and -k, without k = 0
    squared, shell = (waves**2).sum(dim=1).unique(return_inverse=True)
    k = 2 * math.pi / length * waves.to(positions)  # (n_waves, d)
    forces = positions.new_zeros(n_snapshots, n_points, d, len(squared))
    for snapshot in range(n_snapshots):
        phases = positions[snapshot] @ k.T
        cosine, sine = phases.cos(), phases.sin()
        # -d|S|^2/dx_j = 2 k (sin S_c - cos S_s), twice for -k
        force = 4 / length**d * (sine * cosine.sum(dim=0) - cosine * sine.sum(dim=0))
        for direction in range(d):
            forces[snapshot, :, direction].index_add_(1, shell, force * k[:, direction])
    return (2 * math.pi / length) ** 2 * squared.to(positions), forces.flatten(0, 2)
