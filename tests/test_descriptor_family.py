"""Tests that every descriptor must pass; tests of a single descriptor have a separate file."""

import numpy as np
import pytest
import torch
from ase.calculators.fd import calculate_numerical_forces
from structures import ELEMENTS, rattled_crystal, salt_water_slab, settings, shaken_model, surroundings, water

from lrc_ase import LRCCalculator, Potential, load_potential, save_potential
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.descriptors import build_descriptor
from lrc_ase.models.descriptors.orientations import random_rotation
from lrc_ase.models.registry import descriptor_class
from lrc_ase.models.settings import PaperSettings, PonitaSettings, SphereSettings
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import neighbor_graph

CUTOFF = 4.5
FAMILY = {
    "sphere": SphereSettings(n_channels=18),
    "ponita": PonitaSettings(n_channels=6, n_basis=8, n_layers=2),
    "paper": PaperSettings(widths=(2, 4, 8)),
}
REACH = {"ponita": 2}
"""Cutoffs that the features of an atom see, where they are more than one."""
ROTATION = {"sphere": 1e-12, "ponita": 0.2}
"""Bound on the relative change of features under rotation. `paper` is not invariant and makes no promise."""


@pytest.fixture(params=FAMILY)
def name(request):
    return request.param


@pytest.fixture
def descriptor(name):
    return made(name)


