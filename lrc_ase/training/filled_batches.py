"""Batches of one size, as a step of training on a GPU needs them that is recorded once for all batches.

Structures without labels, whose atoms have no neighbors, fill up smaller batches, and all structures have the finest
mesh that one of the frames needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lrc_ase.dataset import LabelledGraph, Lazy, collate_labelled
from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.ensemble import members_of
from lrc_ase.models.model import FullRangeModel, ShortRangeModel
from lrc_ase.structures.graph import Graph
from lrc_ase.training.configuration import StageConfiguration

__all__ = ["BatchSize", "common_size"]

_RECORDING_DEVICE = "cuda"
_MOST_ATOMS = 40_000
"""Atoms of a batch up to which it is recorded: with more, Python is ahead of the GPU anyway."""
_MOST_MESH_POINTS = 2**24
"""Points of all meshes of a batch up to which it is recorded."""
_SPARE = 1.15
"""Size of a batch of frames of different compositions, in units of the mean or of the one that did not fit."""
_DISTANCE = 2.0
"""Angstrom between the atoms of a structure that fills up a batch."""


@dataclass(frozen=True)
class BatchSize:
    """Size of all batches of a recording."""

    n_structures: int
    element_counts: tuple[int, ...]
    """Atoms of each element."""
    pbc: tuple[bool, bool, bool]
    frame: tuple[int, ...] | None
    """Atoms of each element in every frame; None if frames differ."""
    mesh_shape: tuple[int, ...] | None
    """None for models or structures without a mesh."""

    def filled(self, graphs: Sequence[LabelledGraph]) -> LabelledGraph | None:
        """Join graphs and what fills up the batch; return None if the graphs are too many."""
        n_left = self.n_structures - len(graphs)
        counts = sum((_element_counts(each.graph, len(self.element_counts)) for each in graphs), np.zeros(1, int))
        left = np.array(self.element_counts) - counts
        if n_left < 0 or (left < 0).any() or left.sum() < n_left:
            return None
        device = graphs[0].energy.device
        fillers = [self._filler(species).to(device) for species in self._divided(left, n_left)]
        batch = collate_labelled([*graphs, *fillers])
        if self.mesh_shape is None:
            return batch
        return replace(batch, graph=replace(batch.graph, mesh_shapes=(self.mesh_shape,) * self.n_structures))

    def grown(self, graphs: Sequence[LabelledGraph]) -> BatchSize:
        """Return a size that these graphs fit in."""
        counts = sum((_element_counts(each.graph, len(self.element_counts)) for each in graphs), np.zeros(1, int))
        n_structures = max(self.n_structures, len(graphs) + 1)
        grown = np.maximum(self.element_counts, np.ceil(_SPARE * counts).astype(int) + n_structures)
        return replace(self, n_structures=n_structures, element_counts=tuple(grown.tolist()))

    def _divided(self, left: np.ndarray, n_parts: int) -> list[np.ndarray]:
        """Divide `left` atoms of each element into structures; return the elements of their atoms."""
        if self.frame is not None:
            return [np.repeat(np.arange(len(left)), self.frame)] * n_parts
        species = np.repeat(np.arange(len(left)), left)
        # an atom each, and all others together
        return [*species[: n_parts - 1, None], species[n_parts - 1 :]] if n_parts else []

    def _filler(self, species: np.ndarray) -> LabelledGraph:
        """Return a structure without neighbors and labels."""
        n_atoms, nan = len(species), math.nan
        line = torch.arange(n_atoms, dtype=torch.float64)[:, None] * torch.tensor([_DISTANCE, 0.0, 0.0])
        edges = torch.tensor([_DISTANCE * n_atoms, _DISTANCE, _DISTANCE], dtype=torch.float64)
        graph = Graph(
            positions=line,
            species=torch.from_numpy(species).to(torch.int64),
            structure=torch.zeros(n_atoms, dtype=torch.int64),
            cell=torch.diag(edges)[None],
            pbc=torch.tensor([self.pbc]),
            charge=torch.zeros(1, dtype=torch.float64),
            neighbors=torch.arange(n_atoms)[:, None],
            shifts=torch.zeros(n_atoms, 1, 3, dtype=torch.float64),
            neighbor_mask=torch.zeros(n_atoms, 1, dtype=torch.bool),
        )
        labels = {"energy": (1,), "forces": (n_atoms, 3), "stress": (1, 3, 3)}
        unknown: dict[str, Any] = {name: torch.full(size, nan, dtype=torch.float64) for name, size in labels.items()}
        return LabelledGraph(graph, **unknown, weight=torch.zeros(1, dtype=torch.float64))


def common_size(model: ShortRangeModel, stage: StageConfiguration, graphs: Sequence[LabelledGraph]) -> BatchSize | None:
    """Return the size of the batches of a stage; None if its steps cannot be recorded, or would gain nothing.

    Recorded are steps on energies, forces and stress with the sphere descriptor, without a dispersion correction, of
    graphs in memory. A long-range part needs frames with three periodic directions, or molecules of one composition
    that are summed over pairs. Members of an ensemble have the same size.
    """
    if not graphs or isinstance(graphs, Lazy) or graphs[0].energy.device.type != _RECORDING_DEVICE:
        return None
    assert stage.batch_size is not None  # filled in by `prepare`
    of_others = stage.loss.dipole or stage.loss.born_effective_charges
    known = any(each.dipole is not None or each.born_effective_charges is not None for each in graphs)
    if of_others or known or stage.accumulate > 1 or any(each.graph.on_host is None for each in graphs):
        return None
    model = members_of(model)[0]
    if type(model.descriptor) is not SphereDescriptor or model.dispersion is not None:
        return None
    directions = {tuple(row) for each in graphs for row in _host(each.graph).pbc.tolist()}
    if len(directions) > 1 or any(each.graph.field is not None or each.graph.images is not None for each in graphs):
        return None
    n_elements = len(model.settings.elements)
    counts = np.stack([_element_counts(each.graph, n_elements) for each in graphs])
    n_frames, alike = min(stage.batch_size, len(graphs)), bool((counts == counts[0]).all())
    totals = n_frames * counts[0] if alike else np.ceil(_SPARE * n_frames * counts.mean(axis=0)) + n_frames
    n_structures, pbc, mesh = n_frames + (not alike), directions.pop(), None
    if totals.sum() > _MOST_ATOMS:
        return None
    if isinstance(model, FullRangeModel):
        if all(pbc):
            meshes = [model.mesh_shape_for(cell) for each in graphs for cell in _host(each.graph).cell.numpy()]
            mesh = tuple(max(along) for along in zip(*(each for each in meshes if each), strict=True))
            if n_structures * math.prod(mesh) > _MOST_MESH_POINTS:
                return None
        elif any(pbc) or not alike or not model.long_range.convolution.sums_pairs(int(counts[0].sum())):
            return None
    frame = tuple(counts[0].tolist()) if alike else None
    return BatchSize(n_structures, tuple(int(total) for total in totals), pbc, frame, mesh)


def _host(graph: Graph) -> Any:
    assert graph.on_host is not None
    return graph.on_host


def _element_counts(graph: Graph, n_elements: int) -> np.ndarray:
    return np.array(graph.element_counts(n_elements))
