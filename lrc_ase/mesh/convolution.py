r"""The convolution as one differentiable function, :math:`u = G\,\mathcal F^{-1} T\,\mathcal F\,G^T f`.

G gathers at the atoms, its transpose spreads. Training differentiates the composition as it stands, to any order.
Dynamics needs first derivatives of a fixed kernel only, and gets them cheaper:

- value and gradient of the field are gathered in one pass, so that the backward pass touches the forward mesh no more;
- with cotangent g, :math:`dL/df = u[g]` and :math:`dL/dx_i = g_i \nabla u_i[f] + f_i \nabla u_i[g]`: one more
  convolution. But in channels where g is proportional to f, structure by structure, u[g] is u[f] times a number, and
  needs none. So it is for the electrostatic energy :math:`\tfrac12\sum_i f_i u_i`, whose forces are
  :math:`-f_i \nabla u_i`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .filtering import correlate_spectra, density_spectrum, filter_in_place, filtered
from .spreading import gather, gather_level, spread, spread_onto
from .stencil import Stencil
from .totals import total
from .workspace import scratch

__all__ = ["convolve"]


def convolve(weights: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil, *, training: bool) -> Tensor:
    """Field at the atoms, (n_atoms, n_outputs); differentiable to any order in the three tensors.

    Parameters
    ----------
    weights
        (n_atoms, n_inputs).
    fractional
        Coordinates in units of the cell vectors, (n_atoms, d).
    table
        Multiplier over the square of the window's transform; see `filtered`.
    training
        Whether second derivatives will be wanted. They are right in either case; this decides which is fast.
    """
    if training:
        return _composed(weights, fractional, table, stencil)
    return _Convolve.apply(weights, fractional, table, stencil)


def _composed(weights: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil) -> Tensor:
    density = total(spread(weights, fractional, stencil), stencil.exchange)
    return gather(filtered(density, table), fractional, stencil)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil) -> Tensor:
        field, gradient, spectrum = _field(weights, fractional, table, stencil, *ctx.needs_input_grad[1:3])
        ctx.stencil = stencil
        ctx.save_for_backward(weights, fractional, table, field, gradient, spectrum)
        return field

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        weights, fractional, table, field, gradient, spectrum = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody differentiates further
            return _differentiable_gradients(weights, fractional, table, cotangent, ctx)
        stencil, n_mesh = ctx.stencil, fractional.new_tensor(ctx.stencil.mesh_shape)
        is_matrix = table.ndim > 2 + stencil.dimension
        needs = gradient is not None, spectrum is not None
        if is_matrix:
            other, other_gradient, other_spectrum = _field(
                cotangent, fractional, table.transpose(1, 2), stencil, *needs
            )
        else:
            scale, rest = _proportionality(cotangent, weights, stencil)
            own = scale[stencil.structure]  # (n_atoms, n_channels)
            other = field * own
            other_gradient = None if gradient is None else gradient * own[:, None]
            other_spectrum = (
                None if spectrum is None else spectrum * scale.reshape(scale.shape + (1,) * stencil.dimension)
            )
            if len(rest):
                convolved = _field(cotangent[:, rest], fractional, table[:, rest], stencil, *needs)
                other[:, rest] = convolved[0]
                if other_gradient is not None:
                    other_gradient[..., rest] = convolved[1]
                if other_spectrum is not None:
                    other_spectrum[:, rest] = convolved[2]
        grad_fractional = grad_table = None
        if gradient is not None:
            assert other_gradient is not None
            products = (cotangent[:, None] * gradient).sum(dim=-1) + (weights[:, None] * other_gradient).sum(dim=-1)
            grad_fractional = n_mesh * products
        if spectrum is not None:
            assert other_spectrum is not None
            grad_table = correlate_spectra(other_spectrum, spectrum, stencil.mesh_shape[-1], is_matrix=is_matrix)
            if stencil.exchange is not None:  # every process finds the whole: each keeps its share
                grad_table.div_(stencil.exchange.n_processes)
        return other, grad_fractional, grad_table, None


def _field(
    weights: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil, needs_gradient: bool, needs_spectrum: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Field, its gradient by mesh coordinates (n_atoms, d, n_outputs), and the spectrum of the density."""
    shape = (stencil.n_structures, weights.shape[1], *stencil.mesh_shape)
    mesh = scratch("mesh", shape, weights.dtype, weights.device).zero_()
    spread_onto(mesh, weights[:, None], fractional, stencil, 0)
    if stencil.exchange is not None:
        mesh = stencil.exchange.sum(mesh)
    if table.ndim > mesh.ndim:
        spectrum = density_spectrum(mesh) if needs_spectrum else None
        mesh = filtered(mesh, table)
    else:
        spectrum = filter_in_place(mesh, table, keep_spectrum=needs_spectrum)
    gathered = gather_level(mesh, fractional, stencil, int(needs_gradient))
    return gathered[:, 0], gathered[:, 1:] if needs_gradient else None, spectrum


def _proportionality(cotangent: Tensor, weights: Tensor, stencil: Stencil) -> tuple[Tensor, Tensor]:
    """Numbers c (n_structures, n_channels) with cotangent = c weights, and the channels where that does not hold."""
    moments = torch.stack([cotangent * weights, weights * weights])
    sums = moments.sum(dim=1, keepdim=True)
    if stencil.n_structures > 1:
        sums = moments.new_zeros(2, stencil.n_structures, weights.shape[1]).index_add(1, stencil.structure, moments)
    if stencil.exchange is not None:
        sums = stencil.exchange.sum(sums)
    scale = sums[0] / sums[1].clamp(min=torch.finfo(sums.dtype).tiny)
    difference = cotangent - scale[stencil.structure] * weights
    largest = _largest(torch.stack([difference, cotangent], dim=1), stencil)
    # a few roundings: the products that made the cotangent, and those that made the scale
    proportional = largest[0] <= 16 * torch.finfo(sums.dtype).eps * largest[1]
    return scale, (~proportional).nonzero()[:, 0]


def _largest(values: Tensor, stencil: Stencil) -> Tensor:
    """Largest absolute value over all atoms, `values` (n_atoms, ...) -> (...)."""
    if stencil.exchange is None:
        return values.abs().amax(dim=0)
    largest = values.abs().amax(dim=0) if len(values) else values.new_zeros(values.shape[1:])
    return stencil.exchange.largest(largest)


def _differentiable_gradients(
    weights: Tensor, fractional: Tensor, table: Tensor, cotangent: Tensor, ctx: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    needed = ctx.needs_input_grad[:3]
    wanted = [tensor for tensor, is_needed in zip((weights, fractional, table), needed, strict=True) if is_needed]
    field = _composed(weights, fractional, table, ctx.stencil)
    found = iter(torch.autograd.grad(field, wanted, cotangent, create_graph=True))
    first, second, third = (next(found) if is_needed else None for is_needed in needed)
    return first, second, third, None
