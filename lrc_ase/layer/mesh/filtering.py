r"""From density to potential on the mesh: FFT, multiplier over the windows' transforms, inverse FFT.

With a real table T over the half mesh of waves (every wave's value that of its opposite, zero where the mesh does not
hold that, see `paired_waves`),

    filter:     v = F^-1 [T F rho]
    correlate:  c_k = mu_k Re( conj(F rho_1)_k (F rho_2)_k ),

mu_k the number of waves that k of the half mesh stands for. The filter is its own adjoint in rho, and the derivative by
T is a correlation; the derivative of a correlation is a filter. So these two are closed under differentiation as well.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_ase.layer.lattice import half_mesh_indices
from lrc_ase.layer.mesh.compiled_filter import can_filter, correlate_compiled, filter_compiled, padded_shape
from lrc_ase.layer.mesh.workspace import scratch_array
from lrc_ase.layer.windows import Window

__all__ = [
    "correlate_spectra",
    "deconvolution",
    "density_spectrum",
    "filter_arrays",
    "filter_in_place",
    "filtered",
    "padded_scratch",
    "paired_waves",
]


def filtered(density: Tensor, table: Tensor) -> Tensor:
    """Density to potential: `density` (n_structures, n_inputs, *mesh) -> (n_structures, n_outputs, *mesh).

    `table` (n_structures, n_channels, *half mesh) multiplies channel by channel; with one axis more,
    (n_structures, n_outputs, n_inputs, *half mesh), it is a matrix for every wave. Differentiable to any order.
    """
    return _Filter.apply(density, table)


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, density: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(density, table)
        if table.ndim > density.ndim:
            half = torch.einsum("sab...,sb...->sa...", table.to(_spectrum_type(density)), density_spectrum(density))
            return inverse(half, density.shape[2:])
        potential = density.clone(memory_format=torch.contiguous_format)
        filter_in_place(potential, table)
        return potential

    @staticmethod
    def backward(ctx: Any, grad_potential: Tensor) -> tuple[Tensor | None, Tensor | None]:
        density, table = ctx.saved_tensors
        is_matrix = table.ndim > density.ndim
        grad_density = grad_table = None
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
        grad_first = grad_second = None
        if ctx.needs_input_grad[0]:
            grad_first = _Filter.apply(second, grad_table)
        if ctx.needs_input_grad[1]:
            grad_second = _Filter.apply(first, grad_table.transpose(1, 2) if ctx.is_matrix else grad_table)
        return grad_first, grad_second, None


def density_spectrum(density: Tensor) -> Tensor:
    """Half of the Fourier transform of (n_structures, n_channels, *mesh)."""
    return torch.fft.rfftn(density, dim=tuple(range(2, density.ndim)))


def inverse(half: Tensor, mesh_shape: torch.Size) -> Tensor:
    """Sum over waves, without the 1 / n of an inverse transform."""
    return torch.fft.irfftn(half, s=mesh_shape, dim=tuple(range(2, half.ndim)), norm="forward")


def filter_in_place(mesh: Tensor, table: Tensor, *, keep_spectrum: bool = False) -> Tensor | None:
    """Turn a density into a potential, channel by channel, in its own memory.

    The density's spectrum is returned if kept, in a form that only `correlate_spectra` knows.
    """
    mesh_shape = tuple(mesh.shape[2:])
    if mesh.device.type != "cpu" or not can_filter(mesh_shape):
        half = density_spectrum(mesh)
        kept = half.clone() if keep_spectrum else None
        mesh.copy_(inverse(half.mul_(table), mesh.shape[2:]))
        return kept
    n_y, n_z = mesh_shape[1:]
    padded = padded_scratch("padded", mesh.shape[:2], mesh_shape, mesh.numpy().dtype)
    padded[..., :n_y, :n_z] = mesh.numpy()
    spectrum = filter_arrays(padded, mesh_shape, table.detach().contiguous().numpy(), keep_spectrum=keep_spectrum)
    mesh.copy_(torch.from_numpy(padded[..., :n_y, :n_z]))
    return None if spectrum is None else torch.from_numpy(spectrum)


def padded_scratch(name: str, leading: tuple[int, ...], mesh_shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros for meshes as `filter_arrays` takes them, (*leading, *padded_shape); see `scratch_array`."""
    mesh = scratch_array(name, (*leading, *padded_shape(mesh_shape, dtype)), dtype)
    mesh.view(np.uint8).fill(0)  # byte by byte is faster: the C library does it
    return mesh


def filter_arrays(
    mesh: np.ndarray, mesh_shape: tuple[int, ...], table: np.ndarray, *, keep_spectrum: bool
) -> np.ndarray | None:
    """`filter_in_place` for meshes (n_structures, n_channels, *padded_shape) of a shape that `can_filter` knows."""
    meshes = mesh.reshape(-1, *mesh.shape[2:])
    kept = np.empty_like(meshes) if keep_spectrum else meshes[:0]
    filter_compiled(meshes, mesh_shape, table.reshape(-1), kept, torch.get_num_threads())
    return kept.reshape(mesh.shape) if keep_spectrum else None


def _spectrum_type(mesh: Tensor) -> torch.dtype:
    return torch.complex64 if mesh.dtype == torch.float32 else torch.complex128


def correlate_spectra(first: Tensor, second: Tensor, mesh_shape: tuple[int, ...], *, is_matrix: bool) -> Tensor:
    """Real part of conj(first) second times the number of waves that each stands for, (n_structures, ..., *half mesh).

    Both spectra come from `density_spectrum`, or both from `filter_in_place`.
    """
    if not first.is_complex():
        shape = (*first.shape[:2], *mesh_shape[:-1], mesh_shape[-1] // 2 + 1)
        correlation = first.new_empty(shape)
        correlate_compiled(*(tensor.flatten(0, 1).numpy() for tensor in (first, second, correlation)))
        return correlation
    if is_matrix:
        first, second = first[:, :, None], second[:, None]
    product = first.real * second.real + first.imag * second.imag
    # a wave stands for its opposite too, unless its last index is its own opposite
    product[..., 1 : (mesh_shape[-1] + 1) // 2].mul_(2)
    return product


@lru_cache(maxsize=64)
def paired_waves(mesh_shape: tuple[int, ...]) -> Tensor:
    """0 at the Nyquist waves of even axes, whose opposites the mesh does not hold, 1 elsewhere; (*half mesh)."""
    indices = half_mesh_indices(mesh_shape)
    return (2 * indices.abs() < torch.tensor(mesh_shape)).all(dim=-1).to(torch.float64)


@lru_cache(maxsize=64)
def deconvolution(window: Window, mesh_shape: tuple[int, ...]) -> Tensor:
    """Inverse square of the window's transform, for spreading and gathering, (*half mesh)."""
    indices = half_mesh_indices(mesh_shape).numpy()
    product = np.ones(indices.shape[:-1])
    for axis, n_mesh in enumerate(mesh_shape):
        transform = window.fourier_transform(2 * np.pi * np.arange(-(n_mesh // 2), n_mesh // 2 + 1) / n_mesh)
        product /= transform[indices[..., axis] + n_mesh // 2] ** 2
    return torch.from_numpy(product)
