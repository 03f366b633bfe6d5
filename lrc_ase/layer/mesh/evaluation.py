r"""One evaluation of :math:`u = K f` and what its derivatives share, without a graph.

K spreads, filters and gathers; its adjoint :math:`K^T` has the transposed table. With F the density of f, G that of the
cotangent g of u, :math:`\langle\cdot,\cdot\rangle` the sum over the filtered mesh and gradients in mesh coordinates,

    first:   a_i = dL/df_i = (K^T g)_i,    b_i = dL/dx_i = g_i grad(K f)_i + f_i grad(K^T g)_i,
    second:  with cotangents a', b' of these:  L' = <G, T H> + <D, T F>,

where H is the density of a' and of the dipoles f b', and D that of the dipoles g b'. All derivatives of L' follow from
the potentials of F, G, H and D. In the energy :math:`\tfrac12\sum_i f_i u_i` g is c f with a number c: then G is c F, D
is c H (where a' is zero, as in forces at fixed weights), and one convolution does for two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import torch
from torch import Tensor

from lrc_ase.layer.mesh.filtering import correlate_spectra, density_spectrum, filter_in_place, filtered
from lrc_ase.layer.mesh.proportionality import proportionality
from lrc_ase.layer.mesh.spreading import contract_raised, gather_level, spread_level
from lrc_ase.layer.mesh.stencil import Sites, Stencil

__all__ = ["Convolved", "Evaluation", "convolved"]


class Convolved(Protocol):
    """Values of a convolution at the atoms, and what was asked for with them."""

    @property
    def values(self) -> Tensor:
        """(n_atoms, n_channels)."""
        ...

    @property
    def orders(self) -> Tensor:
        """Before its derivatives by mesh coordinates, if asked for, (n_atoms, 1 + d, n_channels)."""
        ...

    @property
    def spectrum(self) -> Tensor | None:
        """Of the density that was filtered; see `filter_in_place`."""
        ...


@dataclass(eq=False)
class _Gathered:
    orders: Tensor
    spectrum: Tensor | None

    @property
    def values(self) -> Tensor:
        return self.orders[:, 0]


class _Multiple:
    """The convolution of weights that are larger by `scale` (n_structures, n_channels), made as far as asked for.

    `own` is that of each atom (n_atoms, n_channels), or one row for all.
    """

    def __init__(self, of: Convolved, scale: Tensor, own: Tensor) -> None:
        self._of, self._scale, self._own = of, scale, own

    @cached_property
    def values(self) -> Tensor:
        return self._of.values * self._own

    @cached_property
    def orders(self) -> Tensor:
        return self._of.orders * self._own[:, None]

    @cached_property
    def spectrum(self) -> Tensor | None:
        spectrum = self._of.spectrum
        return None if spectrum is None else spectrum * self._scale[(...,) + (None,) * (spectrum.ndim - 2)]


def convolved(
    weights: Tensor, table: Tensor, sites: Sites, *, gradient: bool = False, spectrum: bool = False
) -> Convolved:
    """Spread, filter, gather; `weights` (n_atoms, n_channels), or (n_atoms, 1 + d, n_channels) with dipoles."""
    return _Gathered(*_gathered(weights, table, sites, int(gradient), keep_spectrum=spectrum))


def _gathered(
    weights: Tensor, table: Tensor, sites: Sites, level: int, *, keep_spectrum: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The potential at the atoms with all derivatives up to `level`, and the density's spectrum."""
    orders = weights if weights.ndim == 3 else weights[:, None]
    mesh = spread_level(orders, sites, int(orders.shape[1] > 1))
    if sites.stencil.exchange is not None:
        mesh = sites.stencil.exchange.sum(mesh)
    if table.ndim == mesh.ndim:
        kept = filter_in_place(mesh, table, keep_spectrum=keep_spectrum)
    else:
        mesh, kept = filtered(mesh, table), density_spectrum(mesh) if keep_spectrum else None
    return gather_level(mesh, sites, level), kept


class _Known:
    """A tensor, as it was: kept, so that no other can take its memory."""

    def __init__(self, tensor: Tensor | None) -> None:
        self._tensor = None if tensor is None else tensor.detach()
        self._version = None if tensor is None else tensor._version

    def is_same(self, other: Tensor | None) -> bool:
        """Whether another holds the same numbers in the same memory, not changed since."""
        own = self._tensor
        if own is None or other is None:
            return own is other
        # the storage, not its address: those of all empty tensors are the same
        own_place = own.untyped_storage()._cdata, own.storage_offset(), self._version, own.shape, own.stride()
        return own_place == (
            other.untyped_storage()._cdata,
            other.storage_offset(),
            other._version,
            other.shape,
            other.stride(),
        )


