"""`paper` alone: eqs. 9-14 as printed in one, two and three dimensions, and what they do not give."""

import numpy as np
import pytest
import torch
from structures import ELEMENTS, rattled_crystal
from test_descriptor_family import surroundings

from lrc_ase.models.descriptors.orientations import random_rotation
from lrc_ase.models.descriptors.paper import PaperDescriptor, ResidualFittingNetwork, standardized
from lrc_ase.models.settings import PaperSettings
from lrc_ase.structures.neighbors import neighbor_graph

CUTOFF = 4.5
PRINTED = PaperSettings(
    envelope=False, inverse_mean=0.4, inverse_deviation=0.2, distance_mean=2.5, distance_deviation=0.9
)


def made(chosen=PRINTED, *, n_dimensions=3, n_elements=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    options = {"n_elements": n_elements, "cutoff": CUTOFF, "average_neighbors": 9, "n_dimensions": n_dimensions}
    return PaperDescriptor(chosen, **options, generator=generator).double()


def network(layers, values):
    """Five tanh layers by numpy."""
    values = np.atleast_1d(values)
    for layer in list(layers)[::2]:
        values = np.tanh(layer.weight.detach().numpy() @ values + layer.bias.detach().numpy())
    return values


def test_one_dimension_is_equations_10_and_11():
    descriptor = made(n_dimensions=1)
    positions = np.array([0.0, 1.3, -2.2, 4.4, 5.0])
    vectors = torch.from_numpy(positions[1:] - positions[0])[None, :, None]
    expected = np.zeros(64)
    for x in positions[1:4]:  # the last one lies beyond the cutoff
        s, r = abs(positions[0] - x), 1 / abs(positions[0] - x)
        s_hat, r_hat = (s - 2.5) / 0.9, (r - 0.4) / 0.2
        expected[:32] += network(descriptor.of_position, s_hat) * r_hat
        expected[32:] += network(descriptor.of_distance, r_hat) * r_hat
    actual = descriptor(vectors, torch.ones(1, 4, dtype=torch.bool), torch.tensor([0]), torch.zeros(1, 4, dtype=int))
    np.testing.assert_allclose(actual[0].detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("n_dimensions", [2, 3])
def test_two_and_three_dimensions_are_equations_13_and_14(n_dimensions):
    descriptor = made(n_dimensions=n_dimensions)
    positions = np.random.default_rng(0).uniform(-2, 2, size=(6, n_dimensions))
    vectors = torch.from_numpy(positions[1:] - positions[0])[None]
    expected = np.zeros(64)
    for x in positions[1:]:
        distance = np.linalg.norm(positions[0] - x)
        if distance < CUTOFF:
            r_hat = (1 / distance - 0.4) / 0.2
            expected[:32] += network(descriptor.of_position, (positions[0] - x) / distance) * r_hat
            expected[32:] += network(descriptor.of_distance, r_hat) * r_hat
    actual = descriptor(vectors, torch.ones(1, 5, dtype=torch.bool), torch.tensor([0]), torch.zeros(1, 5, dtype=int))
    np.testing.assert_allclose(actual[0].detach().numpy(), expected, rtol=1e-12)


def test_networks_have_the_printed_layers():
    shapes = [tuple(layer.weight.shape) for layer in list(made().of_position)[::2]]
    assert shapes == [(2, 3), (4, 2), (8, 4), (16, 8), (32, 16)]
    weights = torch.cat([made(seed=seed).of_position[8].weight.flatten() for seed in range(20)])
    assert weights.std().item() == pytest.approx(np.sqrt(2 / (16 + 32)), rel=0.05)  # Glorot


@torch.no_grad()
def test_features_as_printed_jump_at_the_cutoff_and_the_envelope_mends_it():
    rest = torch.ones(1, 1, dtype=torch.bool), torch.tensor([0]), torch.tensor([[0]])
    inside = torch.tensor([[[0.0, 0.0, CUTOFF - 1e-9]]], dtype=torch.float64)
    printed = made()
    jump = printed(inside, *rest)[0, 32:].numpy()
    r_hat = (1 / CUTOFF - 0.4) / 0.2
    np.testing.assert_allclose(jump, network(printed.of_distance, r_hat) * r_hat, rtol=1e-7)
    assert abs(jump).max() > 0.01
    assert (printed(inside * 1.01, *rest) == 0).all()
    assert made(PRINTED.model_copy(update={"envelope": True}))(inside, *rest).abs().max() < 1e-15


@torch.no_grad()
def test_features_are_not_rotation_invariant():
    """Known and documented: half of the features hold directions; the other half is invariant."""
    vectors, *rest = surroundings()
    descriptor = made()
    rest[1][:] = 0
    turned = vectors @ random_rotation(torch.Generator().manual_seed(3)).T
    before, after = descriptor(vectors, *rest), descriptor(turned, *rest)
    assert (after - before)[:, :32].norm() > 0.02 * before.norm()
    torch.testing.assert_close(after[:, 32:], before[:, 32:], rtol=1e-11, atol=1e-12)


def test_mean_and_deviation_come_from_the_training_frames():
    graph = neighbor_graph(rattled_crystal(), ELEMENTS, CUTOFF)
    distances = np.concatenate(
        [np.linalg.norm(atoms, axis=1) for atoms in _vectors(rattled_crystal().repeat(3), CUTOFF)]
    )
    actual = PaperDescriptor.settings_from_data(PaperSettings(inverse_mean=0.5), [graph], cutoff=CUTOFF)
    assert actual.inverse_mean == 0.5
    assert actual.inverse_deviation == pytest.approx((1 / distances).std(), rel=1e-9)
    assert actual.distance_mean == pytest.approx(distances.mean(), rel=1e-9)
    assert actual.distance_deviation == pytest.approx(distances.std(), rel=1e-9)
    alone = neighbor_graph(rattled_crystal()[:1] * 1, ELEMENTS, 0.1)
    assert PaperDescriptor.settings_from_data(PaperSettings(), [alone], cutoff=0.1) == PaperSettings()


def _vectors(supercell, cutoff):
    """Neighbors of the eight atoms in the middle cell of 3 x 3 x 3, by brute force."""
    middle = slice(13 * 8, 14 * 8)
    for position in supercell.positions[middle]:
        vectors = supercell.positions - position
        lengths = np.linalg.norm(vectors, axis=1)
        yield vectors[(lengths > 1e-9) & (lengths < cutoff)]


@pytest.mark.parametrize(
    ("n_dimensions", "mean"), [(2, 2 * (1 - 0.1) / (1 - 0.01)), (3, 1.5 * (1 - 0.01) / (1 - 0.001))]
)
def test_without_data_neighbors_are_spread_evenly(n_dimensions, mean):
    """Means of R/r over a disk and a ball from R/10 to R."""
    chosen = made(PaperSettings(), n_dimensions=n_dimensions).settings
    assert chosen.inverse_mean == pytest.approx(mean / CUTOFF, rel=1e-4)
    assert 0 < chosen.inverse_deviation < chosen.inverse_mean


def test_equal_distances_have_deviation_one():
    chosen = standardized(PaperSettings(), torch.full((4,), 2.0))
    assert (chosen.inverse_mean, chosen.inverse_deviation, chosen.distance_deviation) == (0.5, 1.0, 1.0)


def test_fitting_network_is_residual():
    net = ResidualFittingNetwork(64, generator=torch.Generator().manual_seed(0)).double()
    assert [tuple(layer.weight.shape) for layer in net.layers] == [(32, 64)] + 5 * [(32, 32)]
    features = torch.randn(3, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    hidden = torch.tanh(net.layers[0](features))
    for layer in net.layers[1:]:
        hidden = hidden + torch.tanh(hidden @ layer.weight.T + layer.bias)
    torch.testing.assert_close(net(features), (hidden @ net.last.weight.T + net.last.bias)[:, 0])


def test_wrong_dimensions_are_named():
    with pytest.raises(ValueError, match="`n_dimensions` must be 1, 2 or 3, got 4"):
        made(n_dimensions=4)
    vectors, *rest = surroundings()
    with pytest.raises(ValueError, match=r"`vectors` must have shape \(n_atoms, n_neighbors, 2\), got \[3, 9, 3\]"):
        made(n_dimensions=2)(vectors, *rest)
