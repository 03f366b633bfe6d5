r"""The table that a sum over waves multiplies with, :math:`T_m = \hat\phi(k_m) / (V\,\hat g(m)^2)`.

Evaluating a multiplier on the whole mesh costs as much as the FFTs. Callers who sum many times in one cell, as dynamics
does, therefore pass the same `MultiplierTables` to every call; nothing is kept otherwise.

In three periodic directions the derivative of a kept table by the cell is kept too, as
:math:`\partial\hat\phi/\partial k^2`: under a strain :math:`x \to x(1+\epsilon)` waves go to
:math:`k(1+\epsilon)^{-T}`, so :math:`d(k^2) = -2\,k\,\epsilon\,k^T`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_ase.layer.boundaries import Layout, wave_numbers
from lrc_ase.layer.constants import constant, on_device
from lrc_ase.layer.kernels import Multiplier, WaveNumbers
from lrc_ase.layer.lattice import indices_along, inverse_cell, volume
from lrc_ase.layer.windows import Window

__all__ = ["KeptTable", "MultiplierTables", "UnkeptTables", "deconvolution", "paired_waves"]

_CELLS_KEPT = 16
"""Most cells, or batches of cells, whose tables are kept."""
_BYTES_KEPT = 64 * 2**20
"""Most memory of all tables, unless the two cells used last need more: tables are as large as meshes."""


class MultiplierTables:
    """Keep the tables of frozen multipliers in the cells used last, 16 of them and 64 MB, but no fewer than two.

    Batches that take turns thus find their tables again. One object serves any number of layers, as the members of an
    ensemble. A table is used again only if cell, mesh, boundary, window, multiplier and the values of all parameters
    are those that it was made for, so passing one to unrelated calls is never wrong. Multipliers that are being
    trained are evaluated in every call.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[Any, ...], _OfCell] = {}
        self._at_origin: dict[Multiplier, tuple[tuple[Any, ...], Tensor]] = {}

    def table(
        self,
        multiplier: Multiplier,
        window: Window | None,
        cell: Tensor,
        mesh_shape: tuple[int, ...],
        layouts: Sequence[Layout],
        cell_on_host: Tensor | None = None,
    ) -> Tensor:
        """Return the table of a multiplier, differentiable by its parameters and the cell.

        Parameters
        ----------
        multiplier, window
            None for the window leaves out its transform, for sums without a mesh.
        cell, mesh_shape, layouts
            Cells (n_structures, d, d) in Angstrom, padded in open directions, and the rest as in `wave_numbers`.
        cell_on_host
            The numbers of `cell`, if the caller has them on the host and `cell` is not there.

        Returns
        -------
        Tensor
            (n_structures, n_channels, *half mesh), for a matrix (n_structures, n_outputs, n_inputs, *half mesh); zero
            at waves without their opposite.
        """
        state, periodic = multiplier.state(), not layouts[0].open_axes
        # truncated kernels depend on k along the periodic directions alone: for them autograd differentiates by cells
        if cell.requires_grad and (state is None or not periodic):
            return _OfCell(cell, window, mesh_shape, layouts).evaluated(multiplier)
        of_cell = self._of_cell(cell.detach(), window, mesh_shape, layouts, cell_on_host)
        if state is None:
            return of_cell.evaluated(multiplier)
        kept = of_cell.kept(multiplier, state)
        if not cell.requires_grad:
            return kept.table
        return _Strained.apply(
            cell, kept, lambda strained: _OfCell(strained, window, mesh_shape, layouts).evaluated(multiplier)
        )

    def kept(
        self, multiplier: Multiplier, window: Window | None, cell: Tensor, mesh_shape: tuple[int, ...]
    ) -> KeptTable:
        """Return the table of a frozen multiplier in cells without open directions; arguments as in `table`.

        Raises
        ------
        ValueError
            The multiplier is being trained.
        """
        state = multiplier.state()
        if state is None:
            raise ValueError("tables of a multiplier that is being trained are not kept: use `table`")
        return self._of_cell(cell, window, mesh_shape, [Layout(mesh_shape)]).kept(multiplier, state)

    def at_origin(
        self, multiplier: Multiplier, dimension: int, dtype: torch.dtype, device: torch.device | str
    ) -> Tensor:
        """Return the kernel's value at distance zero, as `apply_kernel` takes it."""
        key = (multiplier.state(), dimension, dtype, device)
        kept = self._at_origin.get(multiplier)
        if kept is not None and kept[0] == key:
            return kept[1]
        value = on_device(multiplier.arranged(multiplier.at_origin(dimension)), device).to(dtype)
        if key[0] is not None:
            self._at_origin[multiplier] = key, value
        return value

    def clear(self) -> None:
        """Forget all tables."""
        self._cells.clear()
        self._at_origin.clear()

    def _of_cell(
        self,
        cell: Tensor,
        window: Window | None,
        mesh_shape: tuple[int, ...],
        layouts: Sequence[Layout],
        cell_on_host: Tensor | None = None,
    ) -> _OfCell:
        # the cells' bytes tell them apart: comparing tensors would cost a kernel launch each, and a wait on a GPU
        boundary = tuple(layouts) if layouts[0].open_axes else None
        numbers = cell.cpu() if cell_on_host is None else cell_on_host.to(cell.dtype)
        key = (mesh_shape, numbers.numpy().tobytes(), boundary, window, cell.dtype, cell.device)
        if key in self._cells:
            self._cells[key] = self._cells.pop(key)  # dictionaries keep the order of insertion: used last comes last
        else:
            self._make_room()
            self._cells[key] = _OfCell(cell, window, mesh_shape, layouts)
        return self._cells[key]

    def _make_room(self) -> None:
        """Drop the cells used least recently until one more may be kept."""
        for key in list(self._cells)[:-1]:  # the last one stays: two cells may take turns whatever their size
            if len(self._cells) < _CELLS_KEPT and sum(each.n_bytes for each in self._cells.values()) <= _BYTES_KEPT:
                return
            del self._cells[key]


