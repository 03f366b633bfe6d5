r"""The long-range convolution layer: all-to-all sums of a trainable kernel in near-linear time.

For every atom i, channel by channel and over all periodic images,

.. math:: u_i = \sum_j \phi_\theta(x_i - x_j) f_j
             = \frac{1}{V} \sum_m \hat\phi_\theta(k_m) \Big[\sum_j f_j e^{-ik_m\cdot x_j}\Big] e^{ik_m\cdot x_i},

Algorithm 1 of Peng, Lin, Ying and Zepeda-Nunez (arXiv:2010.05295); for a matrix of kernels
:math:`u_{ia} = \sum_b \sum_j \phi_{ab}(x_i - x_j) f_{jb}`. Directions are periodic or open, any of them. Three ways
to the same number: `mesh` (FFT), `ewald` (the k-sum term by term, without window error) and `direct` (pairs in open
space).

A call goes through these steps: check the input; lay out each structure (`boundaries`: a mesh of its cell, of a padded
box, or none); group structures that share a mesh; for each group make the table of the kernel (`tables`) and sum
(`mesh`, `ewald` or `direct`); take out the self term.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.layer.accuracy import mesh_quality
from lrc_ase.layer.boundaries import Layout, open_layout, padded_cell, pairs_cost_less
from lrc_ase.layer.energies import add_self_term, joined, open_sums, split_energies
from lrc_ase.layer.ewald import ewald_sum
from lrc_ase.layer.exchange import Exchange
from lrc_ase.layer.inputs import Boundary, check_inputs, check_layer
from lrc_ase.layer.kernels import Multiplier
from lrc_ase.layer.lattice import fractional_coordinates, held_mesh_shape, inverse_cell
from lrc_ase.layer.memory import check_mesh_memory
from lrc_ase.layer.mesh import FieldAndEnergy, Stencil, convolve, field_and_energy
from lrc_ase.layer.tables import MultiplierTables
from lrc_ase.layer.windows import Window

__all__ = ["FieldAndEnergy", "LongRangeConvolution"]

Method = Literal["mesh", "ewald", "direct"]
_HIGHEST_ACCURACY = 1e-10


class LongRangeConvolution(nn.Module):
    """Convolve point weights with a trainable kernel; see the module's formula.

    Parameters
    ----------
    multiplier
        The kernel: one channel per channel of the weights, or a `Matrix`.
    accuracy
        Relative error of the forces; chooses window and mesh spacing from `smearing`.
    smearing
        Width of the Gaussian in the multiplier, Angstrom; needed where the layer chooses the mesh.
    mesh_shape, window
        Fix both by hand instead, as the paper does for kernels without smearing.
    method
        'mesh', 'ewald' for the exact sum over the same waves, or 'direct' for a sum over pairs in structures without
        periodic directions. The first two also sum clusters over pairs if that is cheaper, or without `smearing`.
    remove_self
        Leave the kernel at distance zero, phi(0) f_i, out of the sum of atom i. Its periodic images stay.

    Raises
    ------
    ValueError
        Arguments that do not determine a mesh, or a mesh that cannot resolve the kernel.
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
        check_layer(multiplier, window, method)
        if smearing is not None:
            mesh_quality(accuracy, smearing)  # so that errors name the numbers that the user gave
            # some kernels weigh high waves more than the table of accuracies assumes, and get a finer mesh
            quality = mesh_quality(max(accuracy * multiplier.accuracy_factor, _HIGHEST_ACCURACY), smearing)
            window = window or quality.window
            self.spacing: float | None = quality.spacing
        else:
            self.spacing = None
        if method != "direct" and self.spacing is None and mesh_shape is None:
            raise ValueError("give either `smearing`, from which the mesh follows, or `mesh_shape`")
        if method == "mesh" and window is None:
            raise ValueError("`window` must be given together with `mesh_shape` when there is no `smearing`")
        if smearing is not None and multiplier.smearing < smearing * (1 - 1e-9):  # equal up to rounding is fine
            raise ValueError(
                f"`smearing` of the layer ({smearing}) must not exceed that of its multiplier ({multiplier.smearing}): "
                "a mesh chosen for the wider Gaussian would not resolve the kernel"
            )
        self.multiplier = multiplier
        self.smearing = smearing or 0.0  # 0: none, mesh and window by hand
        self.mesh_shape = mesh_shape
        self.window = window
        self.method = method
        self.remove_self = remove_self

    def forward(
        self,
        weights: Tensor,
        fractional: Tensor,
        cell: Tensor,
        *,
        structure: Tensor | None = None,
        pbc: Tensor | None = None,
        mesh_shapes: Sequence[tuple[int, ...]] | None = None,
        exchange: Exchange | None = None,
        tables: MultiplierTables | None = None,
        cell_on_host: Tensor | None = None,
        structure_on_host: Tensor | None = None,
    ) -> Tensor:
        """Compute the field u at the atoms.

        Parameters
        ----------
        weights
            (n_atoms, n_inputs).
        fractional
            Coordinates in units of the cell vectors, (n_atoms, d): x A^-1 for Cartesian x and the rows A of `cell`.
            They do not change under a homogeneous strain, whose derivative acts on wave numbers and volume alone.
        cell
            Cell vectors as rows, (n_structures, d, d), Angstrom. Those of open directions only say what `fractional`
            means: points in open space may have Cartesian coordinates and the unit matrix.
        structure
            Structure of each atom, (n_atoms,); left out for a single one.
        pbc
            Periodic directions, (n_structures, d); left out when all are.
        mesh_shapes
            A mesh for each fully periodic structure, to hold it while the cell changes a little.
        exchange
            Processes that share the one structure, each with some of its atoms: the field is that of the weights of all
            processes. Gradients by cell and multiplier are shares that sum to the whole.
        tables
            Tables of a frozen kernel from earlier calls. Calls with the same object and cell, as in dynamics, do not
            evaluate the kernel on the mesh again. The layer itself keeps nothing.
        cell_on_host, structure_on_host
            Copies of `cell` and `structure` on the host, if these are on another device. The call then need not wait
            for the device. `pbc` may be on the host in any case.

        Returns
        -------
        Tensor
            (n_atoms, n_outputs).

        Raises
        ------
        ValueError
            Shapes that do not fit, coordinates that are not finite, a singular cell, a kernel that has no form in this
            boundary, a mesh larger than the memory, processes that would share what has no mesh.
        """
        boundary = Boundary(structure, pbc, mesh_shapes, exchange, tables, cell_on_host, structure_on_host)
        return self._sum(weights, fractional, cell, boundary, n_energies=0).field

    def field_and_energy(
        self,
        weights: Tensor,
        fractional: Tensor,
        cell: Tensor,
        *,
        n_energies: int,
        gradient: bool = False,
        structure: Tensor | None = None,
        pbc: Tensor | None = None,
        mesh_shapes: Sequence[tuple[int, ...]] | None = None,
        exchange: Exchange | None = None,
        tables: MultiplierTables | None = None,
        cell_on_host: Tensor | None = None,
        structure_on_host: Tensor | None = None,
    ) -> FieldAndEnergy:
        r"""Compute :math:`\tfrac12\sum_i f_i u_i` of the first `n_energies` channels, and the field of the others.

        One convolution computes both, and forces of the energies need no second one. A training step on forces
        convolves twice; energies computed from the field would need more. With `gradient`, the result also holds the
        gradient of the energies' potentials at the atoms, by Cartesian coordinates. Other arguments as in `forward`.

        Raises
        ------
        ValueError
            More energies than channels, energies of a `Matrix`, a gradient with method='ewald' or of a kernel without
            one in open space, and what `forward` raises.
        """
        if not 0 <= n_energies <= self.multiplier.n_channels:
            raise ValueError(
                f"`n_energies` must lie between 0 and the number of channels ({self.multiplier.n_channels}), got "
                f"{n_energies}"
            )
        if self.multiplier.is_matrix and n_energies:
            raise ValueError("energies 1/2 sum f u need one field for each weight, got a Matrix: use `forward`")
        if gradient and self.method == "ewald":
            raise ValueError("the sum over waves, method='ewald', gives no gradients: use method='mesh'")
        boundary = Boundary(structure, pbc, mesh_shapes, exchange, tables, cell_on_host, structure_on_host)
        return self._sum(weights, fractional, cell, boundary, n_energies, gradient=gradient)

    def _sum(
        self,
        weights: Tensor,
        fractional: Tensor,
        cell: Tensor,
        boundary: Boundary,
        n_energies: int,
        *,
        gradient: bool = False,
    ) -> FieldAndEnergy:
        """Sum each group of structures with the same mesh and the same open directions."""
        structure, pbc, mesh_shapes, exchange, tables, cell_on_host, _ = boundary
        cells = check_inputs(weights, fractional, cell, boundary, self.multiplier.n_inputs)
        d = fractional.shape[-1]
        if exchange is not None and (len(cells) != 1 or self.method != "mesh" or (pbc is not None and not pbc.any())):
            raise ValueError(
                f"processes share one structure with a mesh, got {len(cells)} structures, method='{self.method}', "
                f"periodic directions {None if pbc is None else pbc.tolist()}: evaluate it in one process"
            )
        if structure is None:
            structure = _one_structure(fractional.shape[0], fractional.device)  # cached: every step asks
            boundary = boundary._replace(structure=structure)
        periodic = None if pbc is None else [tuple(row) for row in pbc.tolist()]  # one copy from the device
        # structures with the same mesh are summed together: one FFT call, one pass over their atoms
        groups: dict[tuple[Any, ...], list[int]] = {}
        layouts, sizes = [], None
        for index in range(len(cells)):
            if (periodic is None or all(periodic[index])) and self.method != "direct":
                held = None if mesh_shapes is None else mesh_shapes[index]  # no jumps of the energy as the cell changes
                layout = Layout(held or self.mesh_shape_for(cells[index]))
            else:
                of_structure = (True,) * d if periodic is None else periodic[index]
                sizes = sizes or boundary.sizes(len(cells))
                if self._pairs_alone(of_structure, sizes[index]):
                    layout = Layout(None)
                else:
                    box = fractional[structure == index], cell[index], of_structure
                    layout = open_layout(*box, self._widest, self.mesh_shape_for, exchange)
            layouts.append(layout)
            groups.setdefault((layout.open_axes, layout.mesh_shape), []).append(index)  # in order of appearance
        options = exchange, tables or MultiplierTables(), n_energies, gradient
        if len(groups) == 1:
            return self._group(weights, fractional, cell, structure, layouts, sizes, *options, cell_on_host)
        sums = []
        for members in groups.values():
            chosen = torch.tensor(members, device=structure.device)
            # old index of a structure -> index in its group, -1 in others
            position_in_group = structure.new_full((len(cell),), -1)
            position_in_group[chosen] = torch.arange(len(members), device=structure.device)
            atoms = (position_in_group[structure] >= 0).nonzero()[:, 0]
            of_group, sizes_of_group = [layouts[i] for i in members], sizes and [sizes[i] for i in members]
            inputs = weights[atoms], fractional[atoms], cell[chosen], position_in_group[structure[atoms]]
            sums.append((atoms, chosen, self._group(*inputs, of_group, sizes_of_group, *options)))
        return joined(sums, len(weights), len(cell))

    def mesh_shape_for(self, cell: np.ndarray, held: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return the mesh of a periodic cell (d, d): `held` as long as it serves, see `held_mesh_shape`."""
        if self.mesh_shape is not None:
            return self.mesh_shape
        assert self.spacing is not None
        assert self.window is not None
        return held_mesh_shape(cell.tobytes(), cell.dtype.name, self.spacing, self.window.n_points, held)

    def _group(
        self,
        weights: Tensor,
        fractional: Tensor,
        cell: Tensor,
        structure: Tensor,
        layouts: Sequence[Layout],
        sizes: Sequence[int] | None,
        exchange: Exchange | None,
        tables: MultiplierTables,
        n_energies: int,
        gradient: bool,
        cell_on_host: Tensor | None = None,
    ) -> FieldAndEnergy:
        """Sum structures with the same mesh and the same open directions."""
        mesh_shape, open_axes = layouts[0].mesh_shape, layouts[0].open_axes
        multiplier, dimension = self.multiplier, fractional.shape[-1]
        if mesh_shape is None:
            assert sizes is not None
            sums = open_sums(multiplier, weights, fractional, cell, structure, sizes, n_energies, gradient=gradient)
        else:
            if open_axes:
                # vacuum is part of the box, not of the user's cell: atoms move to coordinates of the padded one
                padded = torch.cat([padded_cell(cell[i : i + 1], layout) for i, layout in enumerate(layouts)])
                positions = torch.einsum("ni,nij->nj", fractional, cell[structure])  # (n_atoms, d)
                fractional, cell, cell_on_host = fractional_coordinates(positions, padded, structure), padded, None
            n_channels = max(multiplier.n_channels, multiplier.n_inputs)  # a matrix holds more kernels than weights
            check_mesh_memory(mesh_shape, len(cell), n_channels, weights.dtype, weights.device)
            window = self.window if self.method == "mesh" else None  # the exact sum has no window to divide by
            table = tables.table(multiplier, window, cell, mesh_shape, layouts, cell_on_host)
            if self.method == "ewald":
                field = ewald_sum(weights, fractional, structure, table, mesh_shape)
                sums = split_energies(field, weights, structure, len(cell), n_energies)
            else:
                assert window is not None
                stencil = Stencil(window, mesh_shape, structure, len(cell), exchange)  # to spread and to gather
                if n_energies:
                    sums = field_and_energy(weights, fractional, table, stencil, n_energies, gradient=gradient)
                    if sums.gradient is not None:
                        # by Cartesian coordinates x = s A: (n_atoms, d, d) @ (n_atoms, d, n_energies)
                        inverse = inverse_cell(cell)[structure]
                        sums = sums._replace(gradient=torch.matmul(inverse, sums.gradient))
                else:
                    field = convolve(weights, fractional, table, stencil)
                    sums = split_energies(field, weights, structure, len(cell), 0)  # 0: no energies, all field
        pairs_alone = mesh_shape is None
        if pairs_alone == self.remove_self:  # pair sums leave i = j out, sums over waves hold it
            return sums
        at_origin = tables.at_origin(multiplier, dimension, weights.dtype, weights.device)
        return add_self_term(sums, at_origin if pairs_alone else -at_origin, weights, structure)

    def _pairs_alone(self, pbc: tuple[bool, ...], n_atoms: int) -> bool:
        """Return True if a structure with these directions is summed over pairs, without a mesh."""
        if self.method == "direct" and any(pbc):
            raise ValueError(f"method='direct' sums pairs in open space, got periodic directions {pbc}")
        if not any(pbc) and (self.method == "direct" or self.smearing == 0 or len(pbc) != 3):
            return True
        if len(pbc) != 3:
            raise ValueError(
                f"periodic directions {pbc}: partly open boundaries are there in three dimensions alone; make all "
                f"{len(pbc)} directions periodic, or none"
            )
        if self.smearing == 0:
            raise ValueError(
                "a slab or wire needs a kernel with `smearing` > 0: give it to the multiplier and the layer"
            )
        return not any(pbc) and self.sums_pairs(n_atoms)

    def sums_pairs(self, n_atoms: int) -> bool:
        """Return True if an open structure of so few atoms is summed by pairs wherever the atoms are."""
        return self.spacing is not None and pairs_cost_less(n_atoms, self._widest, self.spacing)

    @property
    def _widest(self) -> float:
        """Return the width of the widest Gaussian: clouds end 7 widths from their atoms, from which margins follow."""
        return max(self.smearing, self.multiplier.largest_smearing)


@lru_cache(maxsize=2)
def _one_structure(n_atoms: int, device: torch.device) -> Tensor:
    """Return the structure of each atom where there is only one, zeros (n_atoms,)."""
    with torch.inference_mode(False):  # it will be used outside of that too
        return torch.zeros(n_atoms, dtype=torch.int64, device=device)
