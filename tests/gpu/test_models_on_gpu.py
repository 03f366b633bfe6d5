"""Models on a GPU beside the CPU: every property, descriptor and scheme of charges, and the gradients of training."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from structures import ELEMENTS, rattled_crystal, salt_water_slab, settings, shaken_model, water

from lrc_ase import LongRangeSettings, PaperSettings, PonitaSettings, SphereSettings
from lrc_ase.models.atomic_stresses import atomic_stresses
from lrc_ase.models.baseline_settings import ZBLSettings
from lrc_ase.models.baselines import ranges_from_data
from lrc_ase.models.derivatives import (
    Results,
    born_effective_charges,
    dipole_moment,
    evaluate,
    polarizability,
)
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import neighbor_graph

SHIFTED = LongRangeSettings(charges="shifted", accuracy=1e-6)
EQUIVARIANT = SphereSettings(n_channels=8, n_blocks=2, neighbor_degree=1, compression=4.0)
REPULSION = ZBLSettings(ranges=ranges_from_data({}, ELEMENTS, {}, 4.5))  # covalent radii: some pairs are closer
MODELS = {
    "short range": settings(long_range=False),
    "full range": settings(),
    "shifted charges": settings(long_range=SHIFTED),
    "in an insulator": settings(long_range=LongRangeSettings(accuracy=1e-6, eps_inf=2.5)),
    "dipoles and tensors": settings(
        long_range=LongRangeSettings(accuracy=1e-6, polarizable=True, n_dipoles=2, n_tensors=2)
    ),
    "two blocks of scalars": settings(descriptor=SphereSettings(n_channels=8, n_blocks=2)),
    "two blocks of vectors": settings(descriptor=EQUIVARIANT),
    "core repulsion": settings(baseline=(REPULSION,)),
    "ponita": settings(descriptor=PonitaSettings(n_channels=8, n_layers=2)),
    "paper": settings(descriptor=PaperSettings(widths=(4, 8))),
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 5e-3}


def batch(*, charge=0.0):
    """A crystal smaller than the cutoff, a slab and a molecule in one batch."""
    frames = [rattled_crystal(), salt_water_slab(), water()]
    frames[-1].info["charge"] = charge
    return collate([neighbor_graph(atoms, ELEMENTS, 4.5) for atoms in frames])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("name", MODELS)
def test_energies_forces_stress_and_charges_are_those_of_the_cpu(name, dtype, device, moved, agree):
    model, graph = shaken_model(MODELS[name]), batch(charge=1.0)
    expected = evaluate(model, graph, stress=True, dipole=True)
    actual = evaluate(moved(model.to(dtype)), graph.to(device), stress=True, dipole=True)
    assert actual.forces.device.type == device.type
    for field in fields(Results):
        agree(getattr(actual, field.name), getattr(expected, field.name), TOLERANCE[dtype])


def test_an_ensemble_is_that_of_the_cpu(device, moved, agree):
    ensemble, graph = Ensemble([shaken_model(settings(), seed=seed) for seed in range(3)]), batch()
    expected, actual = evaluate(ensemble, graph), evaluate(moved(ensemble), graph.to(device))
    for field in fields(Results):
        agree(getattr(actual, field.name), getattr(expected, field.name), 1e-8)


@pytest.mark.parametrize("name", ["full range", "shifted charges", "dipoles and tensors", "two blocks of vectors"])
def test_responses_are_those_of_the_cpu(name, device, moved, agree):
    model, graph = shaken_model(MODELS[name]), neighbor_graph(rattled_crystal(), ELEMENTS, 4.5)
    on_device, there = moved(model), graph.to(device)
    for response in (born_effective_charges, dipole_moment, polarizability, atomic_stresses):
        agree(response(on_device, there), response(model, graph), 1e-8)


@pytest.mark.parametrize("name", ["full range", "in an insulator", "dipoles and tensors"])
def test_forces_in_a_field_are_those_of_the_cpu(name, device, moved, agree):
    atoms = rattled_crystal()
    atoms.info["external_field"] = (0.1, -0.05, 0.02)
    model, graph = shaken_model(MODELS[name]), neighbor_graph(atoms, ELEMENTS, 4.5)
    expected = evaluate(model, graph, stress=True, dipole=True)
    actual = evaluate(moved(model), graph.to(device), stress=True, dipole=True)
    for field in fields(Results):
        agree(getattr(actual, field.name), getattr(expected, field.name), 1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_loss_on_forces_are_those_of_the_cpu(name, device, moved, agree):
    model, graph = shaken_model(MODELS[name]), batch()
    gradients = []
    for each, where in ((model, graph), (moved(model), graph.to(device))):
        results = evaluate(each, where, stress=True, training=True)
        loss = results.energy.square().sum() + results.forces.square().sum() + results.stress.square().sum()
        gradients.append(torch.autograd.grad(loss, list(each.parameters()), allow_unused=True))
    for actual, expected in zip(gradients[1], gradients[0], strict=True):
        agree(actual, expected, 1e-7)