class UnkeptTables(MultiplierTables):
    """Evaluate the multiplier in every call: for steps that are recorded and replayed while the cell changes."""

    def table(
        self,
        multiplier: Multiplier,
        window: Window | None,
        cell: Tensor,
        mesh_shape: tuple[int, ...],
        layouts: Sequence[Layout],
        cell_on_host: Tensor | None = None,
    ) -> Tensor:
        """Return the table, differentiable by parameters and cell; arguments as in `MultiplierTables.table`."""
        return _OfCell(cell, window, mesh_shape, layouts).evaluated(multiplier)


@dataclass
class KeptTable:
    """A table of a frozen multiplier, and what its derivative by the cell needs."""

    table: Tensor
    multiplier: Multiplier
    squared: Tensor
    """Squares of the wave numbers, (n_structures, *half mesh)."""
    factor: Tensor
    """All factors but the multiplier, (n_structures, 1, *half mesh)."""
    state: tuple[Any, ...]
    """Of the multiplier when the table was made."""
    parameters: tuple[Tensor, ...]
    """Of the multiplier, whose addresses are in `state`: while somebody holds it, no other tensor gets that memory."""
    inverse: Tensor
    """Of the cell, (n_structures, d, d)."""

    @cached_property
    def slope(self) -> Tensor:
        """Return the derivative by k^2 at fixed volume, of the table's shape; in periodic directions alone."""
        squared = self.squared.detach().requires_grad_()
        with torch.enable_grad():
            channels = self.multiplier.fourier(squared, squared.ndim - 1).unbind(dim=-1)
            # each wave depends on its own k^2 alone, so the gradient of the sum holds every wave's derivative
            gradients = [torch.autograd.grad(channel.sum(), squared, retain_graph=True)[0] for channel in channels]
        return _arranged(self.multiplier, torch.stack(gradients, dim=-1).to(self.factor), self.factor)

    def by_strain(self, cotangent: Tensor) -> Tensor:
        """Differentiate the sum of `cotangent` times the table by a strain of the cell, (n_structures, d, d).

        In periodic directions alone.
        """
        d = self.inverse.shape[-1]
        # T is proportional to 1/V: this is -dL/d(ln V), and d(ln V) is the trace of the strain
        by_volume = (cotangent * self.table).sum(dim=tuple(range(1, cotangent.ndim)))
        products = (cotangent * self.slope).sum(dim=tuple(range(1, cotangent.ndim - d)))  # over channels
        # k = 2 pi A^-1 m as columns, and d(k^2) = -2 k strain k
        moments = _second_moments(products)
        by_strain = -2 * (2 * math.pi) ** 2 * self.inverse @ moments @ self.inverse.transpose(-1, -2)
        by_strain.diagonal(dim1=-2, dim2=-1).sub_(by_volume[:, None])
        return by_strain


@dataclass(eq=False)
class _OfCell:
    """Waves of one batch of cells on one mesh, all factors but the multiplier, and the tables made of them."""

    cell: Tensor
    window: Window | None
    mesh_shape: tuple[int, ...]
    layouts: Sequence[Layout]
    waves: WaveNumbers = field(init=False)
    factor: Tensor = field(init=False)
    """(n_structures, 1, *half mesh)."""
    tables: dict[Multiplier, KeptTable] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.waves = wave_numbers(self.cell, self.mesh_shape, self.layouts)
        volumes = volume(self.cell).reshape(-1, *(1,) * (1 + len(self.mesh_shape)))
        shape, device = self.mesh_shape, self.cell.device
        factor = paired_waves(shape, device) if self.window is None else deconvolution(self.window, shape, device)
        self.factor = factor.to(self.cell) / volumes

    @cached_property
    def n_bytes(self) -> int:
        """Return the memory of all arrays in bytes, derivatives of tables included; of use once there are tables."""
        tables = sum(2 * kept.table.nbytes for kept in self.tables.values())
        return self.waves.squared.nbytes + self.factor.nbytes + tables

    def evaluated(self, multiplier: Multiplier) -> Tensor:
        """Compute a table from scratch, by differentiable steps."""
        values, expected = multiplier(self.waves), (*self.waves.squared.shape, multiplier.n_channels)
        if values.shape != expected:  # a missing axis of channels would be broadcast without a word
            raise ValueError(
                f"{type(multiplier).__name__} must return a table with channels last, {tuple(expected)}, got "
                f"{tuple(values.shape)}"
            )
        return _arranged(multiplier, values.to(self.cell), self.factor)

    def kept(self, multiplier: Multiplier, state: tuple[Any, ...]) -> KeptTable:
        """Return the table of a frozen multiplier; compute it if there is none for the present parameters."""
        kept = self.tables.get(multiplier)
        if kept is None or kept.state != state:
            parameters = tuple(parameter.detach() for parameter in multiplier.parameters())
            rest = self.waves.squared.detach(), self.factor, state, parameters, inverse_cell(self.cell)
            kept = KeptTable(self.evaluated(multiplier), multiplier, *rest)
            self.tables[multiplier] = kept
        return kept


