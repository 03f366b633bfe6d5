"""One structure shared by several processes: the sum of what each finds is what one process finds.

The processes are threads here, so that the split is tested without MPI.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from structures import ELEMENTS, rattled_crystal, salt_water_slab, settings, shaken_model, water

from lrc_ase import LongRangeConvolution, Yukawa
from lrc_ase.engines.ghosts import GhostNeighbors
from lrc_ase.layer.mesh.filtering import filter_mesh
from lrc_ase.layer.mesh.shared_filtering import filter_shared
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.inference.evaluator import Evaluator
from lrc_ase.models.settings import LongRangeSettings, PonitaSettings, SphereSettings
from lrc_ase.structures.neighbors import neighbor_graph

CUTOFF, SKIN = 4.5, 0.3


class Threads:
    """Exchange between the threads of one process."""

    def __init__(self, n_processes):
        self.n_processes = n_processes
        self.barrier = threading.Barrier(n_processes)
        self.held = {}
        self.n_sums = self.n_filtered = 0

    def gathered(self, value):
        """Values of all threads, in the order of ranks."""
        self.barrier.wait(60)
        self.held[threading.get_ident()] = value
        self.barrier.wait(60)
        actual = [self.held[rank] for rank in sorted(self.held)]
        self.barrier.wait(60)
        return actual

    def collected(self, values):
        return torch.stack(self.gathered(values))

    @property
    def rank(self):
        return self.gathered(threading.get_ident()).index(threading.get_ident())

    def sum(self, values):
        self.n_sums += 1  # of all threads
        return self.collected(values).sum(dim=0)

    def largest(self, values):
        return self.collected(values).amax(dim=0)

    def sum_of_part(self, values, ranges):
        self.n_filtered += 1
        return self.collected(values).sum(dim=0)[slice(*ranges[self.rank])]

    def join(self, part, ranges, whole):
        parts = self.gathered(part)
        assert [len(each) for each in parts] == [last - first for first, last in ranges]
        torch.cat(parts, out=whole)

    def swap(self, leaving, sent, received):
        rank, parts = self.rank, self.gathered(leaving.split(sent))
        assert [len(each[rank]) for each in parts] == received
        return torch.cat([each[rank] for each in parts])


class TagOwners:
    """Sums over ghosts by a table of all atoms, which each process keeps; the exchange adds up the tables."""

    def __init__(self, tags, n_local, n_total, exchange):
        self.tags, self.n_local, self.n_total, self.exchange = torch.from_numpy(tags), n_local, n_total, exchange

    def all_atoms(self, values, tags):
        table = values.new_zeros(self.n_total, *values.shape[1:]).index_add(0, tags, values)
        return table if self.exchange is None else self.exchange.collected(table).sum(dim=0)

    def sum_to_owners(self, values):
        return self.all_atoms(values, self.tags)[self.tags[: self.n_local]]

    def copy_to_ghosts(self, values):
        return self.all_atoms(values, self.tags[: self.n_local])[self.tags]


def wire():
    atoms = rattled_crystal(seed=2)
    atoms.pbc = (True, False, False)
    return atoms


FRAMES = {"crystal": rattled_crystal, "slab": salt_water_slab, "wire": wire}


def dealt(atoms, n_processes):
    """Own atoms of each process: slices along x, the last process without any."""
    edges = np.quantile(atoms.positions[:, 0], np.linspace(0, 1, n_processes))
    owner = np.clip(np.searchsorted(edges, atoms.positions[:, 0], side="right") - 1, 0, n_processes - 2)
    return [np.flatnonzero(owner == process) for process in range(n_processes)]


def shared_graph(atoms, local, exchange):
    """Graph of the atoms `own` with all ghosts within reach, and the atom that each row stands for."""
    ranges = [range(-2, 3) if periodic else (0,) for periodic in atoms.pbc]
    tags, positions = [local], [atoms.positions[local]]
    for shift in product(*ranges):
        moved = atoms.positions + np.array(shift) @ atoms.cell.array
        is_ghost = np.ones(len(atoms), bool)
        if shift == (0, 0, 0):
            is_ghost[local] = False
        if len(local):
            nearest = np.linalg.norm(moved[:, None] - atoms.positions[local], axis=2).min(axis=1)
            is_ghost &= nearest < CUTOFF + SKIN
        else:
            is_ghost[:] = False
        tags.append(np.flatnonzero(is_ghost))
        positions.append(moved[is_ghost])
    tags, positions = np.concatenate(tags), np.concatenate(positions)
    neighbors = GhostNeighbors(CUTOFF, SKIN)
    neighbors.search(tags, positions, len(local))
    species = np.array([ELEMENTS.index(symbol) for symbol in np.array(atoms.get_chemical_symbols())[tags]], np.int64)
    graph = neighbors.graph(
        positions,
        species,
        atoms.cell.array,
        tuple(atoms.pbc.tolist()),
        charge=0.5,
        exchange=exchange,
        owners=TagOwners(tags, len(local), len(atoms), exchange),
    )
    return graph, tags


def by_autograd(model, graph):
    return evaluate(model, graph, stress=True)


def straight(model, graph):
    """Results of derivatives that are written out, the stress by autograd where a direction is open."""
    evaluator = Evaluator(model)
    assert evaluator.goes_straight(graph)
    if graph.fully_periodic:
        return evaluator.with_stress(graph)
    return replace(evaluator(graph), stress=evaluator.with_stress(graph).stress)


def shared_results(model, atoms, n_processes, evaluated=by_autograd):
    """Results of all processes together."""
    exchange = Threads(n_processes) if n_processes > 1 else None
    shares = [np.arange(len(atoms))] if exchange is None else dealt(atoms, n_processes)

    def run(local):
        try:
            graph, tags = shared_graph(atoms, local, exchange)
            return evaluated(model, graph), tags, local
        except BaseException:
            if exchange is not None:
                exchange.barrier.abort()
            raise

    with ThreadPoolExecutor(n_processes) as pool:
        parts = list(pool.map(run, shares))
    forces = torch.zeros(len(atoms), 3, dtype=torch.float64)
    energies = torch.zeros(len(atoms), dtype=torch.float64)
    charges = torch.zeros(len(atoms), dtype=torch.float64)
    for actual, tags, local in parts:
        forces.index_add_(0, torch.from_numpy(tags), actual.forces)
        energies[local] = actual.atomic_energies
        if actual.charges is not None:
            charges[local] = actual.charges
    energy, stress = (sum(getattr(actual, name) for actual, _, _ in parts) for name in ("energy", "stress"))
    return {"energy": energy, "forces": forces, "stress": stress, "atomic_energies": energies, "charges": charges}


def assert_same(actual, expected, tolerance=1e-11):
    for name in ("energy", "forces", "stress", "atomic_energies", "charges"):
        reference = getattr(expected, name)
        if reference is not None:
            torch.testing.assert_close(actual[name], reference, rtol=tolerance, atol=tolerance, msg=lambda text: text)


@pytest.mark.parametrize("n_processes", [1, 3])
@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("evaluated", [by_autograd, straight])
def test_processes_find_together_what_one_finds(evaluated, name, n_processes):
    atoms, model = FRAMES[name](), shaken_model()
    atoms.info["charge"] = 0.5
    expected = evaluate(model, neighbor_graph(atoms, ELEMENTS, CUTOFF), stress=True)
    assert_same(shared_results(model.requires_grad_(False), atoms, n_processes, evaluated), expected)


@pytest.mark.parametrize("n_processes", [1, 3])
def test_a_model_in_training_splits_the_same_way(n_processes):
    atoms, model = rattled_crystal(), shaken_model()
    atoms.info["charge"] = 0.5
    expected = evaluate(model, neighbor_graph(atoms, ELEMENTS, CUTOFF), stress=True)
    assert_same(shared_results(model, atoms, n_processes), expected)


KINDS = {
    "short range": settings(long_range=False),
    "latent channels": settings(long_range=LongRangeSettings(n_channels=3, electrostatics=False)),
    "charges": settings(long_range=LongRangeSettings(n_channels=0)),
    "shifted charges": settings(long_range=LongRangeSettings(charges="shifted")),
    "dipoles": settings(long_range=LongRangeSettings(polarizable=True, n_dipoles=2)),
    "two blocks": settings(descriptor=SphereSettings(n_channels=18, n_blocks=2)),
    "vectors": settings(descriptor=SphereSettings(n_channels=18, n_blocks=2, neighbor_degree=1)),
}
BY_AUTOGRAD_ALONE = {
    "tensors": settings(long_range=LongRangeSettings(n_tensors=2)),
    "ponita": settings(descriptor=PonitaSettings(n_layers=1)),
}


@pytest.mark.parametrize(
    ("name", "evaluated"),
    [*product(KINDS, [by_autograd, straight]), *product(BY_AUTOGRAD_ALONE, [by_autograd])],
)
def test_every_kind_of_local_model_splits(name, evaluated):
    atoms = rattled_crystal(repeat=(2, 1, 1))
    model = shaken_model({**KINDS, **BY_AUTOGRAD_ALONE}[name]).requires_grad_(False)
    atoms.info["charge"] = 0.5
    expected = evaluate(model, neighbor_graph(atoms, ELEMENTS, CUTOFF), stress=True)
    assert_same(shared_results(model, atoms, 3, evaluated), expected)


@pytest.mark.parametrize("evaluated", [by_autograd, straight])
@pytest.mark.parametrize("eps_inf", [1.0, 2.5])
def test_a_field_on_parts_of_a_crystal(eps_inf, evaluated):
    atoms = rattled_crystal(repeat=(2, 1, 1))
    model = shaken_model(settings(long_range=LongRangeSettings(eps_inf=eps_inf))).requires_grad_(False)
    field = torch.tensor([[0.1, -0.2, 0.3]], dtype=torch.float64)

    def in_field(model, graph):
        return evaluated(model, replace(graph, field=field, charge=torch.zeros(1, dtype=torch.float64)))

    whole = replace(neighbor_graph(atoms, ELEMENTS, CUTOFF), field=field)
    assert_same(shared_results(model, atoms, 3, in_field), evaluate(model, whole, stress=True))


@pytest.mark.parametrize("charge", [0.0, 0.5])
def test_charges_need_no_second_mesh(charge):
    """Charges are filtered once, latent channels twice, for their field and for its cotangents.

    Sums per thread are that of the element charges, and with an excess charge that of the shares, there and back.
    """
    atoms, rest = rattled_crystal(), {"compositions": {"NaCl": 0}}
    for n_channels in (0, 2):
        long_range = LongRangeSettings(n_channels=n_channels, **rest)
        model = shaken_model(settings(long_range=long_range)).requires_grad_(False)
        exchange = Threads(2)

        def run(part, model=model, exchange=exchange):
            graph = shared_graph(atoms, part, exchange)[0]
            return evaluate(model, replace(graph, charge=torch.full_like(graph.charge, charge)))

        with ThreadPoolExecutor(2) as pool:
            assert len(list(pool.map(run, (np.arange(3), np.arange(3, len(atoms)))))) == 2
        assert (exchange.n_sums, exchange.n_filtered) == (2 * (1 + 2 * (charge != 0)), 2 * (1 + 2 * n_channels))


def test_ghosts_without_owners_are_refused():
    graph, _ = shared_graph(rattled_crystal(), np.arange(8), None)
    with pytest.raises(ValueError, match="charges on ghosts belong to other atoms: give the graph the `owners`"):
        evaluate(shaken_model(), replace(graph, owners=None))


@pytest.mark.parametrize("descriptor", [SphereSettings(n_blocks=2), PonitaSettings(n_layers=2)], ids=lambda d: d.name)
def test_layers_that_ghosts_cannot_follow_are_refused(descriptor):
    model = shaken_model(settings(descriptor=descriptor))
    graph, _ = shared_graph(rattled_crystal(), np.arange(8), None)
    if descriptor.name == "sphere":
        graph = replace(graph, owners=None)
    with pytest.raises(ValueError, match="reaches 2 cutoffs: ghosts would need features"):
        evaluate(model, graph)


@pytest.mark.parametrize("mesh_shape", [(6, 5, 8), (2, 4, 7), (9, 2, 4), (5, 6), (8,)], ids=str)
def test_a_filter_is_shared(mesh_shape):
    """Processes may outnumber planes, or lines of them."""
    generator = torch.Generator().manual_seed(0)
    densities = torch.randn(3, 1, 2, *mesh_shape, dtype=torch.float64, generator=generator)
    table = torch.rand(1, 2, *mesh_shape[:-1], mesh_shape[-1] // 2 + 1, dtype=torch.float64, generator=generator)
    expected, _ = filter_mesh(densities.sum(dim=0), table)
    exchange = Threads(3)
    with ThreadPoolExecutor(3) as pool:
        for actual in pool.map(lambda density: filter_shared(density, table, exchange), densities):
            torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)


def test_a_cluster_is_not_shared():
    graph, _ = shared_graph(water(), np.arange(3), Threads(1))
    with pytest.raises(ValueError, match=r"share one structure with a mesh, got .* evaluate it in one process"):
        evaluate(shaken_model(), graph)


def test_pairs_are_kept_until_an_atom_has_moved_half_the_skin():
    atoms = rattled_crystal()
    tags, positions = np.arange(8), atoms.positions.copy()
    neighbors = GhostNeighbors(CUTOFF, SKIN)
    assert not neighbors.is_valid(tags, positions, 8)
    neighbors.search(tags, positions, 8)
    assert neighbors.is_valid(tags, positions + 0.49 * SKIN / np.sqrt(3), 8)
    assert not neighbors.is_valid(tags, positions + 0.51 * SKIN / np.sqrt(3), 8)
    assert not neighbors.is_valid(tags[::-1], positions, 8)
    assert not neighbors.is_valid(tags, positions, 7)
    assert not neighbors.is_valid(tags, positions * np.nan, 8)


def test_neighbors_of_nonsense_are_refused():
    neighbors, positions = GhostNeighbors(CUTOFF, SKIN), rattled_crystal().positions
    with pytest.raises(ValueError, match="`skin` must be zero or a positive length"):
        GhostNeighbors(CUTOFF, -1.0)
    with pytest.raises(ValueError, match=r"not finite \(NaN or infinite\) for atoms \[13\]"):
        neighbors.search(np.arange(10, 18), np.where(np.arange(8)[:, None] == 3, np.nan, positions), 8)
    positions[5] = positions[2]
    with pytest.raises(ValueError, match="atoms 12 and 15 are at the same position"):
        neighbors.search(np.arange(10, 18), positions, 8)


def test_a_process_without_atoms_takes_part_in_every_backward_pass():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(12, 3, dtype=torch.float64, generator=generator)
    weights, *cotangents = torch.randn(3, 12, 1, dtype=torch.float64, generator=generator)
    cell = 8.0 * torch.eye(3, dtype=torch.float64)[None]
    layer = LongRangeConvolution(Yukawa([0.3], smearing=1.0).requires_grad_(False), smearing=1.0)

    def gradients(local, exchange):
        leaves = weights[local].requires_grad_(), points[local].requires_grad_()
        field = layer(*leaves, cell, exchange=exchange)
        return [torch.autograd.grad(field, leaves, cotangent[local], retain_graph=True) for cotangent in cotangents]

    exchange = Threads(2)
    shares = [torch.arange(12), torch.arange(0)]
    with ThreadPoolExecutor(2) as pool:
        shared, nothing = pool.map(lambda local: gradients(local, exchange), shares)
    for actual, expected, empty in zip(shared, gradients(shares[0], None), nothing, strict=True):
        for one, other, rest in zip(actual, expected, empty, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
            assert rest.numel() == 0
