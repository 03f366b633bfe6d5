"""The compiled engine of the sphere descriptor against the one in plain torch."""

import numpy as np
import pytest
import torch
from structures import rattled_crystal, settings

from lrc_ase import build_model
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.descriptors.sphere import compiled_averages, compiled_moments
from lrc_ase.models.descriptors.sphere import messages as messages_module
from lrc_ase.models.descriptors.sphere import moments as moments_module
from lrc_ase.models.descriptors.sphere.averages import averages
from lrc_ase.models.descriptors.sphere.harmonics import (
    harmonic_order,
    parity_class,
    quadrature,
    real_spherical_harmonics,
)
from lrc_ase.models.descriptors.sphere.moments import moments
from lrc_ase.models.descriptors.sphere.reference import averages_reference, moments_reference
from lrc_ase.models.descriptors.sphere.shape import SphereShape, radial_scale
from lrc_ase.models.settings import SphereSettings
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.structures.vectors import neighbor_vectors

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
CUTOFF = 4.5
SMALL = (2, 2, 1), 8, 5
"""Degrees, channels and radial functions that tests of derivatives share, so that few kernels are compiled."""
# with the precision of the fast test: kernels of these sizes serve other tests too, those of the rest are compiled anew
SHAPES = {
    SMALL: torch.float64,  # whole vectors
    ((3, 3, 3, 2), 19, 8): torch.float32,  # the last vector of channels moved back
    ((1, 1), 4, 4): torch.float32,  # vectors shorter than the machine's
    ((4, 3), 19, 8): None,
    ((1,), 3, 1): None,
}
WITH_VECTORS = {(*SMALL, 2): torch.float64, ((3, 3, 3, 2), 19, 8, 3): torch.float32, ((4, 3), 19, 8, 1): None}
BLOCKS = [{}, {"n_blocks": 2}, {"n_blocks": 2, "neighbor_degree": 1}]


def in_both_precisions(shapes):
    """Return each shape in double and in single precision; only the one named for it is fast."""
    return [
        pytest.param(sizes, dtype, marks=[pytest.mark.slow] * (dtype != fast))
        for sizes, fast in shapes.items()
        for dtype in (torch.float64, torch.float32)
    ]


def shape(degrees=SMALL[0], n_channels=SMALL[1], n_radial=SMALL[2], n_vectors=0):
    return SphereShape(degrees, n_channels, 3, CUTOFF, radial_scale(n_radial, 20.0), n_vectors)


def flat_averages(channels, sphere_shape, function=averages):
    """Averages and vector averages side by side."""
    return torch.cat([one.flatten() for one in function(channels, sphere_shape)])