def _arranged(multiplier: Multiplier, values: Tensor, factor: Tensor) -> Tensor:
    """Multiply values (n_structures, *half mesh, n_channels) by (n_structures, 1, *half mesh); put channels first."""
    arranged = multiplier.arranged(values)
    d = factor.ndim - 2
    channels = tuple(range(1 + d, arranged.ndim))  # one axis, two for a matrix
    arranged = arranged.movedim(channels, tuple(range(1, 1 + len(channels))))
    return (factor.unsqueeze(1) if len(channels) > 1 else factor) * arranged


def paired_waves(mesh_shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Return 0 at the Nyquist waves of even axes, whose opposites the mesh does not hold, 1 elsewhere; (*half mesh)."""
    return _of_axes([(_paired_along,)] * len(mesh_shape), mesh_shape, device)


def deconvolution(window: Window, mesh_shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Return the inverse square of the window's transform, for spreading and gathering, (*half mesh) in float64.

    Zero at the waves that `paired_waves` excludes.
    """
    return _of_axes([(_deconvolution_along, window)] * len(mesh_shape), mesh_shape, device)


def _of_axes(functions: Sequence[tuple[Any, ...]], mesh_shape: tuple[int, ...], device: torch.device | str) -> Tensor:
    """Multiply one factor per axis, ``function(*arguments, n, is_last)``, (*half mesh) in float64."""
    last, like = len(mesh_shape) - 1, torch.empty((), dtype=torch.float64, device=device)
    product = torch.ones((), dtype=torch.float64, device=device)
    for axis, (n, function) in enumerate(zip(mesh_shape, functions, strict=True)):
        along = constant(*function, n, axis == last, like=like)
        product = product * along.reshape([-1 if other == axis else 1 for other in range(last + 1)])
    return product


def _paired_along(n: int, is_last: bool) -> np.ndarray:
    paired: np.ndarray = (2 * np.abs(indices_along(n, is_last)) < n).astype(np.float64)
    return paired


def _deconvolution_along(window: Window, n: int, is_last: bool) -> np.ndarray:
    transform = window.fourier_transform(2 * np.pi * indices_along(n, is_last) / n)
    inverse: np.ndarray = _paired_along(n, is_last) / transform**2
    return inverse


class _Strained(torch.autograd.Function):
    """A kept table, differentiable by the cell."""

    @staticmethod
    def forward(ctx: Any, cell: Tensor, kept: KeptTable, evaluate: Any) -> Tensor:
        ctx.save_for_backward(cell)
        ctx.kept, ctx.evaluate = kept, evaluate
        return kept.table.detach()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        (cell,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody differentiates further
            return torch.autograd.grad(ctx.evaluate(cell), cell, cotangent, create_graph=True)[0], None, None
        # the cell's vectors are rows, A -> A (1 + strain): strain = A^-1 dA
        return ctx.kept.inverse.transpose(-1, -2) @ ctx.kept.by_strain(cotangent), None, None


def _second_moments(values: Tensor) -> Tensor:
    """Sum value times m_i m_j over a half mesh; `values` (n_structures, *half mesh) -> (n_structures, d, d)."""
    d = values.ndim - 1
    sums = values
    for axis in reversed(range(d)):  # the last axis first: its lines are contiguous, and one pass leaves 3 numbers each
        n, is_last = values.shape[1 + axis], axis == d - 1
        powers = constant(_index_powers, 2 * (n - 1) if is_last else n, is_last, like=values)
        sums = torch.tensordot(sums, powers, dims=([1 + axis], [0]))
    # (n_structures, 3, ..., 3): sums of value times m_d^p ... m_1^q at [p, ..., q]; one more m_i is 3^i places further
    places = constant(_moment_places, d, like=torch.empty((), dtype=torch.int64, device=values.device))
    return sums.flatten(1).index_select(1, places).unflatten(1, (d, d))


def _moment_places(d: int) -> list[int]:
    return [3**i + 3**j for i in range(d) for j in range(d)]


def _index_powers(n: int, is_last: bool) -> np.ndarray:
    """Return 1, m and m^2 of the `n` wave indices m along one axis, (n, 3)."""
    indices = indices_along(n, is_last)
    return np.stack([indices**0, indices, indices**2], axis=-1)
