import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from structures import ELEMENTS, rattled_crystal, surroundings

from lrc_ase.models.descriptors import SphereDescriptor
from lrc_ase.models.descriptors.sphere import real_spherical_harmonics, reference
from lrc_ase.models.descriptors.sphere.element_order import ElementOrder
from lrc_ase.models.descriptors.sphere.moments import moments
from lrc_ase.models.settings import SphereSettings
from lrc_ase.structures.neighbors import neighbor_graph

CUTOFF = 4.5


def descriptor(*, dtype=torch.float64, n_channels=18, **changes):
    """Return a descriptor whose channels do not fill the last vector of a kernel, in either precision.

    Kernels are those of the default settings unless the degrees differ.
    """
    shape_settings = SphereSettings(n_channels=n_channels, **changes)
    sphere_descriptor = SphereDescriptor(
        shape_settings, n_elements=4, cutoff=CUTOFF, average_neighbors=20, generator=torch.Generator().manual_seed(0)
    )
    return sphere_descriptor.to(dtype)


TWO_BLOCKS = {"n_blocks": 2}
VECTORS = TWO_BLOCKS | {"neighbor_degree": 1}
every_block = pytest.mark.parametrize("blocks", [{}, TWO_BLOCKS, VECTORS], ids=["one block", "two blocks", "vectors"])


OTHER_DEGREES = [(0,), (2, 2), (4, 4, 3), (1, 1, 1, 1, 1)]


@every_block
@pytest.mark.parametrize(
    ("degrees", "engine"),
    [
        ((3, 3, 3, 2), "compiled"),
        *((degrees, "reference") for degrees in OTHER_DEGREES),
        # each compiles its own kernels
        *(pytest.param(degrees, "compiled", marks=pytest.mark.slow) for degrees in OTHER_DEGREES),
    ],
)
def test_features_are_rotation_invariant_to_rounding(degrees, engine, blocks):
    if degrees == (0,) and blocks == VECTORS:
        pytest.skip("no vectors can be made of densities without a direction")
    sphere_descriptor = descriptor(degrees=degrees, **blocks)
    sphere_descriptor.engine = engine
    vectors, *rest = surroundings()
    rotation = torch.from_numpy(Rotation.random(rng=np.random.default_rng(0)).as_matrix())
    features = sphere_descriptor(vectors, *rest)
    torch.testing.assert_close(sphere_descriptor(vectors @ rotation.T, *rest), features, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(sphere_descriptor(-vectors, *rest), features, rtol=1e-12, atol=1e-13)
    assert features.std() > 1e-3


def test_features_tell_mirror_pairs_of_equal_distances_apart():
    """Two surroundings with the same distances, and other angles, must differ."""
    sphere_descriptor = descriptor()
    bent = torch.tensor([[[2.0, 0, 0], [0, 2.0, 0]]], dtype=torch.float64)
    straight = torch.tensor([[[2.0, 0, 0], [-2.0, 0, 0]]], dtype=torch.float64)
    rest = torch.ones(1, 2, dtype=torch.bool), torch.tensor([0]), torch.tensor([[0, 0]])
    assert (sphere_descriptor(bent, *rest) - sphere_descriptor(straight, *rest)).abs().max() > 1e-3


@every_block
def test_neighbors_may_come_in_any_order_and_padding_is_ignored(blocks):
    sphere_descriptor = descriptor(**blocks)
    vectors, mask, species, neighbors = surroundings()
    order = torch.randperm(vectors.shape[1], generator=torch.Generator().manual_seed(1))
    features = sphere_descriptor(vectors, mask, species, neighbors)
    torch.testing.assert_close(
        sphere_descriptor(vectors[:, order], mask[:, order], species, neighbors[:, order]), features
    )
    spoiled = torch.where(mask[..., None], vectors, torch.full_like(vectors, 0.0))
    torch.testing.assert_close(sphere_descriptor(spoiled, mask, species, neighbors), features, rtol=0, atol=0)


@every_block
def test_no_neighbors_gives_zero_features_and_finite_gradients(blocks):
    sphere_descriptor = descriptor(**blocks)
    vectors = torch.zeros(2, 1, 3, dtype=torch.float64, requires_grad=True)
    features = sphere_descriptor(
        vectors, torch.zeros(2, 1, dtype=torch.bool), torch.tensor([0, 1]), torch.tensor([[0], [1]])
    )
    assert (features == 0).all()
    (gradient,) = torch.autograd.grad(features.sum(), vectors)
    assert (gradient == 0).all()


@every_block
def test_first_and_second_derivative_vanish_at_the_cutoff(blocks):
    """Moving one neighbor through the cutoff: value, slope and curvature go to zero, faster than linearly."""
    sphere_descriptor = descriptor(**blocks)
    others = torch.tensor([[[1.5, 0.5, 0.0], [0.0, -2.0, 1.0]]], dtype=torch.float64)
    rest = torch.ones(1, 3, dtype=torch.bool), torch.tensor([0]), torch.tensor([[0, 0, 0]])

    def at(distance):
        vector = torch.stack([torch.zeros_like(distance), torch.zeros_like(distance), distance]).reshape(1, 1, 3)
        return sphere_descriptor(torch.cat([others, vector], dim=1), *rest).sum()

    def derivatives(distance):
        r = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
        (first,) = torch.autograd.grad(at(r), r, create_graph=True)
        (second,) = torch.autograd.grad(first, r)
        return abs(first.item()), abs(second.item())

    bulk = derivatives(CUTOFF / 2)
    for gap, bound in [(1e-2, 1e-2), (1e-4, 1e-4), (1e-6, 1e-6)]:
        first, second = derivatives(CUTOFF - gap)
        assert first < bound * bulk[0]
        assert second < 10 * bound * bulk[1]
    assert derivatives(CUTOFF + 1e-9) == (0.0, 0.0)


@every_block
@pytest.mark.parametrize("distance", [0.3, CUTOFF - 1e-6])
def test_close_and_far_neighbors_give_finite_numbers(distance, blocks):
    sphere_descriptor = descriptor(dtype=torch.float32, **blocks)
    vectors = torch.tensor([[[distance, 0, 0], [0, 1.0, 0]]], dtype=torch.float32, requires_grad=True)
    features = sphere_descriptor(vectors, torch.ones(1, 2, dtype=torch.bool), torch.tensor([0]), torch.tensor([[0, 0]]))
    (gradient,) = torch.autograd.grad(features.sum(), vectors)
    assert torch.isfinite(features).all()
    assert torch.isfinite(gradient).all()


@every_block
def test_derivatives_of_features(blocks):
    sphere_descriptor = descriptor(n_channels=8, **blocks)
    vectors, *rest = surroundings(n_atoms=1, n_neighbors=3)
    vectors.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: sphere_descriptor(v, *rest), [vectors])
    assert torch.autograd.gradgradcheck(lambda v: sphere_descriptor(v, *rest), [vectors], rtol=1e-2, atol=1e-4)


