"""Steps recorded as CUDA graphs, as far as no GPU is needed: the way they take, and what ends a recording."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from structures import ELEMENTS, random_walk, rattled_crystal, settings, shaken_model, water
from torch.utils._python_dispatch import TorchDispatchMode

from lrc_ase import LongRangeSettings, SphereSettings
from lrc_ase.layer.recording import record, recording, recording_step
from lrc_ase.layer.tables import MultiplierTables, UnkeptTables
from lrc_ase.models.baseline_settings import ZBLSettings
from lrc_ase.models.baselines import ranges_from_data
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.inference.evaluator import Evaluator
from lrc_ase.models.inference.recorded_step import RecordedStep, fixed_by_recording, with_spare_columns
from lrc_ase.structures import neighbors
from lrc_ase.structures.graph import HostSide, collate
from lrc_ase.structures.neighbors import NeighborList, neighbor_graph

MODELS = {
    "short range": settings(long_range=False),
    "full range": settings(),
    "shifted charges": settings(long_range=LongRangeSettings(charges="shifted", accuracy=1e-6)),
    "dipoles and tensors": settings(
        long_range=LongRangeSettings(accuracy=1e-6, polarizable=True, n_dipoles=2, n_tensors=2)
    ),
    "two blocks of scalars": settings(descriptor=SphereSettings(n_channels=8, n_blocks=2)),
    "two blocks of vectors": settings(descriptor=SphereSettings(n_channels=8, n_blocks=2, neighbor_degree=1)),
    "core repulsion": settings(baseline=(ZBLSettings(ranges=ranges_from_data({}, ELEMENTS, {}, 4.5)),)),
}
WAITS = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "unique", "linalg_inv", "linalg_lu")
"""Operations for which the host waits on a GPU: their results, or the sizes of their results, go to Python."""


class Waits(TorchDispatchMode):
    """Collect operations that would wait for a GPU, except on the host's own copies."""

    def __init__(self, on_host):
        super().__init__()
        self.on_host, self.operations = {each.data_ptr() for each in on_host}, []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        tensors = [each for each in arguments if isinstance(each, torch.Tensor)]
        indices = arguments[1] if "index.Tensor" in str(function) else []
        by_mask = any(isinstance(each, torch.Tensor) and each.dtype == torch.bool for each in indices)
        if by_mask or any(name in str(function) for name in WAITS):
            derived = all(each.data_ptr() in self.on_host for each in tensors)
            if not derived:
                self.operations.append(str(function))
        result = function(*arguments, **(keywords or {}))
        if tensors and all(each.data_ptr() in self.on_host for each in tensors) and isinstance(result, torch.Tensor):
            self.on_host.add(result.data_ptr())
            self.kept = [*getattr(self, "kept", []), result]  # so that no other tensor gets its address
        return result


def with_host_side(graph):
    """Return the graph as `Graph.to` returns it on a GPU: with copies of its numbers on the host."""
    copies = [each.clone() for each in (graph.species, graph.cell, graph.pbc, graph.charge, graph.structure)]
    return replace(
        graph, host_side=HostSide(*copies, of=(graph.species, graph.cell, graph.pbc, graph.charge, graph.structure))
    )


def model_of(name):
    model = shaken_model(MODELS[name]).requires_grad_(False)
    for part in model.modules():
        if isinstance(part, SphereDescriptor):
            part.engine = "reference"  # as on a GPU
    return model


@pytest.mark.parametrize("cell_changes", [False, True], ids=["fixed cell", "changing cell"])
@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_step_gives_the_same_and_waits_for_nothing(name, cell_changes):
    model, graph = model_of(name), with_host_side(neighbor_graph(rattled_crystal(), ELEMENTS, 4.5))
    graph = replace(graph, mesh_shapes=None if name == "short range" else ((20, 20, 20),))
    expected = evaluate(model, graph, stress=cell_changes)
    graph = replace(with_spare_columns(graph), tables=UnkeptTables() if cell_changes else MultiplierTables())
    with recording_step():
        evaluate(model, graph, stress=cell_changes)  # constants come to the device
        host = graph.on_host
        with Waits([host.species, host.cell, host.pbc, host.charge, host.structure]) as waits:
            actual = evaluate(model, graph, stress=cell_changes)
    assert waits.operations == []
    for field in ("energy", "atomic_energies", "forces", "charges", "stress"):
        if getattr(expected, field) is not None:
            torch.testing.assert_close(getattr(actual, field), getattr(expected, field), rtol=0, atol=1e-11)


