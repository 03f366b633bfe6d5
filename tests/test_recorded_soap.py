"""Recorded steps of the optimizer beside single ones, rehearsed on the CPU."""

from __future__ import annotations

import pytest
import torch

from lrc_ase.training import soap
from lrc_ase.training.optimizer import optimizer_tensors, restore_optimizer
from lrc_ase.training.soap import RowMajorSOAP

SHAPES = [(3, 5, 4), (6, 2), (7,), (1,), (2, 3)]


@pytest.fixture
def recordings(monkeypatch):
    made = []

    def record(step, device):
        step()  # a step before the recording, which must not count
        made.append(step)
        return step

    monkeypatch.setattr(soap, "record", record)
    return made


def trained(monkeypatch, device, n_steps, *, where="cpu", without=None, change=None, **options):
    """Return parameters and the optimizer after steps by gradients of random quadratic losses, recorded on `device`."""
    monkeypatch.setattr(soap, "_RECORDING_DEVICE", device)
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in SHAPES]
    parameters = [torch.nn.Parameter(start.to(where)) for start in starts]
    optimizer = RowMajorSOAP(parameters, lr=0.01, weight_decay=options.pop("weight_decay", 0.0), **options)
    for number in range(n_steps):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - number / 200)
        for index, parameter in enumerate(parameters):
            target = torch.randn(parameter.shape, dtype=torch.float64, generator=generator).to(where)
            parameter.grad = None if index == without else parameter.detach() - 0.5 * target
        optimizer.step()
        if change is not None and number == 40:
            change(optimizer)
    return torch.cat([parameter.detach().flatten() for parameter in parameters]), optimizer


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"without": 1}], ids=str)
def test_recorded_steps_are_those_of_the_library(options, monkeypatch, recordings):
    expected, single = trained(monkeypatch, "none", 80, **options)
    actual, recorded = trained(monkeypatch, "cpu", 80, **options)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)
    assert len(recordings) == 2  # with and without new bases
    for name, tensor in optimizer_tensors(single).items():
        if name != "structure":
            torch.testing.assert_close(optimizer_tensors(recorded)[name], tensor, rtol=0, atol=1e-9)
    assert torch.equal(optimizer_tensors(recorded)["structure"], optimizer_tensors(single)["structure"])


def test_a_recording_that_fails_changes_nothing(monkeypatch):
    expected, _ = trained(monkeypatch, "none", 80)
    failures = []

    def failing(step, device):
        def full(*_, **__):
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patch:
            # in the middle of the step: some states have new tensors
            patch.setattr(RowMajorSOAP, "get_orthogonal_matrix_qr", full)
            try:
                step()
            except RuntimeError as error:
                failures.append(error)
        return step

    monkeypatch.setattr(soap, "record", failing)
    actual, _ = trained(monkeypatch, "cpu", 80)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)
    assert len(failures) == 1


def test_a_restored_state_is_recorded_again(monkeypatch, recordings):
    def restored(optimizer):
        restore_optimizer(optimizer, {name: each.clone() for name, each in optimizer_tensors(optimizer).items()})

    expected, _ = trained(monkeypatch, "none", 80)
    actual, _ = trained(monkeypatch, "cpu", 80, change=restored)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)
    assert len(recordings) == 4
