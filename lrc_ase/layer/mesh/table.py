r"""The table that the filter multiplies with, :math:`T_m = \hat\phi(k_m) / (V\,\hat g(m)^2)`.

Evaluating a multiplier on the whole mesh costs as much as the FFTs, so a frozen one is kept while the cell stays the
same. In three periodic directions its derivative by the cell is kept too, as :math:`\partial\hat\phi/\partial k^2`:
under a strain :math:`x \to x(1+\epsilon)` waves go to :math:`k(1+\epsilon)^{-T}`, so
:math:`d(k^2) = -2\,k\,\epsilon\,k^T`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lrc_ase.layer.boundaries import Layout, wave_numbers
from lrc_ase.layer.kernels import Multiplier, WaveNumbers
from lrc_ase.layer.lattice import volume
from lrc_ase.layer.mesh.filtering import deconvolution, paired_waves
from lrc_ase.layer.windows import Window

__all__ = ["MultiplierTables"]

_KEPT = 2
"""Tables kept at a time: they are as large as meshes."""


class MultiplierTables:
    """Evaluates a multiplier on meshes and keeps the last tables of a frozen one.

    `window` None leaves out its transform, for sums without a mesh.
    """

    def __init__(self, window: Window | None) -> None:
        self.window = window
        self._kept: dict[tuple[Any, ...], _Kept] = {}
        self._origin: dict[tuple[Any, ...], Tensor] = {}
        self._last_grid: tuple[tuple[Any, ...], WaveNumbers, Tensor] | None = None

    def __call__(
        self,
        multiplier: Multiplier,
        state: tuple[Any, ...] | None,
        cell: Tensor,
        mesh_shape: tuple[int, ...],
        layouts: Sequence[Layout],
    ) -> Tensor:
        """Table (n_structures, n_channels, *half mesh); zero at waves without their opposite.

        For a matrix (n_structures, n_outputs, n_inputs, *half mesh). `cell` (n_structures, d, d) and `layouts` as in
        `wave_numbers`, `state` that of the multiplier.
        """
        periodic = not layouts[0].open_axes
        if state is None or (cell.requires_grad and not periodic):
            return self._evaluate(multiplier, cell, mesh_shape, layouts)
        fixed = cell.detach()
        key = (*self._boundary(fixed, mesh_shape, layouts), state)
        kept = self._kept.get(key)
        if kept is None:
            kept = _Kept(self._evaluate(multiplier, fixed, mesh_shape, layouts), torch.linalg.inv(fixed))
            while len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = kept
        if not cell.requires_grad:
            return kept.table
        if kept.slope is None:
            kept.slope = self._slope(multiplier, fixed, mesh_shape)
        return _Strained.apply(cell, kept, lambda strained: self._evaluate(multiplier, strained, mesh_shape, layouts))

    def at_origin(
        self,
        multiplier: Multiplier,
        state: tuple[Any, ...] | None,
        dimension: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """The kernel's value at distance zero as `apply_kernel` takes it, kept while the multiplier is frozen."""
        key = (state, dimension, dtype, device)
        kept = self._origin.get(key)
        if kept is None:
            kept = multiplier.arranged(multiplier.at_origin(dimension)).to(device, dtype)
            self._origin.clear()
            if key[0] is not None:
                self._origin[key] = kept
        return kept

    def _evaluate(
        self, multiplier: Multiplier, cell: Tensor, mesh_shape: tuple[int, ...], layouts: Sequence[Layout]
    ) -> Tensor:
        waves, factor = self._grid(cell, mesh_shape, layouts)
        return _arranged(multiplier, multiplier(waves).to(cell), factor)

    def _grid(self, cell: Tensor, mesh_shape: tuple[int, ...], layouts: Sequence[Layout]) -> tuple[WaveNumbers, Tensor]:
        """Wave numbers and all factors but the multiplier; the last ones are kept, for training in the same cells."""
        if cell.requires_grad:
            return wave_numbers(cell, mesh_shape, layouts), self._factor(cell, mesh_shape)
        key = self._boundary(cell, mesh_shape, layouts)
        if self._last_grid is None or self._last_grid[0] != key:
            waves = wave_numbers(cell, mesh_shape, layouts)
            self._last_grid = (key, waves, self._factor(cell, mesh_shape))
        return self._last_grid[1:]

    def _boundary(self, cell: Tensor, mesh_shape: tuple[int, ...], layouts: Sequence[Layout]) -> tuple[Any, ...]:
        lengths = tuple(layouts) if layouts[0].open_axes else None
        return mesh_shape, cell.cpu().numpy().tobytes(), lengths, cell.dtype, cell.device

    def _slope(self, multiplier: Multiplier, cell: Tensor, mesh_shape: tuple[int, ...]) -> Tensor:
        """Derivative of the table by k^2 at fixed volume, of its shape; in periodic directions alone."""
        d = len(mesh_shape)
        squared = wave_numbers(cell, mesh_shape, [Layout(mesh_shape)]).squared.requires_grad_()
        with torch.enable_grad():
            channels = multiplier.fourier(squared, d).unbind(dim=-1)
            gradients = [torch.autograd.grad(channel.sum(), squared, retain_graph=True)[0] for channel in channels]
        return _arranged(multiplier, torch.stack(gradients, dim=-1).to(cell), self._factor(cell, mesh_shape))

    def _factor(self, cell: Tensor, mesh_shape: tuple[int, ...]) -> Tensor:
        """All but the multiplier, (n_structures, 1, *half mesh)."""
        factor = paired_waves(mesh_shape)
        if self.window is not None:
            factor = factor * deconvolution(self.window, mesh_shape)
        return factor.to(cell) / volume(cell).reshape(-1, *(1,) * (1 + len(mesh_shape)))


