"""Rows of neighbors of a graph, searched on the device that holds its atoms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from lrc_ase.structures.device_pairs import Rows, rows_on_device
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.pairs import pairs_within

__all__ = ["padded_rows", "with_neighbors"]

_SAME_POSITION = 1e-6
"""Distance in Angstrom below which two atoms are at the same position."""


def with_neighbors(graph: Graph, cutoff: float) -> Graph:
    """Return the graph of one or more structures with rows of all neighbors within `cutoff` (Angstrom).

    Raises
    ------
    ValueError
        Two atoms of a structure are at the same position; they are counted from the first atom of their structure.
    """
    search = _rows_on_host if graph.positions.device.type == "cpu" else _rows_there
    rows = search(graph, cutoff)
    first, second, distance = rows.closest
    if distance < _SAME_POSITION:
        start = int(torch.searchsorted(graph.structure, graph.structure[first]))
        raise ValueError(f"atoms {first - start} and {second - start} are at the same position")
    return replace(graph, neighbors=rows.neighbors, shifts=rows.shifts, neighbor_mask=rows.mask)


def padded_rows(first: np.ndarray, second: np.ndarray, n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `neighbors` and `neighbor_mask` of a `Graph` for pairs sorted by `first`, and the column of each pair."""
    counts = np.bincount(first, minlength=n_rows)
    width = max(int(counts.max(initial=0)), 1)
    # position of each pair in its row: its index minus the index of the row's first pair
    column = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    neighbors = np.tile(np.arange(n_rows)[:, None], (1, width))
    neighbors[first, column] = second
    return neighbors, np.arange(width) < counts[:, None], column


def _rows_there(graph: Graph, cutoff: float) -> Rows:
    return rows_on_device(graph.positions, graph.cell, graph.pbc, graph.structure, cutoff)


def _rows_on_host(graph: Graph, cutoff: float) -> Rows:
    """Search with matscipy, one structure after another."""
    ends = np.cumsum(np.bincount(graph.structure.numpy(), minlength=graph.n_structures)).tolist()
    pairs = []
    for start, end, cell, pbc in zip([0, *ends[:-1]], ends, graph.cell.numpy(), graph.pbc.numpy(), strict=True):
        first, second, distances, shifts = pairs_within(graph.positions[start:end].numpy(), cell, pbc, cutoff)
        pairs.append((first + start, second + start, distances, shifts))
    first, second, distances, shifts = map(np.concatenate, zip(*pairs, strict=True))
    neighbors, mask, column = padded_rows(first, second, graph.n_atoms)
    padded_shifts = np.zeros((*neighbors.shape, 3))
    padded_shifts[first, column] = shifts
    closest = (0, 0, float("inf"))
    if len(distances):
        pair = int(distances.argmin())
        closest = (int(first[pair]), int(second[pair]), float(distances[pair]))
    return Rows(torch.from_numpy(neighbors), torch.from_numpy(padded_shifts), torch.from_numpy(mask), closest)