def test_the_watch_notices_a_wait():
    with Waits([]) as waits:
        bool(torch.ones(3).sum() > 2)
    assert waits.operations == ["aten._local_scalar_dense.default"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a torch that cannot record")
def test_a_step_that_cannot_be_recorded_is_repeated_as_it_is():
    calls = []
    with pytest.warns(UserWarning, match="could not be recorded as a CUDA graph"):
        repeat = record(lambda: calls.append(recording()), torch.device("cuda"))
    calls.clear()
    repeat()
    assert calls == [False]


def test_recording_ends_with_its_block():
    with recording_step():
        assert recording()
    assert not recording()


@pytest.mark.parametrize("field", ["species", "cell", "pbc", "charge"])
def test_copies_on_the_host_end_with_the_field_that_they_copy(field):
    graph = with_host_side(neighbor_graph(rattled_crystal(), ELEMENTS, 4.5))
    assert graph.on_host is not None
    assert replace(graph, positions=graph.positions + 0.1).on_host is not None
    assert replace(graph, **{field: getattr(graph, field).clone()}).on_host is None


def test_numbers_of_the_host_are_those_of_the_graph():
    for atoms in (rattled_crystal(), water()):
        graph = neighbor_graph(atoms, ELEMENTS, 4.5)
        there = with_host_side(graph)
        assert there.fully_periodic == graph.fully_periodic == bool(atoms.pbc.all())
        counts = [atoms.get_chemical_symbols().count(element) for element in ELEMENTS]
        assert there.element_counts(len(ELEMENTS)) == graph.element_counts(len(ELEMENTS)) == counts


def test_what_a_recording_fixes():
    atoms = rattled_crystal()
    first = fixed_by_recording(with_host_side(neighbor_graph(atoms, ELEMENTS, 4.5)))
    atoms.rattle(0.3)  # positions and neighbors may change
    assert fixed_by_recording(with_host_side(neighbor_graph(atoms, ELEMENTS, 4.5))) == first
    for change in ("cell", "charge", "species"):
        other = atoms.copy()
        if change == "cell":
            other.set_cell(other.cell * 1.0001)
        elif change == "charge":
            other.info["charge"] = 1.0
        else:
            other.symbols[0], other.symbols[-1] = other.symbols[-1], other.symbols[0]
        assert fixed_by_recording(with_host_side(neighbor_graph(other, ELEMENTS, 4.5))) != first, change
    graph = with_host_side(neighbor_graph(atoms, ELEMENTS, 4.5))
    assert fixed_by_recording(replace(graph, mesh_shapes=((20, 20, 20),))) != first
    other = atoms.copy()
    other.set_cell(other.cell * 1.0001)
    larger = with_host_side(neighbor_graph(other, ELEMENTS, 4.5))
    assert fixed_by_recording(larger, cell=False) == fixed_by_recording(graph, cell=False)
    with pytest.raises(ValueError, match=r"move them with `Graph\.to`"):
        fixed_by_recording(neighbor_graph(atoms, ELEMENTS, 4.5))


def test_spare_columns_change_no_neighbor():
    graph = neighbor_graph(rattled_crystal(), ELEMENTS, 4.5)
    wide, width = with_spare_columns(graph), graph.neighbors.shape[1]
    assert wide.neighbors.shape[1] > width
    assert torch.equal(wide.neighbors[:, :width], graph.neighbors)
    assert not wide.neighbor_mask[:, width:].any()
    assert torch.equal(wide.neighbors[:, width:], torch.arange(8)[:, None].expand(8, wide.neighbors.shape[1] - width))
    assert wide.positions.data_ptr() != graph.positions.data_ptr()


@pytest.fixture
def rehearsed(monkeypatch):
    """Let steps be recorded on the CPU: a replay evaluates the same tensors once more, in the way of a recording."""

    def rehearse(step, device):
        def replay():
            with recording_step():
                step()

        return replay

    monkeypatch.setattr("lrc_ase.models.inference.recorded_step.record", rehearse)
    monkeypatch.setattr("lrc_ase.models.inference.evaluator._RECORDING_DEVICE", "cpu")
    search = neighbors.neighbor_graph
    monkeypatch.setattr(
        neighbors, "neighbor_graph", lambda *arguments, **options: with_host_side(search(*arguments, **options))
    )


def test_a_recorded_step_serves_its_cell_mesh_and_width_alone(rehearsed):
    """A barostat moves the cell to another mesh while the list of neighbors stays the same."""
    graph = replace(with_host_side(neighbor_graph(rattled_crystal(), ELEMENTS, 4.5)), mesh_shapes=((20, 20, 20),))
    strained, wide = with_host_side(replace(graph, cell=1.001 * graph.cell)), with_spare_columns(graph)
    for cell_changes in (False, True):
        step = RecordedStep(model_of("full range"), graph, cell_changes=cell_changes)
        assert step.fits(replace(graph, positions=graph.positions + 0.01))
        assert step.fits(strained) == cell_changes
        assert not step.fits(replace(strained, mesh_shapes=((24, 24, 24),)))
        assert step.fits(wide)
        assert not step.fits(with_spare_columns(wide))


@pytest.mark.parametrize("size", [0.02, 0.2], ids=["one list", "new lists"])
@pytest.mark.parametrize("strain", [0.0, 1e-3], ids=["fixed cell", "changing cell"])
@pytest.mark.parametrize("name", ["full range", "short range", "shifted charges", "core repulsion"])
def test_a_walk_by_recorded_steps_is_that_of_single_ones(name, strain, size, rehearsed):
    model, atoms = model_of(name), rattled_crystal(repeat=(2, 1, 1))
    evaluator = Evaluator(model)
    lists = NeighborList(ELEMENTS, 4.5, mesh_shape_for=model.mesh_shape_for)
    for moved in random_walk(atoms, n_steps=8, size=size, strain=strain):
        graph = lists.graph(moved)
        actual = evaluator(graph)
        expected = evaluate(model, replace(graph, host_side=None, tables=None), stress=True)
        for field in ("energy", "atomic_energies", "forces", "charges"):
            if getattr(expected, field) is not None:
                torch.testing.assert_close(getattr(actual, field), getattr(expected, field), rtol=0, atol=1e-10)
        torch.testing.assert_close(evaluator.stress(), expected.stress, rtol=0, atol=1e-11)
    assert evaluator._recorded is not None
    assert evaluator._recorded._cell_changes == bool(strain)
    assert (lists.n_searches > 3) == (size > 0.1)


@pytest.mark.parametrize("strain", [0.0, 1e-3], ids=["fixed cell", "changing cell"])
@pytest.mark.parametrize("name", ["full range", "two blocks of vectors"])
def test_a_batch_of_one_mesh_is_recorded_with_its_stress(name, strain, rehearsed):
    model = model_of(name)
    evaluator = Evaluator(model, stress=True)
    walks = [random_walk(rattled_crystal(seed=seed), n_steps=6, size=0.02, strain=strain) for seed in range(2)]
    lists = [NeighborList(ELEMENTS, 4.5, mesh_shape_for=model.mesh_shape_for) for _ in walks]
    n_evaluations = 0
    for moved in zip(*walks, strict=True):
        graph = collate([each.graph(atoms) for each, atoms in zip(lists, moved, strict=True)])
        actual = evaluator(graph)
        expected = evaluate(model, replace(graph, host_side=None), stress=True)
        for field in ("energy", "atomic_energies", "forces", "charges"):
            torch.testing.assert_close(getattr(actual, field), getattr(expected, field), rtol=0, atol=1e-10)
        n_evaluations += evaluator._stress is None
        torch.testing.assert_close(evaluator.stress(), expected.stress, rtol=0, atol=1e-11)
    assert evaluator._recorded is not None
    assert n_evaluations == 0  # the stress comes with the step


def test_a_batch_of_two_meshes_is_not_recorded(rehearsed):
    evaluator = Evaluator(model_of("full range"))
    graphs = [with_host_side(neighbor_graph(rattled_crystal(seed=seed), ELEMENTS, 4.5)) for seed in range(2)]
    for meshes, recorded in ((((20, 20, 20), (24, 24, 24)), False), (((20, 20, 20), (20, 20, 20)), True)):
        held = [replace(graph, mesh_shapes=(mesh,)) for graph, mesh in zip(graphs, meshes, strict=True)]
        for _ in range(6):
            evaluator(collate(held))
        assert (evaluator._recorded is not None) == recorded