@every_block
def test_fluctuations_are_of_order_one_before_training(blocks):
    graph = neighbor_graph(rattled_crystal(repeat=(2, 2, 2)), ELEMENTS, CUTOFF)
    vectors = graph.positions[graph.neighbors] - graph.positions[:, None] + graph.shifts @ graph.cell[0]
    features = descriptor(**blocks)(vectors, graph.neighbor_mask, graph.species, graph.neighbors)
    assert 0.01 < features.abs().mean() < 10


def test_harmonics_are_orthonormal():
    from scipy.integrate import lebedev_rule

    points, weights = lebedev_rule(13 + 2)
    harmonics = real_spherical_harmonics(points.T, 6)
    np.testing.assert_allclose(harmonics.T @ (weights[:, None] * harmonics), np.eye(49), atol=1e-12)
    assert weights.sum() == pytest.approx(4 * math.pi)


@every_block
def test_features_reach_as_far_as_the_blocks(blocks):
    """A row of atoms 0.75 cutoffs apart: moving the one 1.5 cutoffs away matters to two blocks, 2.25 to none."""
    sphere_descriptor = descriptor(**blocks)
    positions = torch.zeros(4, 3, dtype=torch.float64)
    positions[:, 0] = 0.75 * CUTOFF * torch.arange(4)
    moved = positions.clone().requires_grad_()
    atoms = torch.arange(4)
    neighbors = atoms.expand(4, 4)
    vectors = moved[neighbors] - moved[:, None]
    features = sphere_descriptor(vectors, neighbors != atoms[:, None], torch.tensor([0, 1, 2, 3]), neighbors)
    (gradient,) = torch.autograd.grad(features[0].sum(), moved)
    felt = gradient.abs().sum(dim=1) > 1e-8
    assert felt.tolist() == [True, True, sphere_descriptor.reach == 2, False]
    assert sphere_descriptor.reach == blocks.get("n_blocks", 1)


@pytest.mark.parametrize("blocks", [TWO_BLOCKS, VECTORS], ids=["two blocks", "vectors"])
def test_a_batch_of_two_blocks_is_its_singles(blocks):
    sphere_descriptor = descriptor(**blocks)
    first, second = surroundings(0), surroundings(1)
    together = [torch.cat([a, b]) for a, b in zip(first, second, strict=True)]
    together[3] = torch.cat([first[3], second[3] + len(first[0])])
    torch.testing.assert_close(
        sphere_descriptor(*together),
        torch.cat([sphere_descriptor(*first), sphere_descriptor(*second)]),
        rtol=1e-12,
        atol=1e-13,
    )