def _arranged(multiplier: Multiplier, values: Tensor, factor: Tensor) -> Tensor:
    """Values (n_structures, *half mesh, n_channels) times `factor` (n_structures, 1, *half mesh), channels in front."""
    arranged = multiplier.arranged(values)
    d = factor.ndim - 2
    channels = tuple(range(1 + d, arranged.ndim))
    arranged = arranged.movedim(channels, tuple(range(1, 1 + len(channels))))
    return (factor.unsqueeze(1) if len(channels) > 1 else factor) * arranged


@dataclass
class _Kept:
    """A table of a frozen multiplier, and what its derivative by the cell needs."""

    table: Tensor
    inverse: Tensor
    """Of the cell, (n_structures, d, d)."""
    slope: Tensor | None = None


class _Strained(torch.autograd.Function):
    """A kept table, differentiable by the cell."""

    @staticmethod
    def forward(ctx: Any, cell: Tensor, kept: _Kept, evaluate: Any) -> Tensor:
        ctx.save_for_backward(cell)
        ctx.kept, ctx.evaluate = kept, evaluate
        return kept.table.detach()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        (cell,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody differentiates further
            return torch.autograd.grad(ctx.evaluate(cell), cell, cotangent, create_graph=True)[0], None, None
        d, kept = cell.shape[-1], ctx.kept
        by_volume = (cotangent * kept.table).sum(dim=tuple(range(1, cotangent.ndim)))  # - dL/d ln V
        products = (cotangent * kept.slope).sum(dim=tuple(range(1, cotangent.ndim - d)))  # over channels
        # k = 2 pi A^-1 m as columns, and d(k^2) = -2 k strain k
        by_strain = -2 * (2 * math.pi) ** 2 * kept.inverse @ _second_moments(products) @ kept.inverse.transpose(-1, -2)
        by_strain.diagonal(dim1=-2, dim2=-1).sub_(by_volume[:, None])
        # strain = A^-1 dA
        return kept.inverse.transpose(-1, -2) @ by_strain, None, None


def _second_moments(values: Tensor) -> Tensor:
    """Sums over a half mesh of value times m_i m_j, (n_structures, d, d); `values` (n_structures, *half mesh)."""
    d = values.ndim - 1
    sums = values
    for axis in reversed(range(d)):  # the last axis first: its lines are contiguous, and one pass leaves 3 numbers each
        powers = _index_powers(values.shape[1 + axis], axis == d - 1, values.dtype, values.device)
        sums = torch.tensordot(sums, powers, dims=([1 + axis], [0]))
    # (n_structures, 3, ..., 3): sums of value times m_d^p ... m_1^q at [p, ..., q]; one more m_i is 3^i places further
    places = [[3**i + 3**j for j in range(d)] for i in range(d)]
    return sums.flatten(1)[:, places]


@lru_cache(maxsize=64)
def _index_powers(n: int, is_half: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 1, m and m^2 of the `n` wave indices m along one axis, (n, 3); `is_half` for the last axis."""
    with torch.inference_mode(False):  # it will be used outside of that too
        indices = torch.arange(n) if is_half else torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).round()
        return torch.stack([indices**0, indices, indices**2], dim=-1).to(device, dtype)
