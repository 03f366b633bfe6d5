"""Structures as the model reads them: tensors of atoms, cells and padded neighbor lists.

If several processes share a structure, the graph of each process holds its local atoms, followed by ghosts: copies of
atoms of other processes, and of periodic images, within reach of the local atoms. Ghosts have no row of neighbors.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrc_ase.layer.exchange import Exchange
from lrc_ase.structures.owners import Owners, copied_to_ghosts, summed_to_owners

if TYPE_CHECKING:
    from lrc_ase.layer.tables import MultiplierTables

__all__ = ["Graph", "HostSide", "collate"]


@dataclass(frozen=True, eq=False)
class HostSide:
    """Copies on the host of fields of a graph on another device, so that no decision waits for the device."""

    species: Tensor
    cell: Tensor
    pbc: Tensor
    charge: Tensor
    structure: Tensor
    of: tuple[Tensor, ...]
    """The fields themselves, in this order."""


@dataclass(frozen=True)
class Graph:
    """One structure or a batch of several, with neighbors in padded rows.

    The vector from atom `i` to its neighbor in column `k` is
    ``positions[neighbors[i, k]] + shifts[i, k] @ cell[structure[i]] - positions[i]``.
    """

    positions: Tensor
    """Cartesian coordinates in Angstrom, float64 (n_atoms, 3); those of ghosts last."""
    species: Tensor
    """Index of each atom's element in the model's list of elements, int64 (n_atoms,)."""
    structure: Tensor
    """Index of the structure an atom belongs to, ascending, int64 (n_atoms,)."""
    cell: Tensor
    """Cell vectors as rows, (n_structures, 3, 3). Never singular: open directions carry a completed vector."""
    pbc: Tensor
    """Periodic directions, bool (n_structures, 3)."""
    charge: Tensor
    """Total charge of each structure in e, (n_structures,)."""
    neighbors: Tensor
    """Neighbors of each atom but the ghosts, int64 (n_local, n_neighbors). Padding points at the atom itself."""
    shifts: Tensor
    """Lattice translation of each neighbor in units of the cell vectors, whole numbers, (n_local, n_neighbors, 3)."""
    neighbor_mask: Tensor
    """False where a column is padding, bool (n_local, n_neighbors)."""
    mesh_shapes: tuple[tuple[int, ...], ...] | None = None
    """Mesh of the long-range part for each structure, to hold it while a cell changes; None lets the model choose."""
    exchange: Exchange | None = None
    """Processes that share the structure; None where this one holds it all."""
    owners: Owners | None = None
    """Communication between ghosts and the atoms that they stand for; None without ghosts."""
    field: Tensor | None = None
    """Uniform electric field on each structure in V/Angstrom, (n_structures, 3); None without one."""
    images: Tensor | None = None
    """Whole cells from each atom to the image that counts in the polarization, (n_atoms, 3); None for zeros.
    ``positions + images @ cell`` are unwrapped positions: continuous where `positions` jump through a boundary."""
    tables: MultiplierTables | None = None
    """Tables of the long-range kernel in the cells seen last, of whoever evaluates a structure again and again."""
    host_side: HostSide | None = None
    """Copies on the host, of a graph that `to` moved to another device; read `on_host` instead."""

    @property
    def on_host(self) -> HostSide | None:
        """Return the copies on the host; None if there are none, or if a field was replaced since."""
        copies, fields_now = self.host_side, self.known_on_host
        if copies is None or any(now is not then for now, then in zip(fields_now, copies.of, strict=True)):
            return None
        return copies

    @property
    def known_on_host(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the fields that have copies on the host, in the order of `HostSide`."""
        return self.species, self.cell, self.pbc, self.charge, self.structure

    @property
    def fully_periodic(self) -> bool:
        """Return True if all directions of all structures are periodic."""
        return bool((self.pbc if self.on_host is None else self.on_host.pbc).all())

    @property
    def sizes(self) -> Tensor:
        """Return the number of atoms of each structure, int64 (n_structures,), without a wait for the device."""
        ones = torch.ones_like(self.structure)
        return self.structure.new_zeros(self.n_structures).index_add(0, self.structure, ones)

    def element_counts(self, n_elements: int) -> list[int]:
        """Count the local atoms of each element, indices 0 to `n_elements` - 1."""
        species = self.of_local(self.species if self.on_host is None else self.on_host.species)
        return torch.bincount(species, minlength=n_elements).tolist()

    @property
    def n_atoms(self) -> int:
        return self.positions.shape[0]

    @property
    def n_local(self) -> int:
        """Return the number of atoms with a row of neighbors: all but the ghosts."""
        return self.neighbors.shape[0]

    def of_local(self, values: Tensor) -> Tensor:
        """Return the rows of the local atoms, (n_atoms, ...) -> (n_local, ...)."""
        return values if self.n_local == len(values) else values[: self.n_local]

    def sum_to_owners(self, values: Tensor) -> Tensor:
        """Add values of ghosts to those of the atoms that they stand for, (n_atoms,) -> (n_local,), differentiable.

        Raises
        ------
        ValueError
            The graph has ghosts, but `owners` is None.
        """
        if self.owners is not None:
            return summed_to_owners(values, self.owners)
        if self.n_local < self.n_atoms:
            raise ValueError("charges on ghosts belong to other atoms: give the graph the `owners` of its ghosts")
        return values

    def copy_to_ghosts(self, values: Tensor) -> Tensor:
        """Append the values of the owners for all ghosts, (n_local, ...) -> (n_atoms, ...), differentiable.

        Raises
        ------
        ValueError
            The graph has ghosts, but `owners` is None.
        """
        if self.owners is not None:
            return copied_to_ghosts(values, self.owners)
        if self.n_local < self.n_atoms:
            raise ValueError("ghosts need values of the atoms that they stand for: give the graph their `owners`")
        return values

    @property
    def n_structures(self) -> int:
        return self.cell.shape[0]

    def to(self, device: torch.device | str) -> Graph:
        """Move to `device`. Floating-point fields stay float64: models cast differences, not positions."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device)
        there = replace(self, **moved)
        if self.positions.device.type != "cpu" or there.positions.device.type == "cpu":
            return there
        return replace(there, host_side=HostSide(*self.known_on_host, of=there.known_on_host))

    def at(self, positions: Tensor) -> Graph:
        """Return the graph at other positions, as `dataclasses.replace` does, which checks every field in each step."""
        return self._with(positions=positions)

    def with_images(self, images: Tensor, field: Tensor | None) -> Graph:
        """Return the graph with other `images`, and in another field, in the same way."""
        return self._with(images=images, field=field)

    def _with(self, **changes: Any) -> Graph:
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__, **changes)
        return changed

    def in_cell(self, cell: Tensor) -> Graph:
        """Return the graph in other cells, on the host (n_structures, 3, 3) in float64; its neighbors must fit them."""
        there, host = cell.to(self.cell.device), self.on_host
        if host is not None:
            host = replace(host, cell=cell, of=(self.species, there, self.pbc, self.charge, self.structure))
        return replace(self, cell=there, host_side=host)


def collate(graphs: Sequence[Graph]) -> Graph:
    """Join graphs into one batch; pad rows of neighbors to the longest."""
    if not graphs:
        raise ValueError("`graphs` must hold at least one graph, got none")
    width = max(graph.neighbors.shape[1] for graph in graphs)
    neighbors, shifts, masks, structures = [], [], [], []
    first_atom = first_structure = 0
    for graph in graphs:
        n_atoms, graph_width = graph.neighbors.shape
        # padding points at the atom itself, a valid index; the mask excludes it
        padding = torch.arange(n_atoms, device=graph.neighbors.device)[:, None].expand(n_atoms, width - graph_width)
        neighbors.append(torch.cat([graph.neighbors, padding], dim=1) + first_atom)
        shifts.append(torch.nn.functional.pad(graph.shifts, (0, 0, 0, width - graph_width)))
        masks.append(torch.nn.functional.pad(graph.neighbor_mask, (0, width - graph_width)))
        structures.append(graph.structure + first_structure)
        first_atom += n_atoms
        first_structure += graph.n_structures
    joined = Graph(
        positions=torch.cat([graph.positions for graph in graphs]),
        species=torch.cat([graph.species for graph in graphs]),
        structure=torch.cat(structures),
        cell=torch.cat([graph.cell for graph in graphs]),
        pbc=torch.cat([graph.pbc for graph in graphs]),
        charge=torch.cat([graph.charge for graph in graphs]),
        neighbors=torch.cat(neighbors),
        shifts=torch.cat(shifts),
        neighbor_mask=torch.cat(masks),
        mesh_shapes=_joined_mesh_shapes(graphs),
        field=_joined([graph.field for graph in graphs], [graph.cell[:, 0] for graph in graphs]),
        images=_joined([graph.images for graph in graphs], [graph.positions for graph in graphs]),
    )
    on_host = [graph.on_host for graph in graphs]
    if any(each is None for each in on_host):
        return joined
    return replace(joined, host_side=_joined_host_sides([each for each in on_host if each is not None], joined))


def _joined(values: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor | None:
    """Join tensors, zeros of the shape of `like` for those that are None; None if all of them are."""
    if all(value is None for value in values):
        return None
    return torch.cat(
        [torch.zeros_like(other) if value is None else value for value, other in zip(values, like, strict=True)]
    )


def _joined_host_sides(parts: Sequence[HostSide], graph: Graph) -> HostSide:
    """Join the copies of the graphs that make up a batch."""
    firsts = itertools.accumulate((len(part.cell) for part in parts), initial=0)
    structures = [part.structure + first for part, first in zip(parts, firsts, strict=False)]
    names = "species", "cell", "pbc", "charge"
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return HostSide(**joined, structure=torch.cat(structures), of=graph.known_on_host)


def _joined_mesh_shapes(graphs: Sequence[Graph]) -> tuple[tuple[int, ...], ...] | None:
    joined: tuple[tuple[int, ...], ...] = ()
    for graph in graphs:
        if graph.mesh_shapes is None:
            return None
        joined += graph.mesh_shapes
    return joined
