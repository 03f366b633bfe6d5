"""Gradients of training by CUDA graphs, as far as no GPU is needed: fillers, sizes, and the way of a recording."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from structures import ELEMENTS, rattled_crystal, settings, shaken_model, water
from test_recorded_step import MODELS, Waits, model_of, with_host_side
from test_training_loop import Quiet

from lrc_ase import PonitaSettings
from lrc_ase.dataset import LabelledGraph, Lazy
from lrc_ase.layer.recording import recording_step
from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.training import filled_batches, recorded_loss
from lrc_ase.training.configuration import LossConfiguration, StageConfiguration
from lrc_ase.training.filled_batches import BatchSize, common_size
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.processes import Processes
from lrc_ase.training.recorded_loss import RecordedLoss
from lrc_ase.training.steps import batch_gradient, mean_errors

LOSS = LossConfiguration(energy=3.0, forces=1.0, stress=0.5)
MIXED = [(1, 1, 1), (2, 1, 1), (1, 1, 1), (1, 2, 1), (1, 1, 1)]


@pytest.fixture(autouse=True)
def rehearsed(monkeypatch):
    """Record on the CPU: a replay evaluates the same tensors once more, in the way of a recording."""
    recordings = []

    def record(step, device):
        def replay():
            with recording_step():
                step()

        replay()
        recordings.append(step)
        return replay

    monkeypatch.setattr(recorded_loss, "record", record)
    monkeypatch.setattr(filled_batches, "_RECORDING_DEVICE", "cpu")
    filler = BatchSize._filler

    def with_copies(size, species):
        made = filler(size, species)
        return replace(made, graph=with_host_side(made.graph))

    monkeypatch.setattr(BatchSize, "_filler", with_copies)
    return recordings


def labelled(atoms, seed):
    generator = torch.Generator().manual_seed(seed)
    graph = with_host_side(neighbor_graph(atoms, ELEMENTS, 4.5))

    def random(*size):
        return torch.randn(*size, dtype=torch.float64, generator=generator)

    weight = torch.rand(1, dtype=torch.float64, generator=generator)
    return LabelledGraph(graph, random(1), random(len(atoms), 3), random(1, 3, 3), weight)


def frames(repeats=((1, 1, 1),) * 5):
    return [labelled(rattled_crystal(repeat=repeat, seed=seed), seed) for seed, repeat in enumerate(repeats)]


def molecules():
    """Five geometries of a molecule that is summed over pairs."""
    graphs = []
    for seed in range(5):
        atoms = water()
        atoms.symbols[:] = "NaClNa"
        atoms.positions *= 2.5
        atoms.rattle(0.1, seed=seed)
        graphs.append(labelled(atoms, seed))
    return graphs


def stage(batch_size=2, loss=LOSS, **options):
    return StageConfiguration(
        name="stage", model="full-range", batch_size=batch_size, loss=loss, **{"epochs": 1} | options
    )


def trained(name):
    return model_of(name).requires_grad_(True)


def eager(model, graphs, loss=LOSS):
    model.zero_grad(set_to_none=True)
    errors = batch_gradient(model, graphs, loss, 0.7, processes=Processes())()
    return errors, [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def agree(model, recorded, graphs, loss=LOSS, tolerance=1e-9):
    errors, gradients = eager(model, graphs, loss)
    model.zero_grad(set_to_none=True)
    actual = recorded(graphs)()
    np.testing.assert_allclose(actual.numbers(), errors.numbers(), rtol=1e-8)
    for parameter, expected in zip(model.parameters(), gradients, strict=True):
        if expected is None:  # a recording follows excess charges where there are none
            assert parameter.grad is None or not parameter.grad.any()
        else:
            scale = float(expected.abs().max()) + 1e-12
            torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", MODELS)
def test_recorded_gradients_are_those_of_single_steps(name, rehearsed):
    model, graphs = trained(name), frames()
    size = common_size(model, stage(), graphs)
    recorded = RecordedLoss(model, LOSS, 0.7, size)
    for batch in (graphs[:2], graphs[2:4], graphs[4:]):  # the last one is filled up
        agree(model, recorded, batch)
    assert len(rehearsed) == 1


@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_gradient_waits_for_nothing(name, rehearsed):
    graphs = frames(MIXED)
    model = trained(name)
    recorded = RecordedLoss(model, LOSS, 0.7, common_size(model, stage(), graphs))
    recorded(graphs[:2])
    graph = recorded._batch.graph
    host = graph.on_host
    copies = [host.species, host.cell, host.pbc, host.charge, host.structure]
    with Waits(copies) as waits:
        recorded._replay()
    assert waits.operations == []


@pytest.mark.parametrize("name", ["short range", "full range", "two blocks of vectors", "core repulsion"])
def test_frames_of_different_sizes_share_a_recording(name, rehearsed):
    """The mesh is the finest of all frames: a mesh of their own changes gradients by its errors."""
    model, graphs = trained(name), frames(MIXED)
    size = common_size(model, stage(batch_size=3), graphs)
    assert size.n_structures == 4
    recorded = RecordedLoss(model, LOSS, 0.7, size)
    for batch in (graphs[:3], graphs[2:], graphs[1:2], [graphs[0]]):
        held = [
            replace(each, graph=replace(each.graph, mesh_shapes=size.mesh_shape and (size.mesh_shape,)))
            for each in batch
        ]
        agree(model, recorded, held)
    assert len(rehearsed) == 1


def test_a_batch_that_does_not_fit_is_recorded_again(rehearsed):
    model, graphs = trained("full range"), frames(MIXED)
    small = common_size(model, stage(batch_size=1), [graphs[0], graphs[1]])
    recorded = RecordedLoss(model, LOSS, 0.7, small)
    for batch in (graphs[:1], graphs[:4], graphs[:4], graphs[:1]):
        held = [replace(each, graph=replace(each.graph, mesh_shapes=(small.mesh_shape,))) for each in batch]
        agree(model, recorded, held)
    assert len(rehearsed) == 2


def test_longer_lists_of_neighbors_are_recorded_again(rehearsed):
    model, graphs = trained("full range"), frames()
    dense = rattled_crystal(seed=9)
    dense.set_cell(0.7 * dense.cell, scale_atoms=True)
    recorded = RecordedLoss(model, LOSS, 0.7, common_size(model, stage(), graphs))
    mesh = recorded._size.mesh_shape
    for batch in (graphs[:2], [labelled(dense, 9), graphs[0]], graphs[:2]):
        agree(model, recorded, [replace(each, graph=replace(each.graph, mesh_shapes=(mesh,))) for each in batch])
    assert len(rehearsed) == 2


@pytest.mark.parametrize("name", ["short range", "full range", "dipoles and tensors"])
def test_molecules_of_one_kind_are_recorded(name, rehearsed):
    model = trained(name)
    loss = LossConfiguration(energy=3.0, forces=1.0)
    graphs = molecules()
    recorded = RecordedLoss(model, loss, 0.7, common_size(model, stage(loss=loss), graphs))
    for batch in (graphs[:2], graphs[4:], graphs[2:4]):
        agree(model, recorded, batch, loss)
    assert len(rehearsed) == 1


def test_what_is_not_recorded():
    graphs, model = frames(), trained("full range")
    assert common_size(model, stage(), graphs) is not None
    open_frame = rattled_crystal()
    open_frame.pbc = (True, True, False)
    slab = labelled(open_frame, 0)
    dipole = replace(graphs[0], dipole=torch.zeros(1, 3, dtype=torch.float64))
    assert common_size(model, stage(), []) is None
    assert common_size(model, stage(), Lazy(5, lambda index: graphs[index])) is None
    assert common_size(model, stage(accumulate=2), graphs) is None
    assert common_size(model, stage(loss=LossConfiguration(dipole=1.0)), graphs) is None
    assert common_size(model, stage(), [slab, slab]) is None
    assert common_size(model, stage(), [slab, *graphs]) is None
    assert common_size(model, stage(), [dipole, *graphs]) is None
    host_only = replace(graphs[0], graph=replace(graphs[0].graph, host_side=None))
    assert common_size(model, stage(), [host_only]) is None
    ponita = shaken_model(settings(descriptor=PonitaSettings(n_orientations=8)))
    assert common_size(ponita, stage(), graphs) is None
    many = stage(batch_size=10**4)
    assert common_size(model, many, graphs * 2000) is None  # Python is ahead of the GPU


def test_a_stage_by_recorded_gradients_ends_where_one_by_single_steps_does(monkeypatch, rehearsed):
    weights = []
    for device in ("cpu", "none"):
        monkeypatch.setattr(filled_batches, "_RECORDING_DEVICE", device)
        model = trained("full range")
        arguments = model, stage(epochs=2, optimizer="soap"), frames(), frames()[:2]
        loop = StageLoop(*arguments, force_scale=0.7, seed=0)
        loop.run(Quiet())
        assert (loop.recorded[0] is None) == (device == "none")
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=0, atol=1e-7)


@pytest.mark.parametrize("n_members", [1, 2])
def test_recorded_validation_errors_are_those_of_single_steps(n_members, rehearsed):
    members = [shaken_model(settings(), seed=seed) for seed in range(n_members)]
    model = members[0] if n_members == 1 else Ensemble(members)
    for part in model.modules():
        if isinstance(part, SphereDescriptor):
            part.engine = "reference"
    graphs = frames()
    recorded = RecordedLoss(model, LOSS, 0.7, common_size(model, stage(), graphs), gradient=False)
    expected, actual = (mean_errors(model, graphs, LOSS, 0.7, batch_size=2, recorded=each) for each in (None, recorded))
    assert actual == pytest.approx(expected, rel=1e-9, nan_ok=True)
    assert len(rehearsed) == 1


def test_an_ensemble_is_trained_and_validated_by_recordings(rehearsed):
    ensemble = Ensemble([shaken_model(settings(), seed=seed) for seed in range(2)])
    arguments = ensemble, stage(epochs=2), frames(), frames()[:2]
    StageLoop(*arguments, force_scale=0.7, seed=0, left_out=[(), (0, 3)]).run(Quiet())
    assert len(rehearsed) == 3  # two members, and the mean of both
