"""Symmetries, derivatives and batches of both models at all boundaries."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from structures import ELEMENTS, rattled_crystal, salt_water_slab, settings, shaken_model, water

from lrc_ase.models.atomic_stresses import atomic_stresses
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.model import FullRangeModel, ShortRangeModel, build_model, extend_to_full_range
from lrc_ase.models.settings import LongRangeSettings, SphereSettings
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import neighbor_graph

COULOMB_CONSTANT = 14.3996454785  # e^2 / (4 pi epsilon_0) in eV Angstrom, CODATA 2018

FRAMES = {"crystal": rattled_crystal, "molecule": water, "slab": salt_water_slab}
MODELS = {"short range": settings(long_range=False), "full range": settings()}


def graph_of(atoms, cutoff=4.5):
    return neighbor_graph(atoms, ELEMENTS, cutoff)


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return shaken_model(MODELS[request.param])


@pytest.fixture(params=FRAMES)
def atoms(request):
    return FRAMES[request.param]()


def results(model, atoms):
    actual = evaluate(model, graph_of(atoms), stress=True)
    return actual.energy[0], actual.forces, actual.stress[0], actual.atomic_energies


def test_translation_by_1000_angstrom(model, atoms):
    """The mesh sees the atoms at other places in its cells: the accuracy asked for, 1e-6, not rounding."""
    energy, forces, stress, _ = results(model, atoms)
    atoms.translate([1000.0, -777.7, 333.3])
    moved = results(model, atoms)
    rounding = not isinstance(model, FullRangeModel)
    torch.testing.assert_close(moved[0], energy, rtol=1e-12 if rounding else 1e-8, atol=0)
    for actual, expected in ((moved[1], forces), (moved[2], stress)):
        tolerance = (1e-11 if rounding else 1e-6) * float(expected.abs().max())
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", FRAMES)
def test_float32_keeps_its_digits_far_from_the_origin(name):
    model, atoms = shaken_model(dtype=torch.float32), FRAMES[name]()
    forces = results(model, atoms)[1]
    atoms.translate([1000.0, -777.7, 333.3])
    assert (results(model, atoms)[1] - forces).abs().max() < 2e-5 * forces.abs().max()


def test_lattice_shift_of_single_atoms(model):
    atoms = rattled_crystal()
    expected = results(model, atoms)
    atoms.positions[::2] += atoms.cell.array[0] - 2 * atoms.cell.array[2]
    for actual, reference in zip(results(model, atoms), expected, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-9, atol=1e-9)


def test_permutation(model, atoms):
    energy, forces, stress, atomic = results(model, atoms)
    order = np.random.default_rng(0).permutation(len(atoms))
    actual = results(model, atoms[order])
    torch.testing.assert_close(actual[0], energy, rtol=1e-11, atol=0)
    torch.testing.assert_close(actual[1], forces[order], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(actual[2], stress, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(actual[3], atomic[order], rtol=1e-9, atol=1e-9)


def test_rotation_of_atoms_with_their_cell(model, atoms):
    """To rounding; where that moves an atom across an edge of the window, to the window's jump there, below 1e-6."""
    energy, forces, stress, _ = results(model, atoms)
    rotation = Rotation.random(rng=np.random.default_rng(1)).as_matrix()
    atoms.set_cell(atoms.cell.array @ rotation.T)
    atoms.positions = atoms.positions @ rotation.T
    actual = results(model, atoms)
    turn = torch.from_numpy(rotation)
    tolerance = 1e-6 if isinstance(model, FullRangeModel) else 1e-10
    torch.testing.assert_close(actual[0], energy, rtol=0.1 * tolerance, atol=0)
    torch.testing.assert_close(actual[1], forces @ turn.T, rtol=0, atol=tolerance * float(forces.abs().max()))
    torch.testing.assert_close(actual[2], turn @ stress @ turn.T, rtol=0, atol=tolerance * float(stress.abs().max()))


