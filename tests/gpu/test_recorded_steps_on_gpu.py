"""Steps that are recorded as CUDA graphs beside the same steps on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import units
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from structures import ELEMENTS, random_walk, rattled_crystal, settings, shaken_model, water
from test_models_on_gpu import MODELS
from test_programs_on_gpu import salt

from lrc_ase import LRCCalculator
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.inference.evaluator import Evaluator
from lrc_ase.structures.neighbors import NeighborList

RECORDED = [name for name in MODELS if name not in ("ponita", "paper")]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 5e-3}


@pytest.fixture(autouse=True)
def _needs_cuda(device):
    if device.type != "cuda":
        pytest.skip("CUDA graphs need a CUDA device")


def check(model, on_device, atoms, agree, tolerance, *, size=0.03, strain=0.0):
    """Compare forces, energies and stress along a walk; return the evaluator."""
    lists = [
        NeighborList(ELEMENTS, 4.5, device=where, mesh_shape_for=model.mesh_shape_for) for where in ("cpu", "cuda")
    ]
    evaluator = Evaluator(on_device.requires_grad_(False))
    for moved in random_walk(atoms, n_steps=8, size=size, strain=strain):
        expected = evaluate(model, lists[0].graph(moved), stress=True)
        actual = evaluator(lists[1].graph(moved))
        for name in ("energy", "atomic_energies", "forces", "charges"):
            agree(getattr(actual, name), getattr(expected, name), tolerance)
        if moved.pbc.all():
            agree(evaluator.stress(), expected.stress, tolerance)
    return evaluator


@pytest.mark.parametrize("strain", [0.0, 1e-3], ids=["fixed cell", "changing cell"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_steps_are_those_of_the_cpu(name, dtype, strain, moved, agree):
    model = shaken_model(MODELS[name])
    on_device = moved(model).to(dtype)
    atoms = rattled_crystal(repeat=(2, 1, 1))
    evaluator = check(model, on_device, atoms, agree, TOLERANCE[dtype], strain=strain)
    assert evaluator._recorded is not None
    assert evaluator._recorded._cell_changes == bool(strain)


def test_steps_of_an_ensemble_are_recorded(moved, agree):
    ensemble = Ensemble([shaken_model(settings(), seed=seed) for seed in range(2)])
    evaluator = check(ensemble, moved(ensemble), rattled_crystal(), agree, 1e-9)
    assert evaluator._recorded is not None


def test_molecules_of_short_range_models_are_recorded(moved, agree):
    model = shaken_model(settings(long_range=False))
    assert check(model, moved(model), water(), agree, 1e-9)._recorded is not None


def test_neighbors_are_searched_anew_under_a_recorded_step(moved, agree):
    model = shaken_model(MODELS["full range"])
    evaluator = check(model, moved(model), rattled_crystal(repeat=(2, 2, 1)), agree, 1e-9, size=0.2)
    assert evaluator._recorded is not None


def test_another_cell_charge_or_weight_ends_the_recording(moved, agree):
    model = shaken_model(MODELS["full range"])
    on_device = moved(model)
    atoms = rattled_crystal(repeat=(2, 1, 1))
    evaluator = check(model, on_device, atoms, agree, 1e-9)
    for change in ("cell", "charge", "weight"):
        first = evaluator._recorded
        if change == "cell":
            atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)
        elif change == "charge":
            atoms.info["charge"] = 1.0
        else:
            with torch.no_grad():
                for each in (model, on_device):
                    next(each.parameters()).mul_(1.1)
        lists = [
            NeighborList(ELEMENTS, 4.5, device=where, mesh_shape_for=model.mesh_shape_for) for where in ("cpu", "cuda")
        ]
        for each in random_walk(atoms, n_steps=8, size=0.03):
            actual, expected = evaluator(lists[1].graph(each)), evaluate(model, lists[0].graph(each))
            agree(actual.forces, expected.forces, 1e-9)
            agree(actual.energy, expected.energy, 1e-9)
        assert evaluator._recorded is not None
        assert evaluator._recorded is not first


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["nacl", "water-pbe0-ts", "nacl-water-revpbe0-d3"])
def test_shipped_potentials_run_by_recorded_steps(name, dtype):
    import lrc_ase

    atoms = salt(repeat=(2, 2, 2)) if name == "nacl" else lrc_ase.start_structure(name)
    other = atoms.copy()
    atoms.calc = LRCCalculator(name, device="cuda", dtype=dtype)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    VelocityVerlet(atoms, 0.5 * units.fs).run(60)
    assert atoms.calc._evaluate._recorded is not None
    other.positions = atoms.positions
    other.calc = LRCCalculator(name)
    tolerance = 1e-9 if dtype == "float64" else 1e-3
    np.testing.assert_allclose(atoms.get_forces(), other.get_forces(), rtol=0, atol=tolerance)
    np.testing.assert_allclose(atoms.get_stress(), other.get_stress(), rtol=0, atol=tolerance)


def test_a_reset_repeats_a_trajectory_to_the_last_bit():
    ends = []
    for _ in range(2):
        atoms = salt(repeat=(2, 2, 2))
        atoms.calc = atoms.calc or LRCCalculator("nacl", device="cuda", dtype="float32")
        for each in random_walk(atoms, n_steps=10, size=0.03):
            forces = each.get_forces()
        atoms.calc.reset()
        ends.append(forces)
    np.testing.assert_array_equal(ends[0], ends[1])
