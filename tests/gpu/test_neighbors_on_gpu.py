"""Neighbors that are searched on a GPU beside those of matscipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from structures import ELEMENTS, rattled_crystal, salt_water_slab, water
from test_device_pairs import entries

from lrc_ase.structures import rows
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import graph_without_neighbors, neighbor_graph
from lrc_ase.structures.rows import with_neighbors

FRAMES = [rattled_crystal(), rattled_crystal(repeat=(4, 4, 3)), salt_water_slab(), water()]


@pytest.fixture(autouse=True)
def _matscipy_for_the_cpu_alone(monkeypatch):
    search = rows._rows_on_host

    def checked(graph, cutoff):
        assert graph.positions.device.type == "cpu"
        return search(graph, cutoff)

    monkeypatch.setattr(rows, "_rows_on_host", checked)


def host_entries(graph):
    return entries(graph.neighbors.cpu(), graph.shifts.cpu(), graph.neighbor_mask.cpu())


@pytest.mark.parametrize("cutoff", [3.0, 6.0])
def test_pairs_are_those_of_the_cpu(cutoff, device):
    for atoms in FRAMES:
        actual, expected = (neighbor_graph(atoms, ELEMENTS, cutoff, device=where) for where in (device, "cpu"))
        assert actual.neighbors.device.type == device.type
        assert host_entries(actual) == host_entries(expected)
    batch = collate([graph_without_neighbors(atoms, ELEMENTS) for atoms in FRAMES])
    actual, expected = with_neighbors(batch.to(device), cutoff), with_neighbors(batch, cutoff)
    assert host_entries(actual) == host_entries(expected)


def test_a_search_repeats_to_the_last_bit(device):
    rng = np.random.default_rng(0)
    atoms = Atoms("O20000", rng.uniform(0, 60, (20000, 3)), cell=[60.0] * 3, pbc=True)
    first, second = (neighbor_graph(atoms, ELEMENTS, 5.0, device=device) for _ in range(2))
    assert torch.equal(first.neighbors, second.neighbors)
    assert torch.equal(first.shifts, second.shifts)


def test_atoms_at_one_position_are_refused(device):
    with pytest.raises(ValueError, match=r"atoms [01] and [01] are at the same position"):
        neighbor_graph(Atoms("Na2", [[1, 1, 1], [1, 1, 1]]), ELEMENTS, 4.0, device=device)
