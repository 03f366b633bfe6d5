"""`ponita` alone: its kernels, its vectors, its approximate invariance, and the turning grid."""

import copy
import signal

import numpy as np
import pytest
import torch
from structures import ELEMENTS, rattled_crystal, settings, shaken_model
from test_descriptor_family import surroundings
from training_frames import TINY_MODEL, two_stage_configuration, write_frames

from lrc_ase.files.potential_file import load_potential
from lrc_ase.models.descriptors import PonitaDescriptor
from lrc_ase.models.descriptors.orientations import even_directions, random_rotation
from lrc_ase.models.descriptors.ponita import _Basis
from lrc_ase.models.equivariance import rotation_error
from lrc_ase.models.settings import PonitaSettings, SphereSettings
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.training import TrainingInterrupted, train
from lrc_ase.training.loop import StageLoop

CUTOFF = 4.5


def made(**changes):
    chosen = PonitaSettings(n_channels=6, n_basis=8, n_layers=2).model_copy(update=changes)
    generator = torch.Generator().manual_seed(0)
    return (
        PonitaDescriptor(chosen, n_elements=4, cutoff=CUTOFF, average_neighbors=9, generator=generator).double().eval()
    )


@torch.no_grad()
def test_one_block_is_the_formula():
    """Sums over neighbors and orientations written out, with the networks taken as they are."""
    descriptor = made(n_layers=1, n_orientations=6)
    vectors, mask, species, neighbors = surroundings(n_atoms=2, n_neighbors=3)
    grid = torch.nn.functional.normalize(descriptor.orientations, dim=1)
    block = descriptor.blocks[0]

    def basis_of(network, *invariants):
        return network([torch.tensor([value], dtype=torch.float64) for value in invariants])[0]

    sphere = torch.stack([torch.stack([basis_of(descriptor.sphere_basis, float(o @ p)) for p in grid]) for o in grid])
    sphere = sphere - sphere.mean(dim=1, keepdim=True)
    sphere = torch.cat([sphere, torch.ones(6, 6, 1, dtype=torch.float64)], dim=-1) @ block.sphere_kernel.weight.T
    expected = torch.zeros(2, 6, dtype=torch.float64)
    for atom in range(2):
        gathered = torch.zeros(6, 6, dtype=torch.float64)
        for column in range(3):
            r = float(vectors[atom, column].norm())
            if not mask[atom, column] or r >= CUTOFF:
                continue
            x = r / CUTOFF
            envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
            embedding = descriptor.species[species[neighbors[atom, column]]]
            for index, o in enumerate(grid):
                pair = basis_of(descriptor.pair_basis, float(o @ vectors[atom, column]) / CUTOFF, 2 * x - 1)
                gathered[index] += envelope * (block.pair_kernel.weight @ pair) * embedding / 3.0
        gathered *= block.center_scale[species[atom]]
        convolved = torch.einsum("poc,oc->pc", sphere, gathered) / 6
        variance = convolved.var(dim=1, correction=0, keepdim=True)
        normed = (convolved - convolved.mean(dim=1, keepdim=True)) / (variance + 1).sqrt() * block.norm.weight
        expanded = normed @ block.expand.weight.T
        mixed = (expanded / (1 + torch.exp(-expanded - block.gate))) @ block.contract.weight.T
        expected[atom] = (block.scale * mixed).mean(dim=0)
    torch.testing.assert_close(descriptor(vectors, mask, species, neighbors), expected, rtol=1e-10, atol=1e-12)


def test_basis_starts_from_all_monomials_up_to_the_degree():
    assert len(_Basis(2, PonitaSettings(), None).monomials) == 2 + 3 + 4
    assert len(_Basis(1, PonitaSettings(degree=5), None).monomials) == 5


def test_invariance_converges_with_the_number_of_orientations():
    vectors, *rest = surroundings(n_atoms=10)
    turns = [random_rotation(torch.Generator().manual_seed(seed)) for seed in range(4)]
    errors = []
    with torch.no_grad():
        for n in (8, 20, 80):
            descriptor = made(n_orientations=n)
            features = descriptor(vectors, *rest)
            errors.append(max(float((descriptor(vectors @ t.T, *rest) - features).norm()) for t in turns))
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 4