def made(name, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    built = build_descriptor(FAMILY[name], n_elements=4, cutoff=CUTOFF, average_neighbors=9, generator=generator)
    return built.to(dtype).eval()


def model_of(name, *, seed=0, **changes):
    return shaken_model(settings(descriptor=FAMILY[name], **changes), seed=seed).eval()


def test_class_and_settings_name_each_other(name, descriptor):
    assert FAMILY[name].name == name
    assert type(descriptor) is descriptor_class(FAMILY[name].name)


def test_same_generator_same_weights(name, descriptor):
    for one, other in zip(descriptor.state_dict().values(), made(name).state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_atoms_and_neighbors_may_come_in_any_order(descriptor):
    vectors, mask, species, neighbors = surroundings()
    features = descriptor(vectors, mask, species, neighbors)
    assert features.shape == (3, descriptor.n_features)
    assert features.std() > 1e-3
    columns = torch.tensor([4, 2, 0, 8, 6, 7, 5, 3, 1])
    shuffled = descriptor(vectors[:, columns], mask[:, columns], species, neighbors[:, columns])
    torch.testing.assert_close(shuffled, features, rtol=1e-11, atol=1e-12)
    rows = torch.tensor([2, 0, 1])
    renamed = torch.argsort(rows)[neighbors[rows]]
    permuted = descriptor(vectors[rows], mask[rows], species[rows], renamed)
    torch.testing.assert_close(permuted, features[rows], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("length", [0.0, 1.0, 1e6])
def test_padding_is_ignored(descriptor, length):
    vectors, mask, species, neighbors = surroundings()
    features = descriptor(vectors, mask, species, neighbors)
    spoiled = torch.where(mask[..., None], vectors, torch.tensor([0.0, 0.0, length], dtype=torch.float64))
    torch.testing.assert_close(descriptor(spoiled, mask, species, neighbors), features, rtol=0, atol=0)
    wide = (
        torch.nn.functional.pad(spoiled, (0, 0, 0, 4)),
        torch.nn.functional.pad(mask, (0, 4)),
        species,
        torch.nn.functional.pad(neighbors, (0, 4)),
    )
    torch.testing.assert_close(descriptor(*wide), features, rtol=1e-11, atol=1e-12)


def test_beyond_the_cutoff_nothing_is_felt(descriptor):
    vectors, mask, species, neighbors = surroundings()
    vectors[:, 0] *= (CUTOFF + 0.01) / vectors[:, 0].norm(dim=-1, keepdim=True)
    mask[:, 0] = True
    seen = descriptor(vectors, mask, species, neighbors)
    mask[:, 0] = False
    torch.testing.assert_close(seen, descriptor(vectors, mask, species, neighbors), rtol=0, atol=0)


@pytest.mark.parametrize("n_columns", [0, 1, 3])
def test_no_neighbors_gives_zero_features_and_finite_gradients(descriptor, n_columns):
    vectors = torch.zeros(2, n_columns, 3, dtype=torch.float64, requires_grad=True)
    neighbors = torch.tensor([[0], [1]]).expand(2, n_columns)
    features = descriptor(vectors, torch.zeros(2, n_columns, dtype=torch.bool), torch.tensor([0, 1]), neighbors)
    assert features.shape == (2, descriptor.n_features)
    assert (features == 0).all()
    (gradient,) = torch.autograd.grad(features.sum(), vectors, materialize_grads=True)
    assert (gradient == 0).all()


def moved_neighbor(descriptor, distance):
    """Sum of features with one neighbor at `distance` along z among two others."""
    others = torch.tensor([[[1.5, 0.5, 0.0], [0.0, -2.0, 1.0]]]).to(distance)
    rest = torch.ones(1, 3, dtype=torch.bool), torch.tensor([0]), torch.tensor([[0, 0, 0]])
    vector = torch.stack([torch.zeros_like(distance), torch.zeros_like(distance), distance]).reshape(1, 1, 3)
    return descriptor(torch.cat([others, vector], dim=1), *rest).sum()


def derivatives(descriptor, distance, dtype=torch.float64):
    r = torch.tensor(distance, dtype=dtype, requires_grad=True)
    value = moved_neighbor(descriptor, r)
    (first,) = torch.autograd.grad(value, r, create_graph=True)
    (second,) = torch.autograd.grad(first, r)
    return value.item(), first.item(), second.item()


def test_value_slope_and_curvature_vanish_at_the_cutoff(descriptor):
    beyond = derivatives(descriptor, CUTOFF + 1e-9)
    assert beyond[1:] == (0.0, 0.0)
    bulk = derivatives(descriptor, CUTOFF / 2)
    assert min(map(abs, bulk)) > 1e-4
    for gap in (1e-2, 1e-4, 1e-6):
        value, first, second = derivatives(descriptor, CUTOFF - gap)
        assert abs(value - beyond[0]) < gap**2
        assert abs(first) < gap * abs(bulk[1])
        assert abs(second) < 10 * gap * abs(bulk[2]) * 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [0.3, CUTOFF - 1e-6, CUTOFF])
def test_close_and_far_neighbors_give_finite_values_and_derivatives(name, distance, dtype):
    assert np.isfinite(derivatives(made(name, dtype), distance, dtype)).all()


def test_derivatives_match_finite_differences(descriptor):
    vectors, *rest = surroundings(n_atoms=2, n_neighbors=3)
    vectors.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: descriptor(v, *rest), [vectors])
    assert torch.autograd.gradgradcheck(lambda v: descriptor(v, *rest), [vectors], rtol=1e-2, atol=1e-4)


@torch.no_grad()
def test_rotation_changes_features_by_no_more_than_promised(name, descriptor):
    vectors, *rest = surroundings(n_atoms=20)
    features = descriptor(vectors, *rest)
    change = descriptor(vectors @ random_rotation(torch.Generator().manual_seed(3)).T, *rest) - features
    relative = float(change.norm() / features.norm())
    assert relative < ROTATION.get(name, np.inf)
    if name not in ROTATION:
        assert relative > 0.01  # else the promise could be made


def test_elements_of_neighbors_matter(descriptor):
    vectors, mask, _, neighbors = surroundings(n_atoms=2)
    neighbors[:] = torch.tensor([[1], [0]])  # the species of an atom itself does not enter here
    one, other = (descriptor(vectors, mask, torch.tensor(species), neighbors)[0] for species in ([0, 1], [0, 2]))
    assert (one - other).abs().max() > 1e-3 * one.abs().max()


def test_one_atom_has_the_energy_of_its_element(name):
    model = model_of(name, long_range=False)
    graph = neighbor_graph(water()[:1], ELEMENTS, CUTOFF)
    nothing = torch.zeros(1, model.descriptor.n_features, dtype=torch.float64)
    actual = evaluate(model, graph)
    torch.testing.assert_close(actual.energy, model.readout(nothing, graph.species).detach())
    assert (actual.forces == 0).all()


def test_supercell_has_eight_times_the_energy(name):
    model, atoms = model_of(name, long_range=False), rattled_crystal()
    one, many = (evaluate(model, neighbor_graph(a, ELEMENTS, CUTOFF), stress=True) for a in (atoms, atoms.repeat(2)))
    torch.testing.assert_close(many.energy, 8 * one.energy, rtol=1e-11, atol=0)
    torch.testing.assert_close(many.forces, one.forces.repeat(8, 1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(many.stress, one.stress, rtol=1e-9, atol=1e-10)


def test_far_fragments_do_not_feel_each_other(name):
    model, near = model_of(name, long_range=False), water()
    far = water()
    far.translate([REACH.get(name, 1) * CUTOFF + 3.0, 0, 0])
    both, one, other = (evaluate(model, neighbor_graph(a, ELEMENTS, CUTOFF)) for a in (near + far, near, far))
    torch.testing.assert_close(both.atomic_energies, torch.cat([one.atomic_energies, other.atomic_energies]))


def test_batch_equals_singles(name):
    model = model_of(name)
    graphs = [neighbor_graph(a, ELEMENTS, CUTOFF) for a in (rattled_crystal(), water(), salt_water_slab(), water()[:1])]
    batch, singles = evaluate(model, collate(graphs)), [evaluate(model, graph) for graph in graphs]
    torch.testing.assert_close(batch.energy, torch.cat([single.energy for single in singles]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(batch.forces, torch.cat([single.forces for single in singles]), rtol=1e-9, atol=1e-9)


def test_forces_of_several_elements_match_finite_differences(name):
    """The contract suite has two elements, at all boundaries; here are four."""
    atoms = salt_water_slab()
    references = torch.zeros(len(ELEMENTS), dtype=torch.float64)
    atoms.calc = LRCCalculator(Potential(model_of(name), references), dtype=torch.float64)
    forces = atoms.get_forces()
    chosen = [0, len(atoms) - 1]
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=chosen)
    np.testing.assert_allclose(forces[chosen], numerical, rtol=0, atol=1e-5 * abs(forces).max())


def test_every_parameter_is_trained(name):
    model = model_of(name)
    atoms = rattled_crystal() + water()
    atoms.info["charge"] = 1.0  # leaves an excess, without which its shares stay as they are
    actual = evaluate(model, neighbor_graph(atoms, ELEMENTS, CUTOFF), training=True)
    ((actual.forces**2).sum() + actual.energy.sum()).backward()
    assert [key for key, parameter in model.named_parameters() if not (parameter.grad.abs().sum() > 0)] == []


def test_saved_potential_comes_back_bit_equal(name, tmp_path):
    graph = neighbor_graph(rattled_crystal(), ELEMENTS, CUTOFF)
    model = model_of(name).float()
    save_potential(tmp_path / "p.safetensors", Potential(model, torch.zeros(4, dtype=torch.float64)))
    loaded = load_potential(tmp_path / "p.safetensors")
    assert loaded.settings.descriptor == FAMILY[name]
    assert torch.equal(evaluate(loaded.model, graph).forces, evaluate(model, graph).forces)


def test_float32_agrees_with_float64(name):
    graph = neighbor_graph(rattled_crystal(), ELEMENTS, CUTOFF)
    exact, single = evaluate(model_of(name), graph), evaluate(model_of(name).float(), graph)
    assert (single.forces - exact.forces).abs().max() < 1e-4 * exact.forces.abs().max()
