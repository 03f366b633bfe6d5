"""Plan of a step without autograd: arrays made from a neighbor list once and used until neighbors or cell change."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lrc_ase.layer.lattice import volume
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.owners import Owners
from lrc_ase.structures.vectors import PairArrays

__all__ = ["Plan"]


@dataclass(eq=False)
class Plan:
    """One structure with its local atoms sorted by element, so that those of an element are a range; ghosts follow."""

    source: Graph
    """Graph that the plan was made for. Its positions are those of that moment."""
    graph: Graph
    """The same with sorted atoms."""
    order: np.ndarray | None
    """Atom in each row of the sorted order, (n_atoms,); None if the local atoms are sorted already."""
    rank: np.ndarray | None
    """Row of each atom in the sorted order, (n_atoms,)."""
    pairs: PairArrays = field(init=False)
    cell: np.ndarray = field(init=False)
    """As arrays for the kernels of `lrc_ase.structures.vectors`."""
    volume: float = field(init=False)
    """Of the cell, Angstrom^3."""
    shape: tuple[int, ...] = field(init=False)
    """Of the vectors to neighbors."""

    def __post_init__(self) -> None:
        graph = self.graph
        neighbors, shifts, structure = (each.contiguous() for each in (graph.neighbors, graph.shifts, graph.structure))
        self.pairs = neighbors.numpy(), shifts.numpy(), structure.numpy()
        self.volume = float(volume(graph.cell)[0])
        self.cell, self.shape = graph.cell.contiguous().numpy(), (*neighbors.shape, 3)

    @classmethod
    def of(cls, graph: Graph) -> Plan:
        """Sort the local atoms of a graph with one structure."""
        species = graph.of_local(graph.species)
        if bool((species[1:] >= species[:-1]).all()):
            return cls(graph, graph, None, None)
        of_local = torch.argsort(species, stable=True)
        order = torch.cat([of_local, torch.arange(graph.n_local, graph.n_atoms)])
        rank = torch.argsort(order)
        ordered = replace(
            graph,
            positions=graph.positions[order],
            species=graph.species[order],
            neighbors=rank[graph.neighbors[of_local]],
            shifts=graph.shifts[of_local],
            neighbor_mask=graph.neighbor_mask[of_local],
            owners=None if graph.owners is None else _OwnersOfSorted(graph.owners, order, rank),
        )
        return cls(graph, ordered, order.numpy(), rank.numpy())

    def serves(self, graph: Graph) -> bool:
        """Return True if only the positions of a graph differ from those of `source`."""
        source = self.source
        # identity: a neighbor list hands out the same tensors until its next search
        return (
            graph.neighbors is source.neighbors
            and graph.shifts is source.shifts
            and graph.neighbor_mask is source.neighbor_mask
            and graph.species is source.species
            and graph.cell is source.cell
            and graph.pbc is source.pbc
            and graph.charge is source.charge
            and graph.mesh_shapes == source.mesh_shapes
            and graph.tables is source.tables
            and graph.owners is source.owners
            and graph.exchange is source.exchange
        )

    def sort(self, values: np.ndarray) -> np.ndarray:
        """Bring values of atoms to the sorted order."""
        return values if self.order is None else values[self.order]

    def unwrapped(self, graph: Graph, positions: np.ndarray) -> np.ndarray:
        """Return positions of the images that count in the polarization, from those of the sorted local atoms."""
        if graph.images is None:
            return positions
        return positions + np.einsum("ij,jk->ik", self.sort(graph.images.numpy())[: len(positions)], self.cell[0])

    def unsort(self, values: np.ndarray) -> np.ndarray:
        """Return a copy of values of sorted atoms, all or the local ones, in the order of the graph."""
        return values.copy() if self.rank is None else values[self.rank[: len(values)]]


class _OwnersOfSorted:
    """Communication of another object with the owners of ghosts (`Owners`), for atoms in sorted order."""

    def __init__(self, owners: Owners, order: Tensor, rank: Tensor) -> None:
        self._owners, self._order, self._rank = owners, order, rank

    def sum_to_owners(self, values: Tensor) -> Tensor:
        summed = self._owners.sum_to_owners(values[self._rank])
        return summed[self._order[: len(summed)]]

    def copy_to_ghosts(self, values: Tensor) -> Tensor:
        return self._owners.copy_to_ghosts(values[self._rank[: len(values)]])[self._order]