@torch.no_grad()
def test_vectors_turn_with_the_surroundings():
    descriptor = made(n_orientations=80)
    vectors, *rest = surroundings(n_atoms=10)
    turn = random_rotation(torch.Generator().manual_seed(3))
    actual = descriptor.vector_features(vectors, *rest)
    assert actual.shape == (10, 6, 3)
    change = descriptor.vector_features(vectors @ turn.T, *rest) - actual @ turn.T
    assert change.norm() < 0.05 * actual.norm()
    nothing = descriptor.vector_features(vectors, torch.zeros_like(rest[0]), *rest[1:])
    assert (nothing == 0).all()


def test_rotation_error_tells_sphere_from_ponita():
    graph = neighbor_graph(rattled_crystal(), ELEMENTS, CUTOFF)
    generator = torch.Generator().manual_seed(0)
    actual = {}
    for chosen in (
        SphereSettings(n_channels=6),
        PonitaSettings(n_channels=6, n_basis=8),
        PonitaSettings(n_orientations=6),
    ):
        model = shaken_model(settings(descriptor=chosen, long_range=False)).eval()
        actual[chosen] = rotation_error(model, graph, n_rotations=3, generator=generator)
    sphere, ponita, coarse = actual.values()
    assert max(sphere.features, sphere.relative_forces) < 1e-11
    assert sphere.energy < 1e-11
    assert 1e-6 < ponita.features < 0.1
    assert ponita.features < coarse.features
    assert ponita.relative_forces < coarse.relative_forces
    assert ponita.energy > 0


def test_grid_turns_in_training_alone_and_by_its_own_counter():
    vectors, *rest = surroundings()
    descriptor = made(rotate_grid=True, n_orientations=6)
    still = descriptor(vectors, *rest)
    assert torch.equal(descriptor(vectors, *rest), still)
    descriptor.train()
    state = copy.deepcopy(descriptor.state_dict())
    first, second = descriptor(vectors, *rest), descriptor(vectors, *rest)
    assert not torch.allclose(first, second)
    descriptor.load_state_dict(state)
    assert torch.equal(descriptor(vectors, *rest), first)
    assert torch.equal(descriptor(vectors, *rest), second)
    fixed = made(n_orientations=6).train()
    assert torch.equal(fixed(vectors, *rest), fixed(vectors, *rest))


def test_training_with_a_turning_grid_resumes_bit_equal(tmp_path, monkeypatch):
    write_frames(tmp_path)
    chosen = {"name": "ponita", "rotate_grid": True, "n_orientations": 4, "n_channels": 3, "n_basis": 3, "n_layers": 1}
    configuration = two_stage_configuration(tmp_path, epochs=2, model={**TINY_MODEL, "descriptor": chosen})
    trained = load_potential(train(configuration, tmp_path / "whole", quiet=True))
    assert 1e-6 < trained.description["rotation_error"]["features"] < 1
    whole = trained.model.state_dict()
    average, done = StageLoop._average, [0]

    def average_and_signal(loop):
        average(loop)
        done[0] += 1
        if done[0] == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(StageLoop, "_average", average_and_signal)
    with pytest.raises(TrainingInterrupted):
        train(configuration, tmp_path / "parts", quiet=True)
    parts = load_potential(train(None, tmp_path / "parts", resume=True, quiet=True)).model.state_dict()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("n", [4, 7, 12, 20, 50])
def test_directions_are_spread_evenly(n):
    directions = even_directions(n)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(directions.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(directions.T @ directions / n, np.eye(3) / 3, atol=0.03)
    np.testing.assert_allclose(even_directions(n), directions, atol=0)
    if n == 12:  # the icosahedron: neighbors at 63.4 degrees
        cosines = np.sort(directions @ directions.T, axis=1)[:, -2]
        np.testing.assert_allclose(cosines, 1 / np.sqrt(5), atol=1e-5)


def test_random_rotations_are_uniform():
    generator = torch.Generator().manual_seed(0)
    rotations = torch.stack([random_rotation(generator) for _ in range(2000)])
    identity = torch.eye(3, dtype=torch.float64).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), identity, rtol=0, atol=1e-14)
    assert (torch.linalg.det(rotations) > 0).all()
    assert rotations.mean(dim=0).abs().max() < 0.05
    torch.testing.assert_close((rotations**2).mean(dim=0), torch.full((3, 3), 1 / 3).double(), rtol=0, atol=0.03)