def surroundings(dtype, *, n_atoms=4, n_neighbors=40, seed=0):
    """Vectors inside and outside of the cutoff, close and at its very edge, some of them padding."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_atoms, n_neighbors, 3, dtype=torch.float64, generator=generator)
    lengths = 0.8 + 4.2 * torch.rand(n_atoms, n_neighbors, 1, dtype=torch.float64, generator=generator)
    lengths[0, :3, 0] = torch.tensor([0.3, CUTOFF - 1e-6, CUTOFF + 1e-6])
    vectors = lengths * directions / directions.norm(dim=-1, keepdim=True)
    mask = torch.rand(n_atoms, n_neighbors, generator=generator) < 0.8
    mask[0, :3], mask[1] = True, False
    species = torch.randint(3, (n_atoms,), generator=generator)
    neighbors = torch.randint(n_atoms, (n_atoms, n_neighbors), generator=generator)
    return vectors.to(dtype), mask, species, neighbors


def channels_of(sphere_shape, dtype, *, n_atoms=5):
    generator = torch.Generator().manual_seed(1)
    size = sphere_shape.n_harmonics, n_atoms, len(sphere_shape.degrees) * sphere_shape.n_channels
    return torch.randn(size, dtype=torch.float64, generator=generator).to(dtype)


def derivatives(function, argument):
    """Value; its gradient with random weights; the change of value and gradient along a random direction."""
    generator = torch.Generator().manual_seed(2)
    argument = argument.clone().requires_grad_()
    value = function(argument)
    weights = torch.randn(value.shape, dtype=torch.float64, generator=generator).to(value).requires_grad_()
    (gradient,) = torch.autograd.grad(value, argument, weights, create_graph=True)
    direction = torch.randn(gradient.shape, dtype=torch.float64, generator=generator).to(value)
    curvature, slope = torch.autograd.grad(gradient, [argument, weights], direction)
    return {"value": value, "gradient": gradient, "curvature": curvature, "slope": slope}


def assert_same(actual, expected, tolerance):
    for name, tensor in expected.items():
        scale = tensor.abs().max().item()
        torch.testing.assert_close(
            actual[name], tensor, rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )
        assert scale > 0


@pytest.mark.parametrize(("sizes", "dtype"), in_both_precisions(SHAPES), ids=str)
def test_compiled_moments_are_those_of_the_reference(sizes, dtype):
    sphere_shape = shape(*sizes)
    vectors, *rest = surroundings(dtype)
    expected = derivatives(lambda v: moments_reference(v, *rest, sphere_shape), vectors)
    assert_same(derivatives(lambda v: moments(v, *rest, sphere_shape), vectors), expected, TOLERANCE[dtype])


@pytest.mark.parametrize(("sizes", "dtype"), in_both_precisions(SHAPES | WITH_VECTORS), ids=str)
def test_compiled_averages_are_those_of_the_reference(sizes, dtype):
    sphere_shape = shape(*sizes)
    channels = channels_of(sphere_shape, dtype)
    if sphere_shape.degrees == (1,):  # linear: nothing bends
        actual, expected = averages(channels, sphere_shape), averages_reference(channels, sphere_shape)
        torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE[dtype])
        return
    expected = derivatives(lambda c: flat_averages(c, sphere_shape, averages_reference), channels)
    assert_same(derivatives(lambda c: flat_averages(c, sphere_shape), channels), expected, TOLERANCE[dtype])


def test_vector_averages_of_one_factor_are_its_harmonics_of_degree_one():
    """The mean of n_x A(n) over the sphere picks the coefficient of sqrt(3) x, times 1 / sqrt(3)."""
    sphere_shape = shape((2, 1), 4, 1, n_vectors=1)
    channels = channels_of(sphere_shape, torch.float64)
    _, vectors = averages(channels, sphere_shape)
    # sqrt(3 / 4 pi) x, y, z: the sign of x and y is that of the Condon-Shortley phase
    expected = [sign * channels[harmonic_order(2).index((1, m)), :, :4] for m, sign in ((1, -1), (-1, -1), (0, 1))]
    torch.testing.assert_close(vectors, torch.stack(expected) / 3**0.5)


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)], ids=str)
def test_compiled_weighted_moments_are_those_of_the_reference(dtype):
    sphere_shape = shape()
    vectors, *rest = surroundings(dtype)
    generator = torch.Generator().manual_seed(3)

    def random(like):
        return torch.randn(like.shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()

    weights = random(torch.empty(*vectors.shape[:2], sphere_shape.n_weights))
    vectors.requires_grad_()
    cotangents = random(moments(vectors, *rest, sphere_shape, weights))
    directions = random(vectors), random(weights)
    derivatives = {}
    for function in (moments, moments_reference):
        value = function(vectors, *rest, sphere_shape, weights)
        gradients = torch.autograd.grad(value, [vectors, weights], cotangents, create_graph=True)
        seconds = torch.autograd.grad(gradients, [vectors, weights, cotangents], directions)
        names = "value", "by vectors", "by weights", "curvature", "change by weights", "slope"
        derivatives[function] = dict(zip(names, (value, *gradients, *seconds), strict=True))
    assert_same(derivatives[moments], derivatives[moments_reference], TOLERANCE[dtype])


def test_derivatives_of_weighted_moments():
    vectors, *rest = surroundings(torch.float64, n_atoms=2, n_neighbors=3)
    sphere_shape, vectors = shape(), vectors.requires_grad_()
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 3, 3, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: moments(v, *rest, sphere_shape, w), [vectors, weights])
    assert torch.autograd.gradgradcheck(lambda v, w: moments(v, *rest, sphere_shape, w), [vectors, weights], atol=1e-4)


def test_derivatives_of_moments():
    vectors, *rest = surroundings(torch.float64, n_atoms=2, n_neighbors=3)
    sphere_shape, vectors = shape(), vectors.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: moments(v, *rest, sphere_shape), [vectors])
    assert torch.autograd.gradgradcheck(lambda v: moments(v, *rest, sphere_shape), [vectors], atol=1e-4)


def test_derivatives_of_averages():
    sphere_shape = shape(n_vectors=2)
    channels = channels_of(sphere_shape, torch.float64, n_atoms=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: averages(c, sphere_shape), [channels])
    assert torch.autograd.gradgradcheck(lambda c: averages(c, sphere_shape), [channels])


def test_third_derivatives_are_those_of_the_reference():
    sphere_shape = shape()
    vectors, *rest = surroundings(torch.float64, n_atoms=2, n_neighbors=4)

    def third(make_moments, make_averages):
        moved = vectors.clone().requires_grad_()
        density = make_moments(moved, *rest, sphere_shape)[:, :, :1].expand(-1, -1, 24)
        value = make_averages(density.contiguous(), sphere_shape)[0].pow(2).sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, moved, create_graph=True)
            value = gradient.pow(2).sum()
        return gradient.detach()

    expected = third(moments_reference, averages_reference)
    torch.testing.assert_close(third(moments, averages), expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize("blocks", BLOCKS)
def test_training_on_forces_does_without_the_slow_second_derivative(monkeypatch, blocks):
    chosen = settings(long_range=False, descriptor=SphereSettings(n_channels=18, **blocks))
    model = build_model(chosen, generator=torch.Generator().manual_seed(0)).double()
    graph = neighbor_graph(rattled_crystal(), model.settings.elements, model.settings.cutoff)
    parameters = list(model.parameters())

    def refuse(*arguments):
        raise AssertionError("the reference was called")

    monkeypatch.setattr(moments_module, "moments_reference", refuse)
    monkeypatch.setattr(messages_module, "message_moments_reference", refuse)
    loss = evaluate(model, graph, training=True).forces.pow(2).sum()
    loss.backward(inputs=parameters, retain_graph=True)
    assert model.descriptor.mixing.grad.abs().max() > 0
    with pytest.raises(AssertionError, match="the reference was called"):
        loss.backward()  # by positions too


@pytest.mark.parametrize("blocks", BLOCKS)
def test_gradients_of_a_loss_on_forces_are_those_of_the_reference(blocks):
    chosen = settings(descriptor=SphereSettings(n_channels=18, **blocks))
    model = build_model(chosen, generator=torch.Generator().manual_seed(0)).double()
    graph = neighbor_graph(rattled_crystal(), model.settings.elements, model.settings.cutoff)

    def gradients(engine):
        model.descriptor.engine = engine
        results = evaluate(model, graph, stress=True, training=True)
        loss = results.energy.sum() + results.forces.pow(2).sum() + 100 * results.stress.pow(2).sum()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # weights of the excess charge play no role in a neutral structure
        return torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)

    for actual, expected in zip(gradients("compiled"), gradients("reference"), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10 * (1 + expected.abs().max().item()))


def test_threads_share_the_atoms():
    sphere_shape = shape()
    vectors, *rest = surroundings(torch.float64, n_atoms=37)
    of = tuple(tensor.numpy() for tensor in (vectors, *rest))
    outputs = [np.empty((sphere_shape.n_harmonics, 37, sphere_shape.n_inputs)) for _ in range(2)]
    for n_threads, density in enumerate(outputs, start=1):
        compiled_moments.moment(of, None, density, sphere_shape, n_threads)
    np.testing.assert_array_equal(*outputs)
    channels = channels_of(sphere_shape, torch.float64, n_atoms=37).numpy()
    outputs = [np.empty(channels.shape[1:]) for _ in range(2)]
    for n_threads, values in enumerate(outputs, start=1):
        compiled_averages.average(channels, (values, np.empty((3, 37, 0))), sphere_shape, n_threads)
    np.testing.assert_array_equal(*outputs)


def test_nan_is_not_hidden():
    sphere_shape = shape()
    vectors, *rest = surroundings(torch.float64)
    vectors[2] = torch.nan
    density = moments(vectors, *rest, sphere_shape)
    assert torch.isnan(density[:, 2]).any()
    assert torch.isfinite(density[:, [0, 1, 3]]).all()


@pytest.mark.parametrize("degree", [3, 7, 11, 14, 20])
def test_quadrature_by_orbits_is_exact(degree):
    rule = quadrature(degree)
    orbits = [rule.orbit(index) for index in range(len(rule.points))]
    points = np.concatenate(orbits)
    weights = np.repeat(rule.weights, [len(orbit) for orbit in orbits])
    means = weights @ real_spherical_harmonics(points, degree)
    np.testing.assert_allclose(means * np.sqrt(4 * np.pi), np.eye(1, len(means))[0], atol=1e-12)


def test_parity_classes():
    directions = np.random.default_rng(0).normal(size=(5, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    order = harmonic_order(4)
    columns = [degree * (degree + 1) + m for degree, m in order]
    for axis in range(3):
        flipped = directions.copy()
        flipped[:, axis] *= -1
        signs = [1 - 2 * (parity_class(*sphere_shape) >> axis & 1) for sphere_shape in order]
        expected = real_spherical_harmonics(directions, 4)[:, columns] * signs
        np.testing.assert_allclose(real_spherical_harmonics(flipped, 4)[:, columns], expected, atol=1e-12)


def test_neighbor_vectors_and_their_derivatives():
    graph = neighbor_graph(rattled_crystal(), settings().elements, 2.5)
    pairs = graph.neighbors, graph.shifts, graph.structure
    positions, cell = graph.positions.clone().requires_grad_(), graph.cell.clone().requires_grad_()

    def vectors(x, a, dtype=torch.float64):
        return neighbor_vectors(x, a, *pairs, dtype)

    expected = positions[graph.neighbors] - positions[:, None] + graph.shifts @ cell[0]
    torch.testing.assert_close(vectors(positions, cell), expected, rtol=0, atol=1e-13)
    assert vectors(positions, cell, torch.float32).dtype == torch.float32
    assert torch.autograd.gradcheck(vectors, [positions, cell])
    assert torch.autograd.gradgradcheck(vectors, [positions, cell])