def test_supercell_has_eight_times_the_energy(model):
    atoms = rattled_crystal()
    energy, forces, stress, _ = results(model, atoms)
    large = results(model, atoms.repeat(2))
    rounding = not isinstance(model, FullRangeModel)  # the mesh of the large cell has other points
    torch.testing.assert_close(large[0], 8 * energy, rtol=1e-13 if rounding else 1e-7, atol=0)
    for actual, expected in ((large[1], forces.repeat(8, 1)), (large[2], stress)):
        tolerance = (1e-12 if rounding else 5e-6) * float(expected.abs().max())
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def test_energy_of_far_fragments_adds_up():
    """Short range: beyond the cutoff nothing is felt, to the last digit."""
    model = shaken_model(MODELS["short range"])
    far = water()
    far.translate([30.0, 0, 0])
    pair = results(model, water() + far)
    torch.testing.assert_close(pair[0], 2 * results(model, water())[0], rtol=1e-12, atol=0)


def test_batch_equals_singles(model):
    frames = [make() for make in FRAMES.values()] + [rattled_crystal(seed=5), water()[:1]]
    batch = evaluate(model, collate([graph_of(atoms) for atoms in frames]), stress=True)
    singles = [evaluate(model, graph_of(atoms), stress=True) for atoms in frames]
    for name in ("energy", "forces", "stress", "atomic_energies"):
        expected = torch.cat([getattr(single, name) for single in singles])
        torch.testing.assert_close(getattr(batch, name), expected, rtol=1e-9, atol=1e-9)


def test_frames_of_a_batch_do_not_feel_each_other(model):
    first, second = rattled_crystal(), salt_water_slab()
    before = evaluate(model, collate([graph_of(first), graph_of(second)]))
    second.rattle(0.1, seed=9)
    after = evaluate(model, collate([graph_of(first), graph_of(second)]))
    torch.testing.assert_close(after.forces[: len(first)], before.forces[: len(first)], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", FRAMES)
def test_loss_on_forces_and_stress_differentiates_by_parameters(name):
    model = shaken_model(MODELS["full range"])
    atoms = FRAMES[name]()
    atoms.info["charge"] = 0.7
    graph = graph_of(atoms)

    def loss():
        actual = evaluate(model, graph, stress=True, training=True)
        return (actual.forces**2).sum() + (10 * actual.stress**2).sum() + actual.energy.sum()

    model.zero_grad()
    loss().backward()
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in model.parameters()]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(model.parameters(), direction, strict=True))
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            for parameter, d in zip(model.parameters(), direction, strict=True):
                parameter += step * d
        values.append(float(loss().detach()))
        with torch.no_grad():
            for parameter, d in zip(model.parameters(), direction, strict=True):
                parameter -= step * d
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def test_every_parameter_of_a_full_range_model_is_trained():
    model = shaken_model(MODELS["full range"])
    atoms = rattled_crystal() + water()
    atoms.info["charge"] = 1.0  # shares of the excess are trained on structures that have one
    actual = evaluate(model, graph_of(atoms), training=True)
    ((actual.forces**2).sum() + actual.energy.sum()).backward()
    idle = [name for name, parameter in model.named_parameters() if not (parameter.grad.abs().sum() > 0)]
    assert idle == []


def test_latent_charges_sum_to_the_total_charge():
    model = shaken_model()
    for make, charge in [(rattled_crystal, 0.0), (water, 1.0), (salt_water_slab, -2.0)]:
        atoms = make()
        atoms.info["charge"] = charge
        actual = evaluate(model, graph_of(atoms))
        assert float(actual.charges.sum()) == pytest.approx(charge, abs=1e-12)