@dataclass(eq=False)
class _First:
    """What belongs to one cotangent g."""

    known: _Known
    cotangent: Tensor
    adjoint: Convolved
    """Of g, by the transposed table."""
    scale: Tensor | None
    """c (n_structures, n_channels) where g = c f in all channels."""
    second: _Second | None = None
    raised: tuple[Tensor, Tensor] | None = None
    """Potentials of F and of G at the atoms with all derivatives up to the second, (n_atoms, n_orders, n_channels)."""


@dataclass(eq=False)
class _Second:
    """What belongs to one pair of cotangents a', b'; None where a density is zero, or D where it is c H."""

    known: tuple[_Known, _Known]
    h_orders: Tensor
    d_orders: Tensor | None
    h: Convolved
    d: Convolved | None
    scale: Tensor | None
    """c where G is c F and D is c H."""


class Evaluation:
    """The convolution of some weights; tensors without a graph go in and out.

    The last cotangents are remembered: derivatives by weights, positions and table are asked for one by one.
    """

    def __init__(self, weights: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil, needs: tuple[bool, bool]):
        self.weights, self.fractional, self.table = weights.detach(), fractional.detach(), table.detach()
        self.stencil, self.sites = stencil, Sites(self.fractional, stencil)
        self.gradient_needed, self.spectrum_needed = needs
        self.is_matrix = table.ndim > 2 + stencil.dimension
        self.result = self._convolved(self.weights, self.table, gradient=self.gradient_needed)
        self._first: _First | None = None

    @property
    def n_mesh(self) -> Tensor:
        """Mesh points along each axis, (d,)."""
        return _n_mesh(self.stencil.mesh_shape, self.fractional.dtype, self.fractional.device)

    def by_weights_and_positions(self, cotangent: Tensor) -> tuple[Tensor, Tensor | None]:
        """dL/df (n_atoms, n_inputs) and dL/dx (n_atoms, d)."""
        first = self._with(cotangent)
        if not self.gradient_needed:
            return first.adjoint.values, None
        if first.scale is not None:
            return first.adjoint.values, self._by_positions(first.cotangent, self.result, 2.0)
        by_positions = self._by_positions(first.cotangent, self.result)
        return first.adjoint.values, by_positions.add_(self._by_positions(self.weights, first.adjoint))

    def by_table(self, cotangent: Tensor) -> Tensor:
        """dL/dT, of the table's shape."""
        return self._correlation(self._with(cotangent).adjoint, self.result)

    def second_by_cotangent_and_weights(
        self, cotangent: Tensor, by_weights: Tensor | None, by_positions: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """dL'/dg and dL'/df for cotangents of dL/df and dL/dx."""
        first, second = self._with(cotangent), self._with_second(cotangent, by_weights, by_positions)
        if by_positions is None:
            return second.h.values, None
        steps = (self.n_mesh * by_positions)[:, :, None]
        by_cotangent = second.h.values + (steps * self.result.orders[:, 1:]).sum(dim=1)
        if second.scale is not None:
            return by_cotangent, by_cotangent * self._of_atoms(second.scale)
        assert second.d is not None
        return by_cotangent, second.d.values + (steps * first.adjoint.orders[:, 1:]).sum(dim=1)

    def second_by_table(self, cotangent: Tensor, by_weights: Tensor | None, by_positions: Tensor | None) -> Tensor:
        """dL'/dT."""
        first, second = self._with(cotangent), self._with_second(cotangent, by_weights, by_positions)
        if second.scale is not None:  # <G, H> and <D, F> are the same
            found = self._correlation(self.result, second.h)
            return found * (2 * second.scale)[(...,) + (None,) * (found.ndim - 2)]
        found = self._correlation(first.adjoint, second.h)
        return found if second.d is None else found + self._correlation(second.d, self.result)

    def second_by_positions(self, cotangent: Tensor, by_weights: Tensor | None, by_positions: Tensor | None) -> Tensor:
        """dL'/dx, what Hessians are made of."""
        first, second = self._with(cotangent), self._with_second(cotangent, by_weights, by_positions)
        if first.raised is None:
            first.raised = self._raised(self.weights, self.table), self._raised(first.cotangent, self._transposed())
        of_f, of_g = first.raised
        level = int(second.h_orders.shape[1] > 1)
        found = self._by_positions(first.cotangent, second.h) + contract_raised(
            second.h_orders, of_g, self.stencil, level
        )
        d_orders, d = second.d_orders, second.d
        if second.scale is not None:
            scale = self._of_atoms(second.scale)
            d_orders, d = second.h_orders * scale[:, None], _Multiple(second.h, second.scale, scale)
        if d_orders is not None:
            assert d is not None
            found = found + self._by_positions(self.weights, d) + contract_raised(d_orders, of_f, self.stencil, level)
        return found

    def _with(self, cotangent: Tensor) -> _First:
        if self._first is None or not self._first.known.is_same(cotangent):
            known, cotangent, scale = _Known(cotangent), cotangent.detach(), None
            if self.is_matrix:
                adjoint: Convolved = self._convolved(cotangent, self._transposed(), gradient=self.gradient_needed)
            else:
                scale, rest = proportionality(cotangent, self.weights, self.stencil)
                adjoint = _Multiple(self.result, scale, self._of_atoms(scale))
                if rest:
                    scale = None
                    self._replace(adjoint, rest, cotangent)
            self._first = _First(known, cotangent, adjoint, scale)
        return self._first

    def _replace(self, adjoint: Convolved, channels: list[int], cotangent: Tensor) -> None:
        """Convolve some channels of g, where it is not proportional to f."""
        own = self._convolved(cotangent[:, channels], self.table[:, channels], gradient=self.gradient_needed)
        adjoint.values[:, channels] = own.values
        if self.gradient_needed:
            adjoint.orders[..., channels] = own.orders
        if adjoint.spectrum is not None and own.spectrum is not None:
            adjoint.spectrum[:, channels] = own.spectrum

    def _with_second(self, cotangent: Tensor, by_weights: Tensor | None, by_positions: Tensor | None) -> _Second:
        first = self._with(cotangent)
        given = by_weights, by_positions
        if first.second is not None and all(map(_Known.is_same, first.second.known, given)):
            return first.second
        scale = first.scale if by_weights is None else None
        d_orders: Tensor | None = None
        if by_positions is None:
            assert by_weights is not None
            h_orders = by_weights.detach()[:, None]
        else:
            steps = (self.n_mesh * by_positions.detach())[:, :, None]
            monopoles = torch.zeros_like(self.weights) if by_weights is None else by_weights.detach()
            h_orders = torch.cat([monopoles[:, None], steps * self.weights[:, None]], dim=1)
            if scale is None:
                nothing = torch.zeros_like(first.cotangent)[:, None]
                d_orders = torch.cat([nothing, steps * first.cotangent[:, None]], dim=1)
        # with slopes, which only derivatives by positions want: a kernel less to compile
        h = self._convolved(h_orders, self.table, gradient=True)
        d = None if d_orders is None else self._convolved(d_orders, self._transposed(), gradient=True)
        first.second = _Second((_Known(by_weights), _Known(by_positions)), h_orders, d_orders, h, d, scale)
        return first.second

    def _convolved(self, weights: Tensor, table: Tensor, *, gradient: bool = False) -> Convolved:
        return convolved(weights, table, self.sites, gradient=gradient, spectrum=self.spectrum_needed)

    def _raised(self, weights: Tensor, table: Tensor) -> Tensor:
        return _gathered(weights, table, self.sites, 2)[0]

    def _by_positions(self, weights: Tensor, of: Convolved, factor: float = 1.0) -> Tensor:
        return torch.einsum("nc,nac->na", weights, of.orders[:, 1:]).mul_(factor * self.n_mesh)

    def _of_atoms(self, scale: Tensor) -> Tensor:
        """Numbers of structures (n_structures, n_channels) for each atom, or one row for all."""
        return scale if scale.shape[0] == 1 else scale[self.stencil.structure]

    def _transposed(self) -> Tensor:
        return self.table.transpose(1, 2) if self.is_matrix else self.table

    def _correlation(self, outputs: Convolved, inputs: Convolved) -> Tensor:
        assert outputs.spectrum is not None
        assert inputs.spectrum is not None
        exchange, mesh_shape = self.stencil.exchange, self.stencil.mesh_shape
        found = correlate_spectra(outputs.spectrum, inputs.spectrum, mesh_shape, is_matrix=self.is_matrix)
        # every process finds the whole: each keeps its share
        return found if exchange is None else found / exchange.n_processes


@lru_cache(maxsize=64)
def _n_mesh(mesh_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(mesh_shape, dtype=dtype, device=device)
