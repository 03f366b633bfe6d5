r"""Forces of models with the paper's networks on batches of snapshots of one problem, as fast as a few cores allow.

Neighbors and waves of a snapshot do not change while networks learn, and are computed once. The forces are

.. math:: F = -\sum_i \Big[\partial_D F(D_i, u_i)\, \nabla D_i + \partial_u F(D_i, u_i)\, \nabla u_i\Big]

with derivatives of the features taken forwards pair by pair and those of the field written out wave by wave. They are
the forces of `evaluate`, ten times faster, in single precision where the model is.
"""

from __future__ import annotations

import math

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from lrc_ase.paper.model import PointCloudModel
from lrc_ase.paper.pair_features import pair_features
from lrc_ase.paper.problems import Snapshots

__all__ = ["ForceBatches"]


class ForceBatches:
    """Pairs, waves and target forces of `snapshots`, in `dtype`."""

    def __init__(self, snapshots: Snapshots, *, n_modes: int | None, dtype: torch.dtype) -> None:
        problem = snapshots.problem
        self.n_snapshots, self.n_points, self.dimension = snapshots.positions.shape
        positions = torch.from_numpy(snapshots.positions)
        trees = [cKDTree(points, boxsize=problem.length) for points in snapshots.positions]
        pairs = [torch.from_numpy(tree.query_pairs(problem.cutoff, output_type="ndarray")) for tree in trees]
        counts = torch.tensor([len(each) for each in pairs])
        self.starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        self.pairs = torch.cat(pairs)  # (n_pairs, 2), points numbered within their snapshot
        snapshot = torch.arange(self.n_snapshots).repeat_interleave(counts)
        vectors = positions[snapshot, self.pairs[:, 1]] - positions[snapshot, self.pairs[:, 0]]
        vectors -= problem.length * torch.round(vectors / problem.length)
        self.vectors = vectors.to(dtype)
        self.forces = torch.from_numpy(snapshots.forces).to(dtype)  # (n_snapshots, n_points, d)
        self.volume = problem.length**self.dimension
        self.waves = torch.empty(0, self.dimension, dtype=dtype)
        self.cosines = self.sines = torch.empty(self.n_snapshots, self.n_points, 0, dtype=dtype)
        if n_modes is not None:
            waves = 2 * math.pi / problem.length * _half_of_the_waves(n_modes, self.dimension).double()
            phases = positions @ waves.T
            self.waves, self.cosines, self.sines = waves.to(dtype), phases.cos().to(dtype), phases.sin().to(dtype)

    def forces_of(self, model: PointCloudModel, chosen: Tensor) -> Tensor:
        """Compute forces (n_chosen, n_points, d) on the snapshots `chosen`, differentiable by the parameters."""
        pairs, vectors = self._pairs_of(chosen)
        first, second = pairs.T
        pair = pair_features(model.descriptor, vectors)
        of_first, of_second = pair.values()
        n_chosen, n_all = len(chosen), len(chosen) * self.n_points
        features = of_first.new_zeros(n_all, of_first.shape[1])
        features = features.index_add(0, first, of_first).index_add(0, second, of_second)
        if model.convolution is None:
            by_features = torch.func.grad(lambda rows: model.readout(rows, None).sum())(features)
            forces = features.new_zeros(n_all, self.dimension)
        else:
            field = _Field(self, model, chosen)
            by_features, by_field = torch.func.grad(lambda *rows: model.readout(*rows).sum(), argnums=(0, 1))(
                features, field.values.flatten(0, 1)
            )
            forces = field.forces(by_field.unflatten(0, (n_chosen, -1))).flatten(0, 1)
        pull = pair.pull(by_features.index_select(0, first), by_features.index_select(0, second))
        return forces.index_add(0, first, pull).index_add(0, second, -pull).unflatten(0, (n_chosen, -1))

    def _pairs_of(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return points (n_pairs, 2), numbered through the batch, and vectors of the pairs of `chosen` snapshots."""
        spans = [torch.arange(int(self.starts[s]), int(self.starts[s + 1])) for s in chosen]
        counts = torch.tensor([len(span) for span in spans])
        rows = torch.cat(spans)
        offsets = (self.n_points * torch.arange(len(chosen))).repeat_interleave(counts)
        return self.pairs[rows] + offsets[:, None], self.vectors[rows]


class _Field:
    """Output of the layer for weights of one, (n_snapshots, n_points, n_channels), and its share of the forces."""

    def __init__(self, batches: ForceBatches, model: PointCloudModel, chosen: Tensor) -> None:
        assert model.convolution is not None
        self.waves, self.cosine, self.sine = batches.waves, batches.cosines[chosen], batches.sines[chosen]
        # a wave and its opposite, (n_waves, n_channels)
        squared = self.waves.square().sum(dim=1)
        kernel = model.convolution.multiplier
        self.kernel = 2 / batches.volume * kernel.fourier(squared, batches.dimension)
        self.cosines, self.sines = self.cosine.sum(dim=1, keepdim=True), self.sine.sum(dim=1, keepdim=True)
        at_zero = kernel.fourier(squared.new_zeros(1), batches.dimension) / batches.volume * batches.n_points
        self.values = (self.cosine * self.cosines + self.sine * self.sines) @ self.kernel + at_zero

    def forces(self, slopes: Tensor) -> Tensor:
        """Compute forces (n_snapshots, n_points, d) of an energy whose gradient by the field is `slopes`.

        `slopes` (n_snapshots, n_points, n_channels).
        """
        weights = slopes @ self.kernel.T  # (n_snapshots, n_points, n_waves)
        cosines = self.cosines * weights + (self.cosine * weights).sum(dim=1, keepdim=True)
        sines = self.sines * weights + (self.sine * weights).sum(dim=1, keepdim=True)
        return (self.sine * cosines - self.cosine * sines) @ self.waves


def _half_of_the_waves(n_modes: int, dimension: int) -> Tensor:
    """Return one of each k and -k of a mesh of `n_modes` (odd) points per direction, without k = 0, (n_waves, d)."""
    half = n_modes // 2
    waves = torch.cartesian_prod(*[torch.arange(-half, half + 1)] * dimension).reshape(-1, dimension)
    return waves[len(waves) // 2 + 1 :]
