r"""Atoms to mesh and back: one multilinear family, closed under differentiation.

With the window g, atoms at mesh coordinates x_j and all multi-indices alpha of total degree up to a `level`,

    spread:  mesh[m]  = sum_j sum_alpha w_j,alpha  d^alpha g(m - x_j)
    gather:  v_j,alpha = sum_m mesh[m] d^alpha g(m - x_j)

(derivatives by x_j, periodic in the mesh). Each is the other's adjoint, and differentiating either by x_j raises the
level by one. So the two custom functions below differentiate into each other to any order the window allows, and no
graph over (atoms x stencil) is ever kept: only positions, weights and meshes are.

Meshes have shape (n_structures, n_channels, *mesh_shape): channels are planes, spread and gathered together.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lrc_ase.layer.mesh.compiled import MAX_LEVEL, gather_compiled, spread_compiled
from lrc_ase.layer.mesh.reference import gather_reference, spread_reference
from lrc_ase.layer.mesh.sorting import SortedAtoms, sort_atoms
from lrc_ase.layer.mesh.stencil import Stencil, multi_indices
from lrc_ase.layer.mesh.triton_kernels import gather_triton, spread_triton, triton_available
from lrc_ase.layer.windows import Window

__all__ = ["backend", "contract_raised", "gather", "gather_level", "sorted_atoms", "spread", "spread_onto"]


def spread(weights: Tensor, fractional: Tensor, stencil: Stencil) -> Tensor:
    r"""Smear point weights onto the mesh, :math:`\rho(x_m) = \sum_j f_j\, g(m - x_j)`.

    `weights` (n_atoms, n_channels), `fractional` (n_atoms, d) in units of the cell vectors, any real number ->
    (n_structures, n_channels, *mesh_shape). Adjoint of `gather`; differentiable to any order in both arguments.
    """
    return _Spread.apply(weights[:, None, :], fractional, stencil, 0)


def gather(mesh: Tensor, fractional: Tensor, stencil: Stencil) -> Tensor:
    r"""Interpolate a mesh at the points, :math:`v_j = \sum_m v(x_m)\, g(m - x_j)`.

    `mesh` (n_structures, n_channels, *mesh_shape) -> (n_atoms, n_channels). Adjoint of `spread`.
    """
    return _Gather.apply(mesh, fractional, stencil, 0)[:, 0]


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, fractional: Tensor, stencil: Stencil, level: int) -> Tensor:
        ctx.save_for_backward(weights, fractional)
        ctx.stencil, ctx.level = stencil, level
        mesh = weights.new_zeros(stencil.n_structures, weights.shape[-1], *stencil.mesh_shape)
        spread_onto(mesh, weights, fractional, stencil, level)
        return mesh

    @staticmethod
    def backward(ctx: Any, grad_mesh: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        weights, fractional = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return _Gather.apply(grad_mesh, fractional, ctx.stencil, ctx.level), None, None, None
        gathered = _Gather.apply(grad_mesh, fractional, ctx.stencil, ctx.level + 1)
        grad_weights = gathered[:, : weights.shape[1]]
        return grad_weights, contract_raised(weights, gathered, ctx.stencil, ctx.level), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mesh: Tensor, fractional: Tensor, stencil: Stencil, level: int) -> Tensor:
        ctx.save_for_backward(mesh, fractional)
        ctx.stencil, ctx.level = stencil, level
        return gather_level(mesh, fractional, stencil, level)

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        mesh, fractional = ctx.saved_tensors
        grad_mesh = grad_fractional = None
        if ctx.needs_input_grad[0]:
            grad_mesh = _Spread.apply(grad_values, fractional, ctx.stencil, ctx.level)
        if ctx.needs_input_grad[1]:
            gathered = _Gather.apply(mesh, fractional, ctx.stencil, ctx.level + 1)
            grad_fractional = contract_raised(grad_values, gathered, ctx.stencil, ctx.level)
        return grad_mesh, grad_fractional, None, None


def contract_raised(weights: Tensor, gathered: Tensor, stencil: Stencil, level: int) -> Tensor:
    """Gradient by fractional coordinates (n_atoms, d): sum over orders and channels of w_alpha v_(alpha + e_axis).

    `weights` (n_atoms, n_orders, n_channels) at `level`, `gathered` one level higher.
    """
    d = stencil.dimension
    place = {order: index for index, order in enumerate(multi_indices(d, level + 1))}
    columns = []
    for axis, n_mesh in enumerate(stencil.mesh_shape):
        raised = [
            place[tuple(value + (own == axis) for own, value in enumerate(order))] for order in multi_indices(d, level)
        ]
        columns.append(n_mesh * (weights * gathered[:, raised]).sum(dim=(1, 2)))  # dx = n_mesh ds
    return torch.stack(columns, dim=-1)


def spread_onto(mesh: Tensor, weights: Tensor, fractional: Tensor, stencil: Stencil, level: int) -> None:
    """Add to a mesh, without a graph: `weights` (n_atoms, n_orders, n_channels) with the orders of `multi_indices`."""
    own = backend(mesh.device.type, stencil.window, stencil.mesh_shape, level)
    if own == "compiled":
        numbers, atoms = weights.detach().contiguous().numpy(), sorted_atoms(fractional, stencil)
        spread_compiled(numbers, atoms, stencil.window, level, mesh.numpy(), torch.get_num_threads())
    elif own == "triton":
        coordinates = _mesh_coordinates(fractional, stencil)
        spread_triton(weights.detach(), coordinates, stencil.structure, stencil.window, level, mesh)
    else:
        mesh += spread_reference(weights, fractional, stencil, level)


def gather_level(mesh: Tensor, fractional: Tensor, stencil: Stencil, level: int) -> Tensor:
    """Gather without a graph, (n_atoms, n_orders, n_channels) with the orders of `multi_indices`."""
    mesh = mesh.detach().contiguous()
    own = backend(mesh.device.type, stencil.window, stencil.mesh_shape, level)
    if own == "reference":
        return gather_reference(mesh, fractional, stencil, level)
    gathered = mesh.new_empty(fractional.shape[0], len(multi_indices(3, level)), mesh.shape[1])
    if own == "compiled":
        atoms = sorted_atoms(fractional, stencil)
        gather_compiled(mesh.numpy(), atoms, stencil.window, level, gathered.numpy(), torch.get_num_threads())
    else:
        coordinates = _mesh_coordinates(fractional, stencil)
        gather_triton(mesh, coordinates, stencil.structure, stencil.window, level, gathered)
    return gathered


@lru_cache(maxsize=256)
def backend(device: str, window: Window, mesh_shape: tuple[int, ...], level: int) -> str:
    """Which kernels do the work: 'compiled' ones of the CPU, 'triton', or the 'reference'."""
    if len(mesh_shape) == 3 and level <= MAX_LEVEL and window.n_points <= 16:
        if device == "cpu" and min(mesh_shape) >= window.n_points:
            return "compiled"
        if device == "cuda" and triton_available():
            return "triton"
    return "reference"


def sorted_atoms(fractional: Tensor, stencil: Stencil) -> SortedAtoms:
    """Atoms in the order of the mesh; the same coordinates are sorted once per stencil."""
    is_held = fractional is stencil.held
    if stencil.sorted_atoms is None or not (is_held or torch.equal(stencil.sorted_atoms[0], fractional)):
        fixed = fractional.detach().contiguous()
        atoms = sort_atoms(
            fixed.numpy(),
            stencil.structure.numpy(),
            stencil.mesh_shape,
            stencil.n_structures,
            stencil.window,
            torch.get_num_threads(),
        )
        stencil.sorted_atoms = (fixed if is_held else fixed.clone(), atoms)
    return stencil.sorted_atoms[1]


def _mesh_coordinates(fractional: Tensor, stencil: Stencil) -> Tensor:
    """Coordinates in units of the mesh, (n_atoms, d) in [0, n]; float64: few numbers, and one type for kernels."""
    wrapped = fractional.detach().double()
    coordinates = (wrapped - torch.floor(wrapped)) * torch.tensor(stencil.mesh_shape, device=fractional.device)
    if not torch.isfinite(coordinates).all():
        raise ValueError("`fractional` holds coordinates that are not finite (NaN or infinite)")
    return coordinates
