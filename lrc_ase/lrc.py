r"""The long-range convolution layer: all-to-all sums of a trainable kernel in near-linear time.

For every atom i, channel by channel and over all periodic images,

.. math:: u_i = \sum_j \phi_\theta(x_i - x_j) f_j
             = \frac{1}{V} \sum_m \hat\phi_\theta(k_m) \Big[\sum_j f_j e^{-ik_m\cdot x_j}\Big] e^{ik_m\cdot x_i},

Algorithm 1 of Peng, Lin, Ying and Zepeda-Nunez (arXiv:2010.05295). Three ways to the same number: `mesh` (FFT), `ewald`
(the k-sum term by term, without window error) and `direct` (pairs in open space).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from .accuracy import mesh_quality
from .boundaries import Layout, slab_layout
from .ewald import ewald_sum
from .lattice import mesh_shape_for_spacing
from .mesh import MultiplierTables, Stencil, convolve
from .multipliers import Multiplier
from .windows import Window

__all__ = ["LongRangeConvolution"]

Method = Literal["mesh", "ewald", "direct"]


class LongRangeConvolution(nn.Module):
    """Convolve point weights with a trainable kernel; see the module's formula.

    Parameters
    ----------
    multiplier
        The kernel, with one channel per channel of the weights.
    accuracy
        Relative error of the forces; chooses window and mesh spacing from `smearing`.
    smearing
        Width of the Gaussian in the multiplier, Angstrom; needed where the layer chooses the mesh.
    mesh_shape, window
        Fix both by hand instead, as the paper does for kernels without smearing.
    method
        'mesh' in periodic directions; structures without any go by 'direct' pair sums. 'ewald' replaces the mesh by
        exact sums over the same waves.
    remove_self
        Leave the atom's own kernel value phi(0) out of the sum (its periodic images stay).
    """

    def __init__(
        self,
        multiplier: Multiplier,
        *,
        accuracy: float = 1e-4,
        smearing: float | None = None,
        mesh_shape: tuple[int, ...] | None = None,
        window: Window | None = None,
        method: Method = "mesh",
        remove_self: bool = True,
    ) -> None:
        super().__init__()
        if method not in ("mesh", "ewald", "direct"):
            raise ValueError(f"`method` must be 'mesh', 'ewald' or 'direct', got {method!r}")
        if smearing is not None:
            quality = mesh_quality(accuracy, smearing)
            window = window or quality.window
            self.spacing: float | None = quality.spacing
        else:
            self.spacing = None
        if method != "direct" and self.spacing is None and mesh_shape is None:
            raise ValueError("give either `smearing`, from which the mesh follows, or `mesh_shape`")
        if method == "mesh" and window is None:
            raise ValueError("`window` must be given together with `mesh_shape` when there is no `smearing`")
        self.multiplier = multiplier
        self.smearing = smearing or 0.0
        self.mesh_shape = mesh_shape
        self.window = window
        self.method = method
        self.remove_self = remove_self
        self._tables = MultiplierTables(window if method == "mesh" else None)

    def forward(
        self,
        weights: Tensor,
        fractional: Tensor,
        cell: Tensor,
        *,
        structure: Tensor | None = None,
        pbc: Tensor | None = None,
        mesh_shapes: Sequence[tuple[int, ...]] | None = None,
    ) -> Tensor:
        """Field u at the atoms.

        Parameters
        ----------
        weights
            (n_atoms, n_channels).
        fractional
            Coordinates in units of the cell vectors, (n_atoms, d). Kept apart from `cell` because they do not change
            under a homogeneous strain: the strain derivative acts on the wave numbers and the volume alone.
        cell
            Cell vectors as rows, (n_structures, d, d), Angstrom; open directions perpendicular to the others.
        structure
            Structure of each atom, (n_atoms,); left out for a single one.
        pbc
            Periodic directions, (n_structures, d); left out when all are.
        mesh_shapes
            A mesh for each fully periodic structure, to hold it while the cell changes a little.

        Returns
        -------
        Tensor
            (n_atoms, n_channels).
        """
        d = fractional.shape[-1]
        self._check(weights, fractional, cell)
        if structure is None:
            structure = torch.zeros(len(fractional), dtype=torch.int64, device=fractional.device)
        periodic = [(True,) * d] * len(cell) if pbc is None else [tuple(row) for row in pbc.tolist()]
        groups: dict[tuple, list[int]] = {}
        layouts = []
        for index in range(len(cell)):
            given = None if mesh_shapes is None else mesh_shapes[index]
            layout = self._layout(fractional[structure == index], cell[index], periodic[index], given)
            layouts.append(layout)
            groups.setdefault((layout.open_axis, layout.mesh_shape), []).append(index)
        field = torch.zeros_like(weights)
        for (open_axis, mesh_shape), members in groups.items():
            chosen = torch.tensor(members, device=structure.device)
            atoms: Tensor | None = None
            own_structure = structure
            if len(groups) > 1:
                position_in_group = structure.new_full((len(cell),), -1)
                position_in_group[chosen] = torch.arange(len(members), device=structure.device)
                atoms = (position_in_group[structure] >= 0).nonzero()[:, 0]
                own_structure = position_in_group[structure[atoms]]
            own_cell = cell[chosen]
            own_weights = weights if atoms is None else weights[atoms]
            own_fractional = fractional if atoms is None else fractional[atoms]
            if mesh_shape is None:
                own_field = self._direct(own_weights, own_fractional, own_cell, own_structure)
            else:
                scale = cell.new_tensor([layouts[index].padding for index in members])
                range_ = cell.new_tensor([layouts[index].truncation for index in members])
                own_fractional = own_fractional / scale[own_structure]
                own_cell = own_cell * scale[:, :, None]
                table = self._tables(self.multiplier, own_cell, mesh_shape, open_axis, range_)
                convolve = self._mesh if self.method == "mesh" else ewald_sum
                own_field = convolve(own_weights, own_fractional, own_structure, table, mesh_shape)
                if self.remove_self:
                    own_field = own_field - self.multiplier.at_origin(d).to(own_weights) * own_weights
            field = own_field if atoms is None else field.index_copy(0, atoms, own_field)
        return field

    def mesh_shape_for(self, cell: np.ndarray, held: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Mesh of a periodic cell; `held` is kept while fine enough and at most a quarter finer than needed."""
        if self.mesh_shape is not None:
            return self.mesh_shape
        assert self.spacing is not None
        assert self.window is not None
        lengths = np.linalg.norm(cell, axis=-1)
        needed = mesh_shape_for_spacing(lengths, self.spacing, minimum=self.window.n_points)
        if held is not None and all(
            length / n <= self.spacing and n <= 1.25 * m for length, n, m in zip(lengths, held, needed, strict=True)
        ):
            return held
        return needed

    def _layout(self, fractional: Tensor, cell: Tensor, pbc: tuple[bool, ...], given: tuple[int, ...] | None) -> Layout:
        """Layout of one structure."""
        if not any(pbc) or self.method == "direct":
            if any(pbc):
                raise ValueError(f"method='direct' sums pairs in open space, got periodic directions {pbc}")
            return Layout(None, None, (1.0,) * len(pbc), 0.0)
        if all(pbc):
            return Layout(None, given or self.mesh_shape_for(cell.detach().cpu().numpy()), (1.0,) * len(pbc), 0.0)
        return slab_layout(fractional, cell, pbc, self.smearing, self.mesh_shape_for)

    def _mesh(
        self, weights: Tensor, fractional: Tensor, structure: Tensor, table: Tensor, mesh_shape: tuple[int, ...]
    ) -> Tensor:
        assert self.window is not None
        stencil = Stencil(self.window, mesh_shape, structure, table.shape[0])
        training = any(parameter.requires_grad for parameter in self.multiplier.parameters())
        return convolve(weights, fractional, table, stencil, training=training)

    def _direct(self, weights: Tensor, fractional: Tensor, cell: Tensor, structure: Tensor) -> Tensor:
        fields = []
        for index in range(len(cell)):
            own = structure == index
            positions = fractional[own] @ cell[index]
            fields.append(_pair_sum(self.multiplier, weights[own], positions))
        field = torch.cat(fields)
        if not self.remove_self:
            field = field + self.multiplier.at_origin(fractional.shape[-1]).to(weights) * weights
        return field

    def _check(self, weights: Tensor, fractional: Tensor, cell: Tensor) -> None:
        n_channels, d = self.multiplier.n_channels, fractional.shape[-1]
        if weights.ndim != 2 or weights.shape != (len(fractional), n_channels):
            raise ValueError(
                f"`weights` must have shape ({len(fractional)}, {n_channels}), got {tuple(weights.shape)}: one row per "
                "atom, one column per channel of the multiplier"
            )
        if cell.ndim != 3 or cell.shape[1:] != (d, d):
            raise ValueError(f"`cell` must have shape (n_structures, {d}, {d}), got {tuple(cell.shape)}")


def _pair_sum(multiplier: Multiplier, weights: Tensor, positions: Tensor) -> Tensor:
    """Sum over pairs in open space, without i = j."""
    n_atoms = len(positions)
    if n_atoms < 2:
        return torch.zeros_like(weights) * positions.sum()
    first, second = torch.triu_indices(n_atoms, n_atoms, 1, device=positions.device)
    distances = torch.linalg.norm(positions[first] - positions[second], dim=-1)
    kernel = multiplier.radial(distances).to(weights)
    field = torch.zeros_like(weights).index_add(0, first, kernel * weights[second])
    return field.index_add(0, second, kernel * weights[first])
