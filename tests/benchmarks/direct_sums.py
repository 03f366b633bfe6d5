"""All pairs at once, what a mesh competes with for small systems: dense torch, KeOps, and the layer's own."""

from __future__ import annotations

import numpy as np
import torch
from problem import SMEARING, Problem
from pykeops.torch import LazyTensor

from lrc_ase import LongRangeConvolution, Yukawa

__all__ = ["DenseSum", "KeopsSum", "LayerSum"]


class DenseSum:
    r"""Field of the plain kernel :math:`e^{-\lambda r} / r` in open space, by a matrix of all pairs."""

    jobs = ("field",)

    def __init__(self, problem: Problem) -> None:
        self.screening = problem.screening
        self.positions = torch.from_numpy(problem.positions)
        self.weights = torch.from_numpy(problem.weights)

    def field(self) -> tuple[np.ndarray, ...]:
        distances = torch.cdist(self.positions, self.positions, compute_mode="donot_use_mm_for_euclid_dist")
        kernel = torch.exp(-self.screening * distances) / distances
        kernel.fill_diagonal_(0.0)
        return ((kernel @ self.weights).numpy(),)


class KeopsSum(DenseSum):
    """The same, never stored: a KeOps reduction."""

    def field(self) -> tuple[np.ndarray, ...]:
        own = LazyTensor(self.positions[:, None].contiguous())
        other = LazyTensor(self.positions[None].contiguous())
        weights = LazyTensor(self.weights[None].contiguous())
        squared = ((own - other) ** 2).sum(-1)
        inverse = squared.rsqrt()  # zero at zero
        return (((-self.screening * squared.sqrt()).exp() * inverse * weights).sum(1).numpy(),)


class LayerSum(DenseSum):
    """The layer with method='direct': the smeared kernel, in open space."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        kernel = Yukawa([problem.screening] * problem.n_channels, smearing=SMEARING).requires_grad_(False)
        self.layer = LongRangeConvolution(kernel, method="direct")
        self.cell = problem.length * torch.eye(3, dtype=self.positions.dtype)[None]
        self.fractional = self.positions / problem.length
        self.pbc = torch.zeros(1, 3, dtype=torch.bool)

    def field(self) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return (self.layer(self.weights, self.fractional, self.cell, pbc=self.pbc).numpy(),)