def test_vectors_tell_how_the_surroundings_of_a_neighbor_are_oriented():
    """A T of four atoms: turning the bar about a bond moves no atom's distances within a cutoff, angles at most."""
    positions = torch.tensor([[0, 0, 0], [3.0, 0, 0], [3.8, 2.4, 0]], dtype=torch.float64)
    turned = positions.clone()
    turned[2] = torch.tensor([3.8, -1.2, 2.4 * 3**0.5 / 2])
    fourth = torch.tensor([[-0.8, 2.4, 0]], dtype=torch.float64)
    # a chain of four atoms, each with its nearest neighbors alone: only the dihedral angle at the bond 0-1 differs
    bonds = torch.tensor([[1, 3], [0, 2], [1, 1], [0, 0]])
    mask = torch.tensor([[True, True], [True, True], [True, False], [True, False]])

    def features(bent, changes):
        chain = torch.cat([bent, fourth])
        vectors = chain[bonds] - chain[:, None]
        return descriptor(**changes)(vectors, mask, torch.tensor([0, 1, 2, 3]), bonds)

    same, other = (features(bent, TWO_BLOCKS) for bent in (positions, turned))
    torch.testing.assert_close(same, other)
    same, other = (features(bent, VECTORS) for bent in (positions, turned))
    assert (same - other).abs().max() > 1e-4


def test_messages_are_bounded():
    """Distances ten times too short: features grow tenfold and more, messages stay below 2."""
    sphere_descriptor = descriptor(**VECTORS)
    vectors, *rest = surroundings()
    largest = {}
    for scale in (1.0, 0.1):
        sums = moments(scale * vectors, *rest, sphere_descriptor.shape)
        order = ElementOrder.of(rest[1], 4)
        features, directed = sphere_descriptor._mixed_averages(
            sums, sphere_descriptor.mixing + sphere_descriptor.element_mixing, order, sphere_descriptor.shape
        )
        messages = sphere_descriptor.message_block(features, directed, rest[1], order)
        largest[scale] = features.abs().max(), messages[:, 0].abs().max(), messages[:, 1:].norm(dim=1).max()
    assert largest[0.1][0] > 10 * largest[1.0][0]
    assert max(largest[0.1][1:]) < 2
    assert min(largest[0.1][1:]) > 1


@pytest.mark.parametrize("degrees", [(0,), (3,), (2, 0)])
def test_vectors_need_two_factors(degrees):
    with pytest.raises(ValueError, match=r"`neighbor_degree: 1` needs two or more factors.*`degrees` are"):
        SphereSettings(degrees=degrees, neighbor_degree=1)


@pytest.mark.parametrize("blocks", [{}, VECTORS], ids=["one block", "vectors"])
def test_compression_keeps_small_features_and_takes_the_root_of_large_ones(blocks):
    """f / (1 + (f / 4)^2)^(1/4), written with a power, of the features of an equal descriptor without compression."""
    free = descriptor(compression=None, **blocks)
    compressed = descriptor(compression=4.0, **blocks)
    vectors, *rest = surroundings()
    n_features = 4 * 18
    for scale in (1.0, 0.1):
        features = free(scale * vectors, *rest)[
            :, :n_features
        ]  # of the first block: the second one gets other messages
        expected = features * (1 + features**2 / 16) ** -0.25
        torch.testing.assert_close(compressed(scale * vectors, *rest)[:, :n_features], expected)
    assert features.abs().max() > 5
    # before and after the limit
    assert torch.equal(torch.sign(expected), torch.sign(features))
    near = free(1.5 * vectors, *rest)
    torch.testing.assert_close(descriptor(compression=1e6, **blocks)(1.5 * vectors, *rest), near)


@every_block
def test_pieces_of_atoms_as_on_a_gpu_give_the_same_derivatives(blocks, monkeypatch):
    sphere_descriptor = descriptor(degrees=(2, 2), **blocks)
    sphere_descriptor.engine = "reference"
    vectors, *rest = surroundings(n_atoms=7)
    vectors.requires_grad_()

    def derivatives():
        features = sphere_descriptor(vectors, *rest)
        (first,) = torch.autograd.grad(features.sin().sum(), vectors, create_graph=True)
        second = torch.autograd.grad(first.square().sum(), [vectors, *sphere_descriptor.parameters()])
        return [features, first, *second]

    whole, pieces, plain = derivatives(), [], reference.checkpoint

    def counted(function, piece, **options):
        pieces.append(piece)
        return plain(function, piece, **options)

    monkeypatch.setattr(reference, "_gpu_memory", lambda device: 256 * 500)
    monkeypatch.setattr(reference, "checkpoint", counted)
    for actual, expected in zip(derivatives(), whole, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    assert len(pieces) > 4
