"""A step on an NVIDIA GPU, recorded once as a CUDA graph and replayed for every further set of positions.

A step launches five hundred small kernels. Below some ten thousand atoms the GPU finishes each sooner than Python can
launch the next: 64 ions take 17 ms, of which the GPU works 2. A CUDA graph launches them all at once. It repeats the
same kernels at the same addresses, so everything that decides which kernels run is fixed when it is recorded: atoms,
mesh and the width of the neighbor lists. Positions and neighbors are copied to those addresses, and so are cells where
they change, as under a barostat. The long-range kernel is then evaluated on the mesh in every step, and stress with it.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from lrc_ase.layer.recording import record
from lrc_ase.layer.tables import MultiplierTables, UnkeptTables
from lrc_ase.models.derivatives import Results, evaluate
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.structures.graph import Graph

__all__ = ["RecordedStep", "fixed_by_recording", "with_spare_columns"]

_SPARE = 8
"""One column in so many is spare, so that lists of a later search fit."""


class RecordedStep:
    """Energy, forces and charges of structures at ever new positions; no dipole or pathless charges.

    Parameters
    ----------
    graph
        The structure or batch, on a CUDA device, moved there by `Graph.to`.
    cell_changes
        True for a step that serves in any cell with the mesh of `graph`, and returns the stress.
    stress
        Return the stress in a fixed cell too.
    """

    def __init__(
        self, model: ShortRangeModel, graph: Graph, *, cell_changes: bool = False, stress: bool = False
    ) -> None:
        # tables of its own, as it reads them by address: others may drop theirs
        tables = UnkeptTables() if cell_changes else MultiplierTables()
        self._graph = replace(with_spare_columns(graph), tables=tables)
        self._neighbors, self._cell = graph.neighbors, graph.cell
        self._cell_changes = cell_changes
        self._fixed = fixed_by_recording(graph, cell=not cell_changes)
        self._stress = (cell_changes or stress) and graph.fully_periodic
        self._model = model
        self._replay = record(self._evaluate, graph.positions.device)

    def _evaluate(self) -> None:
        self._results = evaluate(self._model, self._graph, stress=self._stress)

    def fits(self, graph: Graph) -> bool:
        """Return True if the step serves for `graph`, which may have new positions and neighbors."""
        if graph.neighbors.shape[1] > self._graph.neighbors.shape[1]:
            return False
        if graph.neighbors is self._neighbors and graph.cell is self._cell:
            return True
        return fixed_by_recording(graph, cell=not self._cell_changes) == self._fixed

    def __call__(self, graph: Graph) -> Results:
        """Evaluate a graph that fits."""
        if graph.neighbors is not self._neighbors:
            width = graph.neighbors.shape[1]
            atoms = torch.arange(graph.n_atoms, device=graph.positions.device)
            self._graph.neighbors[:, width:] = atoms[:, None]
            self._graph.neighbors[:, :width] = graph.neighbors
            self._graph.shifts[:, width:] = 0
            self._graph.shifts[:, :width] = graph.shifts
            self._graph.neighbor_mask[:, width:] = False
            self._graph.neighbor_mask[:, :width] = graph.neighbor_mask
            self._neighbors = graph.neighbors
        if graph.cell is not self._cell:
            self._graph.cell.copy_(graph.cell)
            self._cell = graph.cell
        self._graph.positions.copy_(graph.positions)
        self._replay()
        # copies, as the next step overwrites the results
        copies = {field.name: getattr(self._results, field.name) for field in fields(Results)}
        del copies["pathless_charges"]  # zeros where a step that is not recorded has none
        return Results(**{name: value.clone() for name, value in copies.items() if isinstance(value, Tensor)})


def fixed_by_recording(graph: Graph, *, cell: bool = True) -> tuple[object, ...]:
    """Return what a recorded step cannot change: atoms, boundary, charge, mesh, and the cell unless left out."""
    host = graph.on_host
    if host is None:
        raise ValueError("a step is recorded for graphs whose numbers are on the host: move them with `Graph.to`")
    fields = (host.species, host.pbc, host.charge, *((host.cell,) if cell else ()))
    return graph.n_atoms, graph.mesh_shapes, *(each.numpy().tobytes() for each in fields)


def with_spare_columns(graph: Graph) -> Graph:
    """Return a graph with tensors of its own, whose rows of neighbors have some columns of padding more."""
    n_spare = 1 + graph.neighbors.shape[1] // _SPARE
    # padding points at the atom itself, as in `collate`
    atoms = torch.arange(graph.n_atoms, device=graph.neighbors.device)[:, None].expand(-1, n_spare)
    tensors: dict[str, Any] = {
        "neighbors": torch.cat([graph.neighbors, atoms], dim=1),
        "shifts": torch.nn.functional.pad(graph.shifts, (0, 0, 0, n_spare)),
        "neighbor_mask": torch.nn.functional.pad(graph.neighbor_mask, (0, n_spare)),
    }
    for field in fields(graph):
        value = getattr(graph, field.name)
        if isinstance(value, Tensor) and field.name not in tensors:
            tensors[field.name] = value.clone()
    copy = replace(graph, **tensors)
    host = graph.on_host
    return copy if host is None else replace(copy, host_side=replace(host, of=copy.known_on_host))
