"""Neighbors searched in PyTorch, as on GPUs, against sums over images by brute force and against matscipy."""

import numpy as np
import pytest
import torch
from ase import Atoms
from structures import ELEMENTS, rattled_crystal, salt_water_slab, water
from test_pairs import BOUNDARIES, brute_force, drawn

from lrc_ase.structures import device_pairs, rows
from lrc_ase.structures.device_pairs import rows_on_device
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import complete_cell, graph_without_neighbors, neighbor_graph
from lrc_ase.structures.rows import with_neighbors


def entries(neighbors, shifts, mask):
    """The pairs of padded rows as a sorted list of (first, second, shift)."""
    assert torch.equal(neighbors[~mask], torch.nonzero(~mask)[:, 0])  # padding points at the atom itself
    assert not shifts[~mask].any()
    first = torch.nonzero(mask)[:, 0].tolist()
    return sorted(zip(first, neighbors[mask].tolist(), map(tuple, shifts[mask].long().tolist()), strict=True))


def search(structures, cutoff):
    """Search pairs of (positions, cell, pbc) of several structures at once."""
    positions = np.concatenate([each[0] for each in structures])
    structure = np.repeat(np.arange(len(structures)), [len(each[0]) for each in structures])
    cell, pbc = np.array([each[1] for each in structures]), np.array([each[2] for each in structures])
    return rows_on_device(*map(torch.from_numpy, (positions, cell, pbc, structure)), cutoff)


def expected_entries(structures, cutoff):
    expected, start = [], 0
    for positions, cell, pbc in structures:
        pairs = brute_force(positions, cell, pbc, cutoff)
        expected += [(first + start, second + start, shift) for first, second, shift in pairs]
        start += len(positions)
    return sorted(expected)


@pytest.mark.parametrize("pbc", BOUNDARIES)
@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_those_of_brute_force(seed, pbc):
    structure = (*drawn(seed, pbc), pbc)
    actual = search([structure], 4.0)
    assert entries(*actual[:3]) == expected_entries([structure], 4.0)


@pytest.mark.parametrize("candidates", [1, 100, 2**24])
def test_structures_of_a_batch_do_not_see_each_other(candidates, monkeypatch):
    """Cells of all sizes and boundaries, searched atom by atom, in pieces and at once."""
    monkeypatch.setattr(device_pairs, "_MOST_CANDIDATES", candidates)
    batch = [(*drawn(seed, pbc), pbc) for seed, pbc in enumerate(BOUNDARIES)]
    batch.append((np.ones((1, 3)), np.eye(3), (False,) * 3))
    batch.append((np.zeros((1, 3)), 30 * np.eye(3), (True,) * 3))
    assert entries(*search(batch, 4.0)[:3]) == expected_entries(batch, 4.0)


@pytest.mark.parametrize("offset", [0.0, -1.0, 1e4, -1e6])
@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False), (False, False, True)])
def test_atoms_far_away_and_far_apart_have_their_own_pairs(offset, pbc):
    """Bins of the box that are 1e9 in number, and too many for 64 bits."""
    open_axes = ~np.array(pbc)
    pair = np.array([[0, 0, 0], [2.4, 0.1, 0.2]])
    cell = complete_cell(np.diag([5.6, 5.7, 5.8]), pbc)
    for distance in (1e5, 1e7):
        positions = np.concatenate([pair, pair + distance * open_axes]) + offset * open_axes
        actual = search([(positions, cell, pbc)], 4.0)
        expected = expected_entries([(pair, cell, pbc)], 4.0)
        expected += [(first + 2, second + 2, shift) for first, second, shift in expected]
        assert entries(*actual[:3]) == expected


@pytest.mark.parametrize(
    "atoms",
    [rattled_crystal(repeat=(3, 3, 3)), salt_water_slab(), water(), Atoms("Na", [[1, 2, 3]], cell=[4, 5, 6], pbc=True)],
    ids=["crystal", "slab", "molecule", "one periodic atom"],
)
def test_graphs_hold_the_pairs_of_matscipy(atoms, monkeypatch):
    expected = neighbor_graph(atoms, ELEMENTS, 5.0)
    monkeypatch.setattr(rows, "_rows_on_host", rows._rows_there)
    actual = neighbor_graph(atoms, ELEMENTS, 5.0)
    of_actual, of_expected = (entries(each.neighbors, each.shifts, each.neighbor_mask) for each in (actual, expected))
    assert of_actual == of_expected
    assert actual.neighbors.shape == expected.neighbors.shape
    for name in ("neighbors", "shifts", "neighbor_mask"):
        assert getattr(actual, name).dtype == getattr(expected, name).dtype


@pytest.mark.parametrize("method", ["matscipy", "PyTorch"])
def test_atoms_at_one_position_are_counted_within_their_structure(method, monkeypatch):
    if method == "PyTorch":
        monkeypatch.setattr(rows, "_rows_on_host", rows._rows_there)
    twice = Atoms("NaClH", [[0, 0, 0], [1, 1, 1], [1, 1, 1]])
    batch = collate([graph_without_neighbors(each, ELEMENTS) for each in (water(), twice)])
    with pytest.raises(ValueError, match=r"atoms [12] and [12] are at the same position"):
        with_neighbors(batch, 4.0)


def test_a_batch_on_the_host_is_searched_structure_by_structure():
    frames = [water(), rattled_crystal(), salt_water_slab()]
    batch = with_neighbors(collate([graph_without_neighbors(each, ELEMENTS) for each in frames]), 4.0)
    expected = collate([neighbor_graph(each, ELEMENTS, 4.0) for each in frames])
    for name in ("positions", "species", "structure", "cell", "pbc", "charge", "neighbors", "shifts", "neighbor_mask"):
        assert torch.equal(getattr(batch, name), getattr(expected, name))
