"""Evaluations in a process where other code has set something in torch."""

import contextlib

import numpy as np
import pytest
import torch
from structures import ELEMENTS, potential, rattled_crystal

from lrc_ase import LRCCalculator, evaluate, load_potential, save_potential
from lrc_ase.models.atomic_stresses import atomic_stresses
from lrc_ase.models.torch_state import undisturbed
from lrc_ase.structures.neighbors import neighbor_graph


@contextlib.contextmanager
def gradients_off():
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


@contextlib.contextmanager
def default_device_meta():
    """Tensors without numbers, in place of those on a GPU."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


STATES = {
    "no_grad": torch.no_grad,
    "gradients off": gradients_off,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": default_device_meta,
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("potential") / "potential.safetensors"
    save_potential(path, potential())
    return path


def results(calculator):
    atoms = rattled_crystal()
    atoms.calc = calculator
    forces, stress = atoms.get_forces(), atoms.get_stress()
    return forces, stress, atoms.get_stresses(), calculator.get_born_effective_charges(atoms)


@pytest.fixture(scope="module")
def undisturbed_results(file):
    return {dtype: results(LRCCalculator(file, dtype=dtype)) for dtype in ("float32", "float64")}


def assert_equal(actual, expected):
    for value, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("state", STATES)
def test_calculators_work_in_any_state_and_after_it(state, dtype, file, undisturbed_results):
    """Tables that a calculator keeps are made in the state and serve afterwards."""
    before = LRCCalculator(file, dtype=dtype)
    with STATES[state]():
        made = LRCCalculator(file, dtype=dtype)
        assert_equal(results(before), undisturbed_results[dtype])
        assert_equal(results(made), undisturbed_results[dtype])
    for calculator in (before, made):
        calculator.reset()
        assert_equal(results(calculator), undisturbed_results[dtype])


@pytest.mark.parametrize("state", STATES)
def test_functions_work_in_any_state(state, file):
    atoms, model = rattled_crystal(), load_potential(file).model
    expected = evaluate(model, neighbor_graph(atoms, ELEMENTS, model.settings.cutoff), stress=True)
    with STATES[state]():
        graph = neighbor_graph(atoms, ELEMENTS, model.settings.cutoff)
        actual = evaluate(model, graph, stress=True)
        shared = atomic_stresses(model, graph).sum(dim=0)
        trained = evaluate(model, graph, training=True)
    assert torch.equal(actual.forces, expected.forces)
    assert torch.equal(actual.stress, expected.stress)
    torch.testing.assert_close(shared, expected.stress[0], rtol=0, atol=1e-9)
    trained.forces.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.descriptor.parameters())


def test_states_of_others_hold_again_afterwards(file):
    with torch.inference_mode(), torch.autocast("cpu"), default_device_meta(), default_dtype(torch.float16):
        results(LRCCalculator(file))
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_device().type == "meta"
        assert torch.get_default_dtype() == torch.float16
        with undisturbed():
            assert not torch.is_inference_mode_enabled()
            assert torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")
            assert torch.zeros(1).device.type == "cpu"
        assert not torch.is_grad_enabled()
