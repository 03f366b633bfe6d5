"""The step without autograd against autograd, and the choice between the two."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed
from ase.md.verlet import VelocityVerlet
from structures import ELEMENTS, rattled_crystal, salt_water_slab, settings, shaken_model, water

from lrc_ase import LongRangeSettings, LRCCalculator, Potential, SphereSettings
from lrc_ase.models.baselines import ranges_from_data
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.inference import Evaluator
from lrc_ase.models.inference.step import StraightStep
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import neighbor_graph

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
COMPOSITIONS = {"NaCl": 0, "H2O": 0}


def wire():
    atoms = rattled_crystal()
    atoms.pbc = (False, False, True)
    return atoms


def cluster():
    """More atoms than are summed by pairs."""
    atoms = Atoms("NaCl" * 60, positions=np.random.default_rng(0).uniform(0, 14, (120, 3)))
    atoms.positions += np.arange(120)[:, None] // 20 * 3.0
    return atoms


STRUCTURES = {
    "crystal": rattled_crystal,
    "supercell": lambda: rattled_crystal(repeat=(2, 1, 2)),
    "slab": salt_water_slab,
    "wire": wire,
    "molecule": water,
    "cluster": cluster,
    "atom": lambda: Atoms("Na"),
    "ion in a cell": lambda: Atoms("Na", cell=[9.0, 8.0, 7.0], pbc=True),
}


def long_range(**changes):
    return LongRangeSettings(**({"accuracy": 1e-6, "compositions": COMPOSITIONS} | changes))


REPULSION = [{"zbl": {"ranges": ranges_from_data({"Na-Cl": 3.6, "O-H": 1.5}, ELEMENTS, {}, 4.5)}}]
"""With ranges longer than bonds."""
MODELS = {
    "transfers": settings(long_range=long_range(charges="transfers")),
    "shifted": settings(long_range=long_range(charges="shifted")),
    "one transfer": settings(long_range=long_range(charges="transfers", n_transfers=1, n_channels=1)),
    "charges alone": settings(long_range=long_range(n_channels=0)),
    "no charges": settings(long_range=long_range(electrostatics=False)),
    "short range": settings(long_range=None),
    "deep, compressed": settings(hidden=(12, 10, 8), descriptor=SphereSettings(compression=2.0)),
    "two blocks": settings(descriptor=SphereSettings(n_blocks=2, compression=4.0)),
    "two blocks, vectors": settings(descriptor=SphereSettings(n_blocks=2, neighbor_degree=1)),
    "two blocks, three vectors": settings(
        long_range=None, descriptor=SphereSettings(n_blocks=2, neighbor_degree=1, n_neighbor_features=3)
    ),
    "dipoles": settings(long_range=long_range(n_dipoles=2)),
    "polarizable": settings(long_range=long_range(polarizable=True, charges="shifted")),
    "polarizable, dipoles": settings(long_range=long_range(polarizable=True, n_dipoles=2)),
    "polarizable, dipoles, no channels": settings(
        long_range=long_range(polarizable=True, n_dipoles=2, n_channels=0, charges="shifted")
    ),
    "core repulsion": settings(baseline=REPULSION),
    "short range, core repulsion": settings(long_range=None, baseline=REPULSION),
    "vectors not filled": settings(descriptor=SphereSettings(n_channels=18)),
    "few channels": settings(descriptor=SphereSettings(n_channels=5, n_radial=3, degrees=(1, 3, 2))),
}


def frozen(model_settings, *, seed=0, dtype=torch.float64):
    return shaken_model(model_settings, seed=seed, dtype=dtype).requires_grad_(False)


def graph_of(atoms, *, skin=0.5, charge=0.0):
    atoms.info["charge"] = charge
    return neighbor_graph(atoms, ("H", "O", "Na", "Cl"), 4.5 + skin)


def assert_equal_to_autograd(model, graph, *, tolerance, evaluator=None):
    periodic = bool(graph.pbc.all())
    expected = evaluate(model, graph, stress=periodic, dipole=True)
    evaluator = evaluator or Evaluator(model)
    assert evaluator.goes_straight(graph)
    actual = evaluator(graph, dipole=True)
    assert actual.stress is None
    actual = replace(actual, stress=evaluator.stress()) if periodic else actual
    for name in ("energy", "atomic_energies", "forces", "stress", "charges", "dipole", "energy_std", "forces_std"):
        one, other = getattr(actual, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype, name
            assert one.shape == other.shape, name
            assert (one - other).abs().max() <= tolerance * max(float(other.abs().max()), 1.0), name


FEW_CHANNELS = pytest.param("few channels", marks=pytest.mark.slow)  # compiles its own kernels


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("model", [FEW_CHANNELS if model == "few channels" else model for model in MODELS])
def test_the_step_equals_autograd(model, structure):
    assert_equal_to_autograd(
        frozen(MODELS[model]), graph_of(STRUCTURES[structure]()), tolerance=TOLERANCE[torch.float64]
    )


@pytest.mark.parametrize("structure", ["crystal", "slab", "molecule"])
@pytest.mark.parametrize(
    "model",
    [
        "transfers",
        "shifted",
        "vectors not filled",
        FEW_CHANNELS,
        "two blocks, vectors",
        "core repulsion",
        "polarizable, dipoles",
    ],
)
def test_the_step_equals_autograd_in_single_precision(model, structure):
    model = frozen(MODELS[model], dtype=torch.float32)
    assert_equal_to_autograd(model, graph_of(STRUCTURES[structure]()), tolerance=TOLERANCE[torch.float32])


@pytest.mark.parametrize("structure", ["crystal", "slab", "molecule"])
@pytest.mark.parametrize("charge", [1.0, -2.0])
def test_the_step_equals_autograd_with_an_excess_of_charge(charge, structure):
    graph = graph_of(STRUCTURES[structure](), charge=charge)
    for model in ("transfers", "shifted", "charges alone", "polarizable", "polarizable, dipoles"):
        assert_equal_to_autograd(frozen(MODELS[model]), graph, tolerance=TOLERANCE[torch.float64])


@pytest.mark.parametrize("model", ["transfers", "polarizable, dipoles"])
@pytest.mark.parametrize("structure", ["crystal", "molecule"])
def test_the_step_of_an_ensemble_equals_autograd(structure, model):
    model = Ensemble([frozen(MODELS[model], seed=seed) for seed in range(3)])
    model.uncertainty_scale.copy_(torch.tensor([1.5, 2.0]))
    model.forces_floor.fill_(0.01)
    assert_equal_to_autograd(model, graph_of(STRUCTURES[structure]()), tolerance=TOLERANCE[torch.float64])


@pytest.mark.parametrize("model", ["transfers", "polarizable, dipoles"])
def test_one_evaluator_follows_structures_and_parameters(model):
    model = frozen(MODELS[model])
    evaluator, graph = Evaluator(model), graph_of(rattled_crystal())
    noise = torch.randn(graph.positions.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = replace(graph, positions=graph.positions + 0.05 * noise)
    recharged = replace(moved, charge=graph.charge + 1)
    strained = replace(moved, cell=graph.cell @ (torch.eye(3) + 0.01 * torch.ones(3, 3)).double())
    for one in (graph, moved, recharged, strained, graph_of(water()), graph_of(rattled_crystal(seed=1)), moved):
        assert_equal_to_autograd(model, one, tolerance=TOLERANCE[torch.float64], evaluator=evaluator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    assert_equal_to_autograd(model, moved, tolerance=TOLERANCE[torch.float64], evaluator=evaluator)
    model.float()
    assert_equal_to_autograd(model, moved, tolerance=TOLERANCE[torch.float32], evaluator=evaluator)


def test_a_structure_that_fails_halfway_leaves_the_step_whole(monkeypatch):
    step, large = StraightStep(frozen(MODELS["transfers"])), graph_of(rattled_crystal(repeat=(2, 1, 2)))
    small = graph_of(rattled_crystal())
    expected = step(small).forces

    def fail(graph):
        raise ValueError("no memory for the mesh")

    with monkeypatch.context() as patch:
        patch.setattr(step._long_range, "prepare", fail)
        with pytest.raises(ValueError, match="no memory"):
            step(large)
    assert torch.equal(step(small).forces, expected)


def test_results_stay_when_the_next_step_is_made():
    evaluator, graph = Evaluator(frozen(MODELS["transfers"])), graph_of(rattled_crystal())
    first = evaluator(graph)
    kept = first.forces.clone(), first.charges.clone(), first.atomic_energies.clone()
    evaluator(replace(graph, positions=graph.positions * 1.01))
    for before, after in zip(kept, (first.forces, first.charges, first.atomic_energies), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("model", ["transfers", "polarizable, dipoles"])
def test_threads_change_nothing_but_rounding(two_threads, model):
    assert_equal_to_autograd(
        frozen(MODELS[model]), graph_of(rattled_crystal(repeat=(2, 2, 1))), tolerance=TOLERANCE[torch.float64]
    )


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_what_the_step_does_not_follow_goes_by_autograd():
    model, graph = frozen(MODELS["transfers"]), graph_of(rattled_crystal())
    evaluator = Evaluator(model)
    assert evaluator.goes_straight(graph)
    assert not evaluator.goes_straight(collate([graph, graph]))
    trained = shaken_model(MODELS["transfers"])
    assert not Evaluator(trained).goes_straight(graph)
    model.descriptor.engine = "reference"
    assert not Evaluator(model).goes_straight(graph)


@pytest.mark.parametrize(
    "changes",
    [
        {"descriptor": {"name": "ponita", "n_layers": 1}},
        {"long_range": long_range(n_tensors=1)},
    ],
)
def test_models_that_the_step_does_not_follow_give_the_same_by_autograd(changes):
    model, graph = frozen(settings(**changes)), graph_of(rattled_crystal())
    evaluator = Evaluator(model)
    assert not evaluator.goes_straight(graph)
    expected = evaluate(model, graph, stress=True)
    assert torch.equal(evaluator(graph).forces, expected.forces)
    assert torch.equal(evaluator.stress(), expected.stress)


@pytest.fixture
def calculator():
    model = frozen(MODELS["transfers"])
    return LRCCalculator(Potential(model, torch.zeros(4, dtype=torch.float64)))


@pytest.fixture
def stresses(monkeypatch):
    """Record the stresses computed."""
    computed, original = [], StraightStep.stress
    monkeypatch.setattr(StraightStep, "stress", lambda step: computed.append(1) or original(step))
    return computed


def test_dynamics_at_constant_volume_compute_no_stress(calculator, stresses):
    atoms = rattled_crystal()
    atoms.calc = calculator
    VelocityVerlet(atoms, 0.5 * units.fs).run(3)
    atoms.get_potential_energy(), atoms.get_charges()
    assert not stresses


def test_stress_asked_for_after_the_forces_is_that_of_these_atoms(calculator, stresses):
    atoms = rattled_crystal()
    expected = evaluate(calculator.model, graph_of(atoms.copy(), skin=0.0), stress=True).stress[0]
    atoms.calc = calculator
    atoms.get_forces()
    assert calculator.get_property("stress", atoms, allow_calculation=False) is not None
    np.testing.assert_allclose(atoms.get_stress(voigt=False), expected, rtol=0, atol=1e-9 * abs(expected).max())
    atoms.get_stress()
    assert len(stresses) == 1
    atoms.positions[0] += 0.1
    assert calculator.get_property("stress", atoms, allow_calculation=False) is None
    first = atoms.get_stress()
    assert len(stresses) == 2
    assert np.array_equal(atoms.get_stress(), first)


def test_a_stress_that_failed_may_be_asked_again(calculator, monkeypatch):
    def fail(step):
        raise MemoryError

    atoms = rattled_crystal()
    atoms.calc = calculator
    atoms.get_forces()
    with monkeypatch.context() as patch:
        patch.setattr(StraightStep, "stress", fail)
        with pytest.raises(CalculationFailed, match="out of memory"):
            atoms.get_stress()
    assert np.isfinite(atoms.get_stress()).all()


def test_results_read_from_outside_hold_the_stress(calculator, stresses):
    atoms = rattled_crystal()
    atoms.calc = calculator
    atoms.get_forces()
    assert set(calculator.results) >= {"energy", "forces", "stress", "charges"}
    assert len(stresses) == 1
    atoms.pbc = False
    atoms.get_forces()
    assert "stress" not in calculator.results


def test_the_stress_is_that_of_the_structure_evaluated_last():
    evaluator = Evaluator(shaken_model().requires_grad_(False))
    crystal, slab = (neighbor_graph(atoms, ELEMENTS, 4.5) for atoms in (rattled_crystal(), salt_water_slab()))
    evaluator.with_stress(crystal)
    of_slab = evaluator.with_stress(slab)
    assert torch.equal(evaluator.stress(), of_slab.stress)
    assert torch.equal(evaluator.with_stress(crystal).stress, evaluator.stress())
    assert not torch.equal(evaluator.stress(), of_slab.stress)
