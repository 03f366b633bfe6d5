"""The step without autograd in a uniform electric field, against autograd."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from structures import rattled_crystal, settings, water
from test_inference import MODELS, STRUCTURES, TOLERANCE, assert_equal_to_autograd, frozen, graph_of, long_range

from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.inference import Evaluator

SCREENED = {
    "transfers, screened": settings(long_range=long_range(eps_inf=2.25)),
    "dipoles, screened": settings(long_range=long_range(n_dipoles=2, eps_inf=2.25)),
    "shifted, screened": settings(long_range=long_range(charges="shifted", eps_inf=2.25)),
}
IN_FIELD = {name: MODELS[name] for name in ("transfers", "shifted", "polarizable", "polarizable, dipoles")} | SCREENED


def in_field(graph, *, field=(0.1, -0.2, 0.3)):
    """Atoms of a few are counted in other images."""
    images = np.random.default_rng(0).integers(-1, 2, (graph.n_atoms, 3)) * graph.pbc.numpy()
    return replace(graph, field=torch.tensor([field]).double(), images=torch.from_numpy(images).double())


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("model", IN_FIELD)
def test_the_step_in_a_field_equals_autograd(model, structure):
    graph = in_field(graph_of(STRUCTURES[structure]()))
    assert_equal_to_autograd(frozen(IN_FIELD[model]), graph, tolerance=TOLERANCE[torch.float64])


@pytest.mark.parametrize("structure", ["crystal", "slab", "molecule"])
@pytest.mark.parametrize("model", ["transfers", "shifted", "polarizable, dipoles", "dipoles, screened"])
def test_the_step_in_a_field_equals_autograd_in_single_precision(model, structure):
    graph = in_field(graph_of(STRUCTURES[structure]()))
    assert_equal_to_autograd(frozen(IN_FIELD[model], dtype=torch.float32), graph, tolerance=TOLERANCE[torch.float32])


@pytest.mark.parametrize("model", IN_FIELD)
def test_the_excess_of_charge_in_a_field_equals_autograd(model):
    for atoms in (water(), rattled_crystal()[:7]):
        charge = 0.0 if atoms.pbc.all() else -1.0  # seven ions leave charge over in a neutral cell
        graph = in_field(graph_of(atoms, charge=charge))
        assert_equal_to_autograd(frozen(IN_FIELD[model]), graph, tolerance=TOLERANCE[torch.float64])


def test_an_ensemble_in_a_field_equals_autograd():
    model = Ensemble([frozen(IN_FIELD["transfers"], seed=seed) for seed in range(3)])
    assert_equal_to_autograd(model, in_field(graph_of(rattled_crystal())), tolerance=TOLERANCE[torch.float64])


def test_one_evaluator_follows_the_field():
    model, graph = frozen(IN_FIELD["polarizable, dipoles"]), graph_of(rattled_crystal())
    evaluator = Evaluator(model)
    for one in (graph, in_field(graph), in_field(graph, field=(0.0, 0.0, 0.5)), graph):
        assert_equal_to_autograd(model, one, tolerance=TOLERANCE[torch.float64], evaluator=evaluator)


def test_charge_without_a_path_is_told_in_a_field():
    graph = in_field(graph_of(rattled_crystal()))
    assert Evaluator(frozen(MODELS["transfers"]))(graph).pathless_charges is None
    results = Evaluator(frozen(MODELS["shifted"]))(graph)
    assert torch.equal(results.pathless_charges, results.charges)


@pytest.mark.parametrize("model", ["no charges", "short range"])
def test_a_field_needs_charges(model):
    evaluator, graph = Evaluator(frozen(MODELS[model])), in_field(graph_of(rattled_crystal()))
    assert evaluator.goes_straight(graph)
    with pytest.raises(ValueError, match="acts on latent charges, and this model has none"):
        evaluator(graph)


def test_a_field_on_a_charged_cell_is_refused_after_a_step_in_a_neutral_one():
    evaluator, graph = Evaluator(frozen(MODELS["transfers"])), in_field(graph_of(rattled_crystal()))
    evaluator(graph)
    with pytest.raises(ValueError, match="needs a neutral cell"):
        evaluator(replace(graph, charge=graph.charge + 1))
    evaluator(graph)
