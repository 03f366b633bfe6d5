"""A density and its potential: spread, filter and gather at fixed sites, without a graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lrc_ase.layer.constants import constant
from lrc_ase.layer.mesh.filtering import correlate_spectra, density_spectrum, filter_mesh, filtered
from lrc_ase.layer.mesh.shared_filtering import filter_shared
from lrc_ase.layer.mesh.spreading import gather_level, spread_level
from lrc_ase.layer.mesh.stencil import Sites, Stencil

__all__ = ["Convolved", "Convolver", "monopoles_and_dipoles"]


@dataclass(frozen=True, eq=False)
class Convolved:
    """A potential at the atoms, and the spectrum of the density that made it."""

    orders: Tensor
    """Potential and its derivatives by mesh coordinates, (n_atoms, n_orders, n_channels) as in `multi_indices`."""
    spectrum: Tensor | None
    """Of the density, (n_structures, n_channels, *half mesh); None unless derivatives by the table may be asked for."""

    @cached_property
    def values(self) -> Tensor:
        """Return the potential, (n_atoms, n_channels)."""
        return self.orders[:, 0]

    def of_channels(self, channels: slice) -> Convolved:
        """Return the part of some channels."""
        spectrum = None if self.spectrum is None else self.spectrum[:, channels]
        return Convolved(self.orders[..., channels], spectrum)


@dataclass(frozen=True, eq=False)
class Convolver:
    """Spread, filter and gather at fixed sites with a fixed table."""

    table: Tensor
    sites: Sites
    level: int
    """Derivatives of potentials to gather: 1 where positions may be differentiated, else 0."""
    keeps_spectra: bool
    """True if the table may be differentiated."""

    @cached_property
    def stencil(self) -> Stencil:
        return self.sites.stencil

    @cached_property
    def is_matrix(self) -> bool:
        return self.table.ndim > 2 + self.stencil.dimension

    def __call__(self, orders: Tensor, *, transposed: bool = False, level: int | None = None) -> Convolved:
        """Convolve multipoles (n_atoms, n_orders, n_channels), weights of the window's derivatives of `multi_indices`.

        One order stands for monopoles, 1 + d for monopoles and dipoles, all up to the second for quadrupoles too.
        """
        # a table that maps channels one to one is its own transpose, as kernels are even
        stencil = self.sites.stencil
        is_matrix = self.table.ndim > 2 + stencil.dimension
        table = self.table.transpose(1, 2) if transposed and is_matrix else self.table
        highest = (orders.shape[1] > 1) + (orders.shape[1] > 1 + stencil.dimension)
        if is_matrix:
            mesh = self.spread(orders, highest)
            mesh, spectrum = filtered(mesh, table), density_spectrum(mesh) if self.keeps_spectra else None
        else:
            mesh, spectrum = self.potential(orders, highest)
        return Convolved(gather_level(mesh, self.sites, self.level if level is None else level), spectrum)

    def potential(self, orders: Tensor, level: int) -> tuple[Tensor, Tensor | None]:
        """Return the potential of multipoles up to `level` on the mesh, and the spectrum of their density if kept."""
        exchange = self.stencil.exchange
        if exchange is None or self.keeps_spectra:
            return filter_mesh(self.spread(orders, level), self.table, keep_spectrum=self.keeps_spectra)
        return filter_shared(spread_level(orders, self.sites, level), self.table, exchange), None

    def spread(self, orders: Tensor, level: int) -> Tensor:
        """Spread multipoles up to `level` to the mesh, and sum it over the processes."""
        mesh, exchange = spread_level(orders, self.sites, level), self.stencil.exchange
        return mesh if exchange is None else exchange.sum(mesh)

    def of_channels(self, channels: slice) -> Convolver:
        """Return the convolution of some channels of a table without matrix."""
        return Convolver(self.table[:, channels], self.sites, self.level, self.keeps_spectra)

    @cached_property
    def n_mesh(self) -> Tensor:
        """Return the mesh points along each axis, (d,): derivatives of mesh coordinates by fractional ones."""
        return constant(tuple, self.sites.stencil.mesh_shape, like=self.sites.fractional)

    def slopes(self, weights: Tensor, potential: Convolved) -> Tensor:
        """Sum weights times the gradient of a potential over channels, by fractional coordinates (n_atoms, d)."""
        d = self.sites.stencil.dimension
        # (n_atoms, d, n_channels) times (n_atoms, n_channels, 1)
        return torch.matmul(potential.orders[:, 1 : 1 + d], weights[:, :, None])[..., 0].mul_(self.n_mesh)

    def along(self, directions: Tensor, potential: Convolved) -> Tensor:
        """Project gradients of a potential on fractional `directions` (n_atoms, d), (n_atoms, n_channels)."""
        d = self.stencil.dimension
        # (n_atoms, 1, d) times (n_atoms, d, n_channels)
        return torch.matmul((directions * self.n_mesh)[:, None], potential.orders[:, 1 : 1 + d])[:, 0]

    def dipoles(self, directions: Tensor, weights: Tensor) -> Tensor:
        """Return the dipoles of weights (n_atoms, n_channels) moved along `directions`, (n_atoms, d, n_channels)."""
        return (directions * self.n_mesh)[:, :, None] * weights[:, None]

    def correlation(self, outputs: Convolved, inputs: Convolved) -> Tensor:
        """Differentiate the sum over the mesh of `outputs`' density times `inputs`' potential by the table."""
        assert outputs.spectrum is not None
        assert inputs.spectrum is not None
        shape = self.stencil.mesh_shape
        return self.share(correlate_spectra(outputs.spectrum, inputs.spectrum, shape, is_matrix=self.is_matrix))

    def share(self, whole: Tensor) -> Tensor:
        """Return this process's share of a result of the summed mesh, which every process computes as a whole."""
        exchange = self.stencil.exchange
        return whole if exchange is None else whole / exchange.n_processes


def monopoles_and_dipoles(
    weights: Tensor, by_weights: Tensor | None, by_positions: Tensor | None, convolve: Convolver
) -> Tensor:
    """Return the monopoles a' and the dipoles f b', (n_atoms, 1 or 1 + d, n_channels)."""
    monopoles = torch.zeros_like(weights) if by_weights is None else by_weights
    if by_positions is None:
        return monopoles[:, None]  # level 0 spreads faster
    # a weight f that moves by b' adds f b' . grad g to the density, which is a dipole
    return torch.cat([monopoles[:, None], convolve.dipoles(by_positions, weights)], dim=1)
