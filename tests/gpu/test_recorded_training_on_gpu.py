"""Training by CUDA graphs on a GPU beside single steps on the CPU."""

from __future__ import annotations

import pytest
import torch
from structures import shaken_model, water
from test_models_on_gpu import MODELS
from test_recorded_loss import LOSS, MIXED, Silent, eager, frames, labelled, stage
from test_recorded_soap import trained

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


def molecules():
    graphs = []
    for seed in range(5):
        atoms = water()
        atoms.symbols[:] = "NaClNa"
        atoms.positions *= 2.5
        atoms.rattle(0.1, seed=seed)
        graphs.append(labelled(atoms, seed))
    return graphs


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
def test_filled_batchess_are_those_of_the_cpu(name, kind, moved, agree):
    model = shaken_model(MODELS[name])
    graphs = frames() if kind == "one size" else frames(MIXED)
    batches = [slice(0, 2), slice(2, 4), slice(4, 5), slice(0, 2)]
    check(model, moved(model), graphs, batches, LOSS, agree)


@pytest.mark.parametrize("name", ["short range", "full range", "dipoles and tensors", "two blocks of vectors"])
def test_filled_batchess_of_molecules_are_those_of_the_cpu(name, moved, agree):
    model = shaken_model(MODELS[name])
    check(model, moved(model), molecules(), [slice(0, 2), slice(4, 5)], WITHOUT_STRESS, agree)


class Losses(Silent):
    """The losses of all epochs."""

    def __init__(self):
        self.training, self.validation = [], []

    def epoch_done(self, loop, record):
        self.training.append(record.train["loss"])
        self.validation.append(record.validation["loss"])


def test_a_recorded_stage_learns_as_by_single_steps(moved, monkeypatch):
    """Rounding grows a thousandfold in some ten steps of SOAP: weights differ in the end, but not what they fit."""
    losses = []
    for where in ("cuda", "none"):
        monkeypatch.setattr(filled_batches, "_RECORDING_DEVICE", where)
        monkeypatch.setattr(soap, "_RECORDING_DEVICE", where)
        model = moved(shaken_model(MODELS["two blocks of vectors"]))
        graphs = [graph.to("cuda") for graph in frames()]
        observer = Losses()
        loop = StageLoop(model, stage(epochs=25, optimizer="soap"), graphs, graphs[:2], force_scale=0.7, seed=0)
        loop.run(observer)
        assert (loop.recorded[0] is None) == (where == "none")
        assert (loop.optimizer._recorded is None) == (where == "none")
        losses.append(observer)
    recorded, single = losses
    assert recorded.training[:3] == pytest.approx(single.training[:3], rel=1e-3)
    assert recorded.validation[:3] == pytest.approx(single.validation[:3], rel=3e-3)
    assert recorded.training[-1] == pytest.approx(single.training[-1], rel=0.1)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"without": 1}], ids=str)
def test_recorded_steps_of_the_optimizer_are_those_of_the_library(options, monkeypatch):
    expected, _ = trained(monkeypatch, "none", 80, where="cuda", **options)
    actual, optimizer = trained(monkeypatch, "cuda", 80, where="cuda", **options)
    assert optimizer._recorded is not None
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)
