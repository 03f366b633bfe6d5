"""Training by CUDA graphs on a GPU beside single steps on the CPU."""

from __future__ import annotations

import pytest
import torch
from structures import shaken_model
from test_models_on_gpu import MODELS
from test_recorded_loss import LOSS, MIXED, eager, frames, molecules, stage
from test_recorded_soap import trained
from test_training_loop import Quiet

from lrc_ase.training import filled_batches, soap
from lrc_ase.training.configuration import LossConfiguration
from lrc_ase.training.filled_batches import common_size
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.recorded_loss import RecordedLoss

RECORDED = [name for name in MODELS if name not in ("ponita", "paper")]
WITHOUT_STRESS = LossConfiguration(energy=3.0, forces=1.0)


@pytest.fixture(autouse=True)
def _needs_cuda(device):
    if device.type != "cuda":
        pytest.skip("CUDA graphs need a CUDA device")


def check(model, on_device, graphs, batches, loss, agree):
    there = [graph.to("cuda") for graph in graphs]
    size = common_size(on_device, stage(loss=loss), there)
    recorded = RecordedLoss(on_device, loss, 0.7, size)
    for batch in batches:
        errors, gradients = eager(model, graphs[batch], loss)
        actual = recorded(there[batch])()
        assert actual.numbers() == pytest.approx(errors.numbers(), rel=1e-5)
        for parameter, expected in zip(on_device.parameters(), gradients, strict=True):
            if expected is not None:
                agree(parameter.grad, expected, 1e-5)


@pytest.mark.parametrize("kind", ["one size", "mixed sizes"])
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_gradients_are_those_of_the_cpu(name, kind, moved, agree):
    model = shaken_model(MODELS[name])
    graphs = frames() if kind == "one size" else frames(MIXED)
    batches = [slice(0, 2), slice(2, 4), slice(4, 5), slice(0, 2)]
    check(model, moved(model), graphs, batches, LOSS, agree)


@pytest.mark.parametrize("name", ["short range", "full range", "dipoles and tensors", "two blocks of vectors"])
def test_recorded_gradients_of_molecules_are_those_of_the_cpu(name, moved, agree):
    model = shaken_model(MODELS[name])
    check(model, moved(model), molecules(), [slice(0, 2), slice(4, 5)], WITHOUT_STRESS, agree)


def test_a_recorded_stage_learns_as_by_single_steps(moved, monkeypatch):
    """Rounding of 1e-15 grows to 1e-5 within three steps of SOAP: weights differ in the end, but not what they fit."""
    losses = []
    for where in ("cuda", "none"):
        monkeypatch.setattr(filled_batches, "_RECORDING_DEVICE", where)
        monkeypatch.setattr(soap, "_RECORDING_DEVICE", where)
        model = moved(shaken_model(MODELS["two blocks of vectors"]))
        graphs = [graph.to("cuda") for graph in frames()]
        observer = Quiet()
        loop = StageLoop(model, stage(epochs=25, optimizer="soap"), graphs, graphs[:2], force_scale=0.7, seed=0)
        loop.run(observer)
        assert (loop.recorded[0] is None) == (where == "none")
        assert (loop.optimizer._recorded is None) == (where == "none")
        losses.append([(record.train["loss"], record.validation["loss"]) for record in observer.records])
    recorded, single = losses
    for epoch in range(3):
        assert recorded[epoch] == pytest.approx(single[epoch], rel=3e-3)
    assert recorded[-1] == pytest.approx(single[-1], rel=0.1)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"without": 1}], ids=str)
def test_recorded_steps_of_the_optimizer_are_those_of_the_library(options, monkeypatch):
    expected, _ = trained(monkeypatch, "none", 80, where="cuda", **options)
    actual, optimizer = trained(monkeypatch, "cuda", 80, where="cuda", **options)
    assert optimizer._recorded is not None
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)
