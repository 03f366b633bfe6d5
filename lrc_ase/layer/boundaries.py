"""Boundaries: periodic directions as they are, open ones padded, with the kernel cut off there.

With some directions open the sum runs in a frame of its own: the periodic cell vectors as they are, and in the open
directions perpendicular box vectors of fixed length. Positions are expressed in that frame, so that derivatives by the
cell pass through positions and the periodic wave numbers, whatever the vectors that the user left in open directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lrc_ase.layer.exchange import Exchange
from lrc_ase.layer.kernels import WaveNumbers
from lrc_ase.layer.lattice import squared_wave_numbers, wave_indices

__all__ = ["Layout", "open_layout", "padded_cell", "pairs_cost_less", "wave_numbers"]

_TRUNCATION_MARGIN = 7.0
"""Smearing widths beyond which a Gaussian cloud is taken to end, exp(-24)."""
_STEP_OFFSET = 1 / math.e
"""Angstrom between whole numbers and the extents at which the box changes: irrational, so that no lattice hits it."""
_PAIRS_PER_MESH_POINT = 1.0
"""Pairs of a cluster that cost as much as a point of its padded mesh, from ``tests/benchmarks/open_crossover.py``."""


@dataclass(frozen=True)
class Layout:
    """Mesh and box of one structure."""

    mesh_shape: tuple[int, ...] | None
    """None where all pairs are summed."""
    open_axes: tuple[int, ...] = ()
    lengths: tuple[float, ...] = ()
    """Of the box along the open directions, Angstrom."""
    truncation: float = 0.0
    """Distance in the open directions beyond which the kernel is cut off, Angstrom."""


def pairs_cost_less(n_atoms: int, smearing: float, spacing: float) -> bool:
    """Return True if direct summation costs less than the smallest possible padded mesh, that of the margins alone."""
    return n_atoms**2 < _PAIRS_PER_MESH_POINT * (2 * _TRUNCATION_MARGIN * smearing / spacing) ** 3


def open_layout(
    fractional: Tensor,
    cell: Tensor,
    pbc: tuple[bool, ...],
    smearing: float,
    mesh_shape_for: Callable[[np.ndarray], tuple[int, ...]],
    exchange: Exchange | None = None,
) -> Layout:
    r"""Lay out a structure with open directions.

    With extents e_i along the open directions and a largest distance D across them, the kernel is cut off at
    R = D + 7 s and the box is :math:`e_i + R + 7s` long: clouds of atoms see each other's kernel whole, and never an
    image. Extents are rounded up in steps of 1 Angstrom, so that box and mesh stay as they are while atoms move a
    little. A cluster goes by pairs (no mesh) where those cost less. Processes that share a structure agree on its
    extents.

    Parameters
    ----------
    fractional, cell
        (n_atoms, 3) in units of the cell vectors (3, 3).
    smearing
        Width of the widest Gaussian in the kernel, Angstrom.
    mesh_shape_for
        Function that chooses the mesh of a cell (3, 3).
    """
    open_axes = tuple(axis for axis, periodic in enumerate(pbc) if not periodic)
    # in double precision on the CPU: extents are rounded, and must not depend on the precision of the model
    fixed = cell.detach().double().cpu()
    normals = open_directions(fixed[None], open_axes)[0]
    across = fractional.detach().double().cpu() @ fixed @ normals.T  # (n_atoms, n_open)
    # processes exchange maxima alone: the minimum is that of the negative
    lowest, highest = -_largest(-across, exchange), _largest(across, exchange)
    extents = _stepped(highest - lowest)
    from_middle = (across - 0.5 * (lowest + highest)).norm(dim=1, keepdim=True)
    widest = float(_stepped(2 * _largest(from_middle, exchange)))
    margin = _TRUNCATION_MARGIN * smearing
    # two bounds on the largest distance: the diagonal of the extents, and twice the distance from the middle
    truncation = min(float(extents.norm()), widest) + margin
    lengths = tuple((extents + truncation + margin).tolist())
    layout = Layout(None, open_axes, lengths, truncation)
    mesh_shape = mesh_shape_for(padded_cell(fixed[None], layout)[0].numpy())
    if len(open_axes) == len(pbc) and len(across) ** 2 < _PAIRS_PER_MESH_POINT * math.prod(mesh_shape):
        return Layout(None)
    return Layout(mesh_shape, open_axes, lengths, truncation)


def _stepped(extent: Tensor) -> Tensor:
    """Round an extent up in steps of 1 Angstrom, plus 1 Angstrom; the steps lie where no builder puts atoms.

    Flat sheets and layers of a round lattice constant have whole numbers as extents: a step there would make the energy
    jump as soon as an atom moves.
    """
    return torch.ceil(extent - _STEP_OFFSET) + _STEP_OFFSET + 1.0


def _largest(values: Tensor, exchange: Exchange | None) -> Tensor:
    """Return the largest value of each column over all atoms, (n,); zeros without any."""
    largest = values.amax(dim=0) if len(values) else values.new_full(values.shape[1:], -torch.inf)
    if exchange is not None:
        largest = exchange.largest(largest)
    return torch.where(largest == -torch.inf, 0.0, largest)


def open_directions(cell: Tensor, open_axes: Sequence[int]) -> Tensor:
    """Return unit vectors perpendicular to the periodic ones and to each other, (n_structures, n_open, 3).

    They follow the periodic vectors alone, and differentiably.
    """
    periodic = [axis for axis in range(3) if axis not in open_axes]
    if not periodic:
        return torch.eye(3).to(cell).expand(len(cell), 3, 3)
    first = cell[:, periodic[0]]
    if len(periodic) == 2:
        normal = torch.linalg.cross(first, cell[:, periodic[1]])
        return (normal / normal.norm(dim=-1, keepdim=True))[:, None]
    along = first / first.norm(dim=-1, keepdim=True)
    # the Cartesian axis that is least along the wire; the bias breaks ties, at which a small strain would turn the box
    least = (along.detach().abs() - along.new_tensor([0.2, 0.1, 0.0])).argmin(dim=-1)
    axis = torch.nn.functional.one_hot(least, 3).to(along)
    across = torch.linalg.cross(along, axis)
    across = across / across.norm(dim=-1, keepdim=True)
    return torch.stack([across, torch.linalg.cross(along, across)], dim=1)


def padded_cell(cell: Tensor, layout: Layout) -> Tensor:
    """Replace the open vectors of cells (n_structures, 3, 3) by the sides of the layout's box, Angstrom."""
    lengths = cell.new_tensor(layout.lengths)
    sides = open_directions(cell, layout.open_axes) * lengths[:, None]
    rows = list(cell.unbind(dim=1))
    for index, axis in enumerate(layout.open_axes):
        rows[axis] = sides[:, index]
    return torch.stack(rows, dim=1)


def wave_numbers(cell: Tensor, mesh_shape: tuple[int, ...], layouts: Sequence[Layout]) -> WaveNumbers:
    """Return the waves of the half mesh for padded cells (n_structures, d, d); layouts may differ in lengths alone."""
    d, open_axes = len(mesh_shape), layouts[0].open_axes
    periodic_squared = squared_wave_numbers(cell, mesh_shape, [axis for axis in range(d) if axis not in open_axes])
    if not open_axes:
        return WaveNumbers(periodic_squared, d)
    # sides of the box are perpendicular to each other and to periodic vectors: components of waves are 2 pi m / length
    lengths = cell.new_tensor([layout.lengths for layout in layouts])[:, :, None, None, None]
    indices = wave_indices(mesh_shape, like=cell)
    open_squared = cell.new_zeros(len(cell), 1, 1, 1)
    for column, axis in enumerate(open_axes):
        open_squared = open_squared + (2 * math.pi * indices[axis] / lengths[:, column]) ** 2
    truncation = cell.new_tensor([layout.truncation for layout in layouts])[:, None, None, None]
    squared = periodic_squared + open_squared
    return WaveNumbers(squared, d, len(open_axes), periodic_squared, open_squared, truncation)
