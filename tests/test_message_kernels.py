"""Compiled sums over neighbors that hand on scalars and vectors, against plain torch and products on the sphere."""

import itertools

import numpy as np
import pytest
import torch
from test_sphere_kernels import TOLERANCE, assert_same, shape, surroundings

from lrc_ase.models.descriptors.sphere import compiled_messages
from lrc_ase.models.descriptors.sphere.harmonics import harmonic_order, real_spherical_harmonics
from lrc_ase.models.descriptors.sphere.messages import message_moments
from lrc_ase.models.descriptors.sphere.reference import message_moments_reference


def message_arguments(dtype, *, n_messages=8, max_degree=3, n_radial=8, **size):
    """Arguments of `message_moments`: those that can be differentiated, mask and neighbors, and the shape."""
    vectors, mask, _, neighbors = surroundings(dtype, **size)
    generator = torch.Generator().manual_seed(3)
    sizes = (len(vectors), 4, n_messages), (2, n_radial, n_messages)
    drawn = [torch.randn(size, dtype=torch.float64, generator=generator).to(dtype) for size in sizes]
    sphere_shape = shape((max_degree, 1), 4, n_radial)
    return [tensor.requires_grad_() for tensor in (vectors, *drawn)], (mask, neighbors), sphere_shape


# one vector, whole vectors, vectors that must be padded; highest degrees from one up
@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [
        ((1, 1, 1), torch.float64),
        ((16, 1, 4), torch.float32),
        *(
            pytest.param(sizes, dtype, marks=pytest.mark.slow)  # each compiles its own kernels
            for sizes, dtype in [
                ((1, 1, 1), torch.float32),
                *itertools.product([(11, 4, 3), (8, 3, 5), (16, 2, 8)], [torch.float32, torch.float64]),
            ]
        ),
    ],
    ids=str,
)
def test_compiled_message_moments_are_those_of_the_reference(sizes, dtype):
    n_messages, max_degree, n_radial = sizes
    inputs, around, sphere_shape = message_arguments(
        dtype, n_messages=n_messages, max_degree=max_degree, n_radial=n_radial
    )
    generator = torch.Generator().manual_seed(4)

    def random(like):
        return torch.randn(like.shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()

    cotangents = random(message_moments(inputs[0], *around, *inputs[1:], sphere_shape))
    directions = [random(tensor) for tensor in inputs]
    results = {}
    for function in (message_moments, message_moments_reference):
        value = function(inputs[0], *around, *inputs[1:], sphere_shape)
        gradients = torch.autograd.grad(value, inputs, cotangents, create_graph=True)
        # without the gradient by the mixing, as in training on forces: compiled. With it: the reference
        for n_directions in (2, 3):
            pairs = gradients[:n_directions], [*inputs, cotangents], directions[:n_directions]
            seconds = torch.autograd.grad(*pairs, retain_graph=True)
            names = "by vectors", "by messages", "by mixing", "slope"
            results[function, n_directions] = dict(zip(names, seconds, strict=True))
        names = "value", "by vectors", "by messages", "by mixing"
        results[function] = dict(zip(names, (value, *gradients), strict=True))
    assert_same(results[message_moments], results[message_moments_reference], TOLERANCE[dtype])
    for n in (2, 3):
        assert_same(results[message_moments, n], results[message_moments_reference, n], TOLERANCE[dtype])


def test_derivatives_of_message_moments():
    inputs, around, sphere_shape = message_arguments(
        torch.float64, n_messages=1, max_degree=1, n_radial=1, n_atoms=2, n_neighbors=3
    )

    def moments_of(vectors, messages, mixing):
        return message_moments(vectors, *around, messages, mixing, sphere_shape)

    assert torch.autograd.gradcheck(moments_of, inputs)
    assert torch.autograd.gradgradcheck(moments_of, inputs, atol=1e-4)


def test_message_moments_are_products_on_the_sphere():
    """A density of one neighbor and its message, multiplied point by point, without the degree above the highest."""
    (vectors, messages, mixing), around, sphere_shape = message_arguments(torch.float64)
    n_messages, top = messages.shape[-1], sphere_shape.max_degree
    products = message_moments(vectors, *around, messages, mixing, sphere_shape).detach()[:, 0]
    products = products.unflatten(1, (3, n_messages)).numpy()
    # moments of the scalars alone, for each neighbor, give the zonal functions sum_lm Y_lm(r) R_k(r) Y_lm(n)
    directions = np.random.default_rng(0).normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    columns = [degree * (degree + 1) + m for degree, m in harmonic_order(top + 1)]
    harmonics = real_spherical_harmonics(directions, top + 1)[:, columns]
    within = [index for index, (degree, _) in enumerate(harmonic_order(top + 1)) if degree <= top]
    total = np.zeros((200, n_messages))
    mask, neighbors = around
    vectors_only = torch.stack([mixing[1], mixing[1]]).detach()  # radial functions of the vectors for the scalars
    for column in np.flatnonzero(mask[0]):
        one = torch.zeros_like(mask[:1])
        one[0, column] = True
        scalar = torch.zeros(1, 4, n_messages, dtype=torch.float64)
        scalar[:, 0] = 1
        zonal = message_moments(
            vectors[:1].detach(), one, torch.zeros_like(neighbors[:1]), scalar, vectors_only, sphere_shape
        )[:, 0, :n_messages].numpy()
        carried = np.sqrt(3) * directions @ messages[neighbors[0, column], 1:].detach().numpy()
        total += (harmonics[:, within] @ zonal) * carried
    coefficients = np.linalg.lstsq(harmonics, total, rcond=None)[0]
    np.testing.assert_allclose(products[:, 1] + products[:, 2], coefficients[within], atol=1e-12)


def test_threads_share_the_gradients_by_messages():
    (vectors, messages, mixing), around, sphere_shape = message_arguments(torch.float64, n_atoms=37)
    of = tuple(tensor.detach().numpy() for tensor in (vectors, *around))
    carried = messages.detach().numpy(), mixing.detach().numpy()
    cotangents = np.random.default_rng(0).normal(size=(sphere_shape.n_harmonics, 37, 24))
    results = []
    for n_threads in (1, 3):
        gradient = np.zeros_like(of[0])
        results.append(
            [
                *compiled_messages.message_pull(
                    of, carried, cotangents, gradient, sphere_shape, n_threads, by_mixing=True
                ),
                gradient,
            ]
        )
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
