"""Pairs of atoms against sums over images by brute force, wherever the atoms are and however empty the box is."""

from itertools import product

import numpy as np
import pytest
from ase import Atoms

from lrc_ase.structures import pairs
from lrc_ase.structures.neighbors import complete_cell, neighbor_graph
from lrc_ase.structures.pairs import pairs_within

BOUNDARIES = list(product([True, False], repeat=3))


def brute_force(positions, cell, pbc, cutoff):
    """Every pair as (first, second, shift), over images of all periodic directions."""
    fractional = positions @ np.linalg.inv(cell)
    reach = np.ceil(cutoff * np.linalg.norm(np.linalg.inv(cell), axis=0) + np.ptp(fractional, axis=0)).astype(int)
    actual = {}
    for shift in product(*(range(-n, n + 1) if periodic else (0,) for n, periodic in zip(reach, pbc, strict=True))):
        vectors = positions[None] + np.array(shift) @ cell - positions[:, None]
        distances = np.linalg.norm(vectors, axis=2)
        for first, second in zip(*np.nonzero(distances < cutoff), strict=True):
            if first != second or any(shift):
                actual[int(first), int(second), shift] = distances[first, second]
    return actual


def drawn(seed, pbc):
    """Six atoms on both sides of the origin, or far from it, in a slanted cell smaller than the cutoff."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(3, 7, 3)) + rng.normal(0, 0.8, (3, 3))
    positions = rng.uniform(-6, 6, (6, 3)) + rng.uniform(-30, 30, 3) * (seed % 2)
    return positions, complete_cell(cell, pbc)


def check(positions, cell, pbc, cutoff=4.0):
    first, second, distances, shifts = pairs_within(positions, cell, pbc, cutoff)
    assert (np.diff(first) >= 0).all()
    keys = zip(first.tolist(), second.tolist(), map(tuple, shifts.astype(int).tolist()), strict=True)
    actual = dict(zip(keys, distances, strict=True))
    expected = brute_force(positions, cell, pbc, cutoff)
    assert len(actual) == len(first)
    assert actual.keys() == expected.keys()
    np.testing.assert_allclose([actual[key] for key in expected], list(expected.values()), rtol=0, atol=1e-9)


@pytest.fixture(params=["cell list", "tree"])
def method(request, monkeypatch):
    if request.param == "tree":
        monkeypatch.setattr(pairs, "_FEW_BINS", 0)
        monkeypatch.setattr(pairs, "_MOST_BINS_PER_ATOM", 0)


@pytest.mark.parametrize("pbc", BOUNDARIES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("method")
def test_pairs_are_those_of_brute_force(seed, pbc):
    check(*drawn(seed, pbc), pbc)


def translating_outside(correct):
    """`neighbour_list` as in matscipy 1.1: atoms outside of [0, cell) are translated along open directions too."""

    def neighbour_list(quantities, *, positions, cell, pbc, cutoff):
        first, second, distances, shifts = correct(quantities, positions=positions, cell=cell, pbc=pbc, cutoff=cutoff)
        cells = np.where(pbc, 0, np.floor(positions @ np.linalg.inv(cell))).astype(int)
        return first, second, distances, shifts + cells[first] - cells[second]

    return neighbour_list


def garbled(correct):
    """`neighbour_list` whose shifts along open directions mean nothing."""

    def neighbour_list(quantities, *, positions, cell, pbc, cutoff):
        first, second, distances, shifts = correct(quantities, positions=positions, cell=cell, pbc=pbc, cutoff=cutoff)
        return first, second, distances, shifts + np.where(pbc, 0, 3)

    return neighbour_list


@pytest.mark.parametrize("fault", [translating_outside, garbled])
@pytest.mark.parametrize("pbc", BOUNDARIES)
def test_shifts_along_open_directions_are_never_trusted(pbc, fault, monkeypatch):
    monkeypatch.setattr(pairs, "neighbour_list", fault(pairs.neighbour_list))
    for seed in range(2):
        check(*drawn(seed, pbc), pbc)


@pytest.mark.parametrize("offset", [0.0, -1.0, 1e4, -1e6])
@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False), (False, False, True)])
def test_atoms_far_away_and_far_apart_have_their_own_pairs(offset, pbc, monkeypatch):
    """A cell list of the box would have 1e9 bins and more."""
    largest = []
    correct = pairs.neighbour_list
    monkeypatch.setattr(
        pairs, "neighbour_list", lambda *a, **k: (largest.append(np.diag(k["cell"])), correct(*a, **k))[1]
    )
    pair = np.array([[0, 0, 0], [2.4, 0.1, 0.2]])
    cell = complete_cell(np.diag([5.6, 5.7, 5.8]), pbc)
    open_axes = ~np.array(pbc)
    check(pair + offset * open_axes, cell, pbc)
    check(np.concatenate([pair, pair + 1e5 * open_axes]) + offset * open_axes, cell, pbc)
    assert max(map(np.max, largest), default=0.0) < 10


def test_atoms_at_the_same_place_are_pairs(method):
    first, second, distances, _ = pairs_within(np.ones((2, 3)), np.eye(3), [False] * 3, 4.0)
    assert (first.tolist(), second.tolist(), distances.tolist()) == ([0, 1], [1, 0], [0, 0])


def test_a_lack_of_memory_says_so(monkeypatch):
    def failing(*arguments, **options):
        raise RuntimeError("Failed to allocate last array")

    monkeypatch.setattr(pairs, "neighbour_list", failing)
    with pytest.raises(MemoryError, match=r"no memory for the pairs of 2 atoms within 4 Angstrom"):
        pairs_within(np.ones((2, 3)), np.eye(3), [False] * 3, 4.0)


@pytest.mark.parametrize("dtype", [">f8", "<f4", ">f4"])
def test_positions_of_any_floating_type(dtype):
    """NetCDF files and other programs hold other types and byte orders."""
    positions = np.array([[0, 0, 0], [2.5, 0, 0]])
    atoms = Atoms("NaCl", positions)
    atoms.arrays["positions"] = positions.astype(dtype)
    graph = neighbor_graph(atoms, ("Na", "Cl"), 4.0)
    np.testing.assert_array_equal(graph.positions.numpy(), positions)
    assert graph.neighbors.tolist() == [[1], [0]]