def test_two_far_ions_attract_by_coulombs_law():
    model = shaken_model(settings(long_range=LongRangeSettings(n_channels=0)))
    atoms = water()[:1] + water()[:1]
    atoms.symbols[:] = ["Na", "Cl"]
    forces = []
    for distance in (10.0, 20.0):
        atoms.positions = [[0, 0, 0], [distance, 0, 0]]
        actual = evaluate(model, graph_of(atoms))
        forces.append(float(actual.forces[0, 0]))
        charge = float(actual.charges[0])
        assert forces[-1] == pytest.approx(COULOMB_CONSTANT * charge**2 / distance**2, rel=1e-9)
    assert forces[0] > 0


def test_extension_to_full_range_keeps_the_short_range_part():
    short = shaken_model(MODELS["short range"])
    full = extend_to_full_range(short, LongRangeSettings(), generator=torch.Generator().manual_seed(1))
    graph = graph_of(rattled_crystal())
    before, after = evaluate(short, graph), evaluate(full, graph)
    added = after.atomic_energies - before.atomic_energies
    charges = dict(zip(ELEMENTS, full.long_range.transfers.element_charges.tolist(), strict=True))
    assert charges["O"] < charges["H"] < charges["Na"]
    signs = 1 - 2.0 * (graph.species - 2)  # Na +, Cl -; ions are so far apart that transfers barely begin
    torch.testing.assert_close(after.charges, 1.115 / 2 * signs.double(), rtol=0, atol=0.04)
    assert (added < 0).all()
    assert full.settings.long_range == LongRangeSettings()
    without_charges = LongRangeSettings(electrostatics=False)
    exact = extend_to_full_range(short, without_charges, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(evaluate(exact, graph).forces, before.forces, rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match="already has a long-range part"):
        extend_to_full_range(full, LongRangeSettings())


def test_kind_of_model_follows_the_settings():
    assert type(build_model(MODELS["short range"])) is ShortRangeModel
    assert type(build_model(MODELS["full range"])) is FullRangeModel
    with pytest.raises(ValueError, match=r"needs `settings\.long_range`"):
        FullRangeModel(MODELS["short range"])
    with pytest.raises(ValueError, match="got none"):
        build_model(settings(long_range=LongRangeSettings(n_channels=0, electrostatics=False)))


def test_same_generator_same_model():
    models = [build_model(settings(), generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_evaluation_leaves_the_graph_alone():
    graph = graph_of(rattled_crystal())
    positions = graph.positions.clone()
    evaluate(shaken_model(), graph, stress=True)
    assert not graph.positions.requires_grad
    assert torch.equal(graph.positions, positions)


def test_values_of_an_ensemble_are_the_means_over_its_members():
    members = [shaken_model(seed=seed) for seed in (0, 1)]
    graph = graph_of(rattled_crystal())
    mean, outputs = Ensemble(members)(graph), [member(graph) for member in members]
    for name in ("atomic_energies", "charges"):
        one, other = (getattr(output, name) for output in outputs)
        assert (one - other).abs().max() > 1e-3
        torch.testing.assert_close(getattr(mean, name), 0.5 * (one + other), rtol=1e-12, atol=0)


def test_stresses_of_atoms_are_symmetric_and_sum_to_the_stress():
    """With vectors handed on, the virial of an atom's edges alone is not symmetric: neighbors feel its rotation."""
    descriptor = SphereSettings(n_channels=18, n_blocks=2, neighbor_degree=1)
    model, graph = shaken_model(settings(descriptor=descriptor)), graph_of(rattled_crystal())
    stresses = atomic_stresses(model, graph)
    torch.testing.assert_close(stresses, stresses.mT, rtol=0, atol=1e-15)
    torch.testing.assert_close(stresses.sum(0), evaluate(model, graph, stress=True).stress[0], rtol=1e-9, atol=1e-12)


def test_float32_agrees_with_float64():
    graph = graph_of(rattled_crystal())
    exact, single = evaluate(shaken_model(), graph), evaluate(shaken_model().float(), graph)
    assert (single.forces - exact.forces).abs().max() < 5e-6 * exact.forces.abs().max()
