r"""From density to potential on the mesh: FFT, multiplier over the windows' transforms, inverse FFT.

With a real table T over the half mesh of waves (every wave's value that of its opposite, zero where the mesh does not
hold that, see `lrc_ase.layer.tables.paired_waves`),

    filter:     v = F^-1 [T F rho]
    correlate:  c_k = mu_k Re( conj(F rho_1)_k (F rho_2)_k ),

mu_k the number of waves that k of the half mesh stands for. The filter is its own adjoint in rho, and the derivative by
T is a correlation; the derivative of a correlation is a filter. So these two are closed under differentiation as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["correlate_spectra", "density_spectrum", "filter_mesh", "filtered"]

_ONE_BY_ONE = 2**17
"""Points of a mesh from which channels are transformed one after the other.

A mesh and its spectrum then stay in the cache between the steps, and the memory between them is that of one channel.
"""


def filtered(density: Tensor, table: Tensor) -> Tensor:
    """Turn a density into a potential, (n_structures, n_inputs, *mesh) -> (n_structures, n_outputs, *mesh).

    `table` (n_structures, n_channels, *half mesh) multiplies channel by channel; with one axis more,
    (n_structures, n_outputs, n_inputs, *half mesh), it is a matrix for every wave. Differentiable to any order.
    """
    return _Filter.apply(density, table)


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, density: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(density, table)
        if table.ndim > density.ndim:
            return _filtered_by_matrix(density_spectrum(density), table, density.shape[2:])
        # `filter_mesh` works in place, and autograd owns the input
        copied = density.detach().clone(memory_format=torch.contiguous_format)
        return filter_mesh(copied, table.detach())[0]

    @staticmethod
    def backward(ctx: Any, grad_potential: Tensor) -> tuple[Tensor | None, Tensor | None]:
        density, table = ctx.saved_tensors
        is_matrix = table.ndim > density.ndim
        grad_density = grad_table = None
        # multiplying by an even real table is symmetric: only a matrix has a transpose
        if ctx.needs_input_grad[0]:
            grad_density = _Filter.apply(grad_potential, table.transpose(1, 2) if is_matrix else table)
        if ctx.needs_input_grad[1]:
            grad_table = _Correlate.apply(grad_potential, density, is_matrix)
        return grad_density, grad_table


class _Correlate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, is_matrix: bool) -> Tensor:
        ctx.save_for_backward(first, second)
        ctx.is_matrix = is_matrix
        return correlate_spectra(
            density_spectrum(first), density_spectrum(second), tuple(first.shape[2:]), is_matrix=is_matrix
        )

    @staticmethod
    def backward(ctx: Any, grad_table: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        first, second = ctx.saved_tensors
        # c is bilinear in the densities, and a table in its own right: each gradient filters the other density by dL/dc
        grad_first = grad_second = None
        if ctx.needs_input_grad[0]:
            grad_first = _Filter.apply(second, grad_table)
        if ctx.needs_input_grad[1]:
            grad_second = _Filter.apply(first, grad_table.transpose(1, 2) if ctx.is_matrix else grad_table)
        return grad_first, grad_second, None


def density_spectrum(density: Tensor) -> Tensor:
    """Return half of the Fourier transform of (n_structures, n_channels, *mesh)."""
    return torch.fft.rfftn(density, dim=tuple(range(2, density.ndim)))


def filter_mesh(mesh: Tensor, table: Tensor, *, keep_spectrum: bool = False) -> tuple[Tensor, Tensor | None]:
    """Turn a density into a potential, channel by channel; the memory of the density may be used for it.

    Returns the potential, and the density's spectrum if kept.
    """
    mesh_shape, axes = mesh.shape[2:], tuple(range(2 - mesh.ndim, 0))
    # norm="forward" leaves out the 1 / n of an inverse transform: the table holds all factors
    if mesh_shape.numel() < _ONE_BY_ONE:
        half = torch.fft.rfftn(mesh, dim=axes)
        product = half * table if keep_spectrum else half.mul_(table)  # in place if nobody needs the spectrum
        potential = torch.fft.irfftn(product, s=mesh_shape, dim=axes, norm="forward")
        return potential, half if keep_spectrum else None
    spectra = []
    for density, factor in zip(mesh.flatten(0, 1), table.flatten(0, 1), strict=True):
        half = torch.fft.rfftn(density, dim=axes)
        product = half * factor if keep_spectrum else half.mul_(factor)
        if keep_spectrum:
            spectra.append(half)
        density.copy_(torch.fft.irfftn(product, s=mesh_shape, dim=axes, norm="forward"))
    return mesh, torch.stack(spectra).unflatten(0, mesh.shape[:2]) if keep_spectrum else None


def _filtered_by_matrix(spectrum: Tensor, table: Tensor, mesh_shape: torch.Size) -> Tensor:
    """Return the potential of a density's `spectrum`, with a matrix of the table for every wave."""
    half = torch.einsum("sab...,sb...->sa...", table.detach().to(spectrum.dtype), spectrum)
    return torch.fft.irfftn(half, s=mesh_shape, dim=tuple(range(2, half.ndim)), norm="forward")


def correlate_spectra(first: Tensor, second: Tensor, mesh_shape: tuple[int, ...], *, is_matrix: bool) -> Tensor:
    """Return the real part of conj(first) second times the number of waves that each stands for.

    Spectra are those of `density_spectrum`; the result has shape (n_structures, ..., *half mesh).
    """
    # every output with every input, (n_structures, n_outputs, n_inputs, *half mesh)
    if is_matrix:
        first, second = first[:, :, None], second[:, None]
    # real parts of complex products, without the imaginary ones, which would be thrown away
    product = (first.real * second.real).addcmul_(first.imag, second.imag)
    # a wave stands for its opposite too, unless its last index is its own opposite
    product[..., 1 : (mesh_shape[-1] + 1) // 2].mul_(2)
    return product
