import gc
import math
import weakref

import numpy as np
import pytest
import torch
from tolerances import ROUNDING

from lrc_ase.layer.boundaries import Layout
from lrc_ase.layer.lattice import half_mesh_indices
from lrc_ase.layer.mesh import Stencil, convolve, differentiation, field_and_energy, filtered
from lrc_ase.layer.mesh.evaluation import Convolver, composed
from lrc_ase.layer.mesh.filtering import filter_mesh
from lrc_ase.layer.tables import paired_waves
from lrc_ase.layer.windows import gaussian_window, semicircle_window

SHAPES = {1: (14,), 2: (10, 12), 3: (8, 10, 8)}
PERIODIC = [Layout(None), Layout(None)]


def half_shape(d):
    return (*SHAPES[d][:-1], SHAPES[d][-1] // 2 + 1)


def symmetric_table(d, *leading, seed=1):
    """Random real table that is the transform of a real even kernel: a function of |m|."""
    squared = (half_mesh_indices(SHAPES[d]).double() ** 2).sum(dim=-1)
    generator = torch.Generator().manual_seed(seed)
    width = 1 + torch.rand(*leading, *(1,) * d, dtype=torch.float64, generator=generator)
    return (torch.exp(-squared / (4 * width)) * paired_waves(SHAPES[d])).contiguous()


def problem(d, *, n_inputs=2, n_outputs=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    stencil = Stencil(semicircle_window(6), SHAPES[d], torch.tensor([0, 0, 0, 1, 1]), 2)
    # inside the intervals of the window: finite differences across an edge would see its (tiny) jumps
    points = torch.floor(7 * torch.randn(5, d, dtype=torch.float64, generator=generator)) / 7 + 0.02
    weights = torch.randn(5, n_inputs, dtype=torch.float64, generator=generator)
    leading = (2, n_inputs) if n_outputs is None else (2, n_outputs, n_inputs)
    return [weights.requires_grad_(), points.requires_grad_(), symmetric_table(d, *leading).requires_grad_()], stencil


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("matrix", [False, True])
def test_filter_is_the_sum_over_waves_and_differentiates_twice(d, matrix):
    generator = torch.Generator().manual_seed(0)
    density = torch.randn(2, 2, *SHAPES[d], dtype=torch.float64, generator=generator).requires_grad_()
    table = symmetric_table(d, *((2, 3, 2) if matrix else (2, 2))).requires_grad_()
    axes = tuple(range(2, 2 + d))
    half = torch.fft.rfftn(density, dim=axes)
    product = torch.einsum("sab...,sb...->sa...", table.to(half.dtype), half) if matrix else half * table
    expected = torch.fft.irfftn(product, s=SHAPES[d], dim=axes, norm="forward")
    torch.testing.assert_close(filtered(density, table), expected)
    for wanted in (density, table):
        cotangent = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
        actual = torch.autograd.grad(filtered(density, table), wanted, cotangent)[0]
        reference = torch.autograd.grad(expected, wanted, cotangent, retain_graph=True)[0]
        torch.testing.assert_close(actual, reference)
    if d == 1:
        assert torch.autograd.gradgradcheck(filtered, (density, table))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "mesh_shape", [(8, 10, 8), (6, 5, 4), (8, 8, 9), (22, 26, 13), (40, 36, 50), (12, 10), (2**16,)]
)
def test_filter_mesh_multiplies_the_spectrum_whatever_the_size(dtype, mesh_shape):
    """Small meshes are filtered together, those from 2^15 points on one by one."""
    generator, d = torch.Generator().manual_seed(0), len(mesh_shape)
    mesh = torch.randn(3, 2, *mesh_shape, dtype=dtype, generator=generator)
    n_waves = (*mesh_shape[:-1], mesh_shape[-1] // 2 + 1)
    table = torch.rand(3, 2, *n_waves, dtype=dtype, generator=generator)
    table = symmetrized(table, d) * paired_waves(mesh_shape).to(dtype) / math.prod(mesh_shape)
    # the full complex transform of NumPy, a wave and its opposite multiplied alike
    full = np.fft.fftn(mesh.double().numpy(), axes=range(2, 2 + d))
    half = full[..., : n_waves[-1]]
    filtered_half = torch.from_numpy(half * table.double().numpy())
    axes = tuple(range(2, 2 + d))
    expected = torch.from_numpy(np.fft.irfftn(filtered_half.numpy(), s=mesh_shape, axes=axes) * math.prod(mesh_shape))
    scale, size = ROUNDING[dtype], math.prod(mesh_shape)
    for keep_spectrum in (False, True):
        potential, spectrum = filter_mesh(mesh.clone(), table, keep_spectrum=keep_spectrum)
        torch.testing.assert_close(potential, expected.to(dtype), rtol=scale, atol=scale)
        if keep_spectrum:
            expected_spectrum = torch.from_numpy(half).to(spectrum.dtype)
            torch.testing.assert_close(spectrum, expected_spectrum, rtol=scale, atol=scale * size)
        else:
            assert spectrum is None


def symmetrized(table, d):
    """Waves of the plane with last index 0 get the value of their opposites."""
    if d == 1:
        return table
    axes = tuple(range(2, 1 + d))
    opposite = table[..., 0].flip(axes).roll((1,) * (d - 1), axes)
    table[..., 0] = (table[..., 0] + opposite) / 2
    return table


@pytest.mark.parametrize("n_outputs", [None, 3], ids=["diagonal", "matrix"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_first_and_second_derivatives(d, n_outputs):
    inputs, stencil = problem(d, n_outputs=n_outputs)

    def field(weights, points, scale):
        # a table stays even under one factor per channel
        return convolve(weights, points, inputs[2].detach() * scale, stencil)

    scale = torch.ones(inputs[2].shape[:-d] + (1,) * d, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(field, (*inputs[:2], scale), atol=1e-6, rtol=1e-5)
    if d < 3 or n_outputs is None:
        assert torch.autograd.gradgradcheck(field, (*inputs[:2], scale), atol=1e-5, rtol=1e-4)


def composed_field_and_energy(weights, points, table, stencil, n_energies):
    """Compute the same two values by differentiable steps."""
    field = composed(weights, points, table, stencil)
    products = 0.5 * (weights * field)[:, :n_energies]
    energy = torch.zeros(stencil.n_structures, n_energies, dtype=torch.float64)
    return field[:, n_energies:], energy.index_add(0, stencil.structure, products)


@pytest.mark.parametrize("loss", ["forces", "by weights", "by both and table"])
@pytest.mark.parametrize("n_energies", [1, 3])
@pytest.mark.parametrize("d", [1, 3])
def test_energies_and_field_differentiate_three_times_as_their_composition(d, n_energies, loss):
    """Each structure and channel with a weight of its own, which depends on the energy itself."""
    inputs, stencil = problem(d, n_inputs=3)
    inputs[2] = (1e-2 * inputs[2].detach()).requires_grad_()
    factors = torch.tensor([[1.3, 0.4, 2.0], [-0.7, 1.0, 0.1]], dtype=torch.float64)[:, :n_energies]
    results = []
    for function in (lambda *arguments: field_and_energy(*arguments)[:2], composed_field_and_energy):
        field, energy = function(*inputs, stencil, n_energies)
        value = (factors * energy).sum() + 0.1 * energy.pow(2).sum() + field.sin().sum()
        first = torch.autograd.grad(value, inputs, create_graph=True)
        second_loss = {
            "forces": lambda first: first[1].pow(2).sum(),
            "by weights": lambda first: first[0].pow(2).sum(),
            "by both and table": lambda first: (first[0][:, :1] * first[1]).sum() + meant(first[2], d).pow(2).sum(),
        }[loss](first)
        second = torch.autograd.grad(second_loss, inputs, create_graph=True)
        third = torch.autograd.grad(sum(gradient.pow(2).sum() for gradient in second[:2]), inputs)
        results.append([tensor.detach() for tensor in (field, energy, *first, *second, *third)])
    for actual, expected in zip(*results, strict=True):
        scale = float(expected.abs().max()) if expected.numel() else 0
        torch.testing.assert_close(meant(actual, d), meant(expected, d), rtol=1e-10, atol=1e-10 * scale)


def test_potential_of_the_energies_is_the_field_without_derivatives():
    (weights, points, table), stencil = problem(3)
    sums = field_and_energy(weights, points, table, stencil, 2)
    assert not sums.potential.requires_grad
    torch.testing.assert_close(sums.potential, convolve(weights, points, table, stencil).detach(), rtol=0, atol=0)


def test_energies_of_float32_weights_are_summed_in_float64():
    (weights, points, table), stencil = problem(3)
    single = [tensor.detach().float().requires_grad_() for tensor in (weights, points, table)]
    energy = field_and_energy(*single, stencil, 2).energy
    assert energy.dtype == torch.float64
    gradients = torch.autograd.grad(energy.sum(), single)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    expected = torch.autograd.grad(field_and_energy(weights, points, table, stencil, 2).energy.sum(), [weights, points])
    for actual, exact in zip(gradients, expected, strict=False):
        torch.testing.assert_close(actual.double(), exact, rtol=1e-4, atol=1e-5)


def meant(gradient, d):
    """Derivatives by the table count where the mesh holds a wave and its opposite."""
    return gradient * paired_waves(SHAPES[d]) if gradient.ndim > 2 else gradient


def test_windows_too_wide_for_the_kernels_go_by_torch_around_the_same_filter():
    window, shape = gaussian_window(18, 1.2), (20, 18, 20)
    stencil = Stencil(window, shape, torch.tensor([0, 0, 0, 1, 1]), 2)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 2, dtype=torch.float64, generator=generator)
    points = torch.rand(5, 3, dtype=torch.float64, generator=generator)
    table = paired_waves(shape) / (1 + (half_mesh_indices(shape).double() ** 2).sum(dim=-1))
    table = table.expand(2, 2, *table.shape)
    expected = composed(weights, points, table, stencil)
    torch.testing.assert_close(convolve(weights, points, table, stencil), expected, rtol=1e-11, atol=1e-11)


LOSSES = {
    "forces": lambda actual: actual[1].pow(2).sum(),
    "forces of varying charges": lambda actual: (actual[0][:, :1] * actual[1]).sum(),
    "by weights": lambda actual: actual[0].pow(2).sum(),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("energy", ["of charges", "one channel only", "anything"])
@pytest.mark.parametrize("n_outputs", [None, 3], ids=["diagonal", "matrix"])
def test_second_and_third_derivatives_equal_those_of_the_composition(n_outputs, energy, loss):
    """Second ones in three dimensions, by everything; third ones by weights and positions."""
    inputs, stencil = problem(3, n_outputs=n_outputs)
    inputs[2] = (1e-3 * inputs[2].detach()).requires_grad_()
    results = []
    for function in (convolve, composed):
        field = function(*inputs, stencil)
        weights = inputs[0] if n_outputs is None else inputs[0].sum(dim=1, keepdim=True)
        if energy == "one channel only":
            value = 0.5 * (weights * field)[:, 0].sum() + field[:, 1].sin().sum()
        else:
            value = 0.5 * (weights * field).sum() if energy == "of charges" else field.sin().sum()
        first = torch.autograd.grad(value, inputs[:2], create_graph=True)
        second = torch.autograd.grad(LOSSES[loss](first), inputs, create_graph=True)
        third = torch.autograd.grad(sum(actual.pow(2).sum() for actual in second[:2]), inputs)
        results.append([actual.detach() for actual in (*first, *second, *third)])
    for actual, expected in zip(*results, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(meant(actual, 3), meant(expected, 3), rtol=1e-10, atol=1e-10 * scale)


@pytest.fixture
def convolutions(monkeypatch):
    """Number of channels of each convolution, in order of execution."""
    channels = []
    plain = Convolver.__call__

    def counted(self, orders, **options):
        channels.append(orders.shape[2])
        return plain(self, orders, **options)

    monkeypatch.setattr(Convolver, "__call__", counted)
    return channels


def test_forces_of_energies_need_no_convolution_and_their_training_one(convolutions):
    (weights, points, table), stencil = problem(3)
    energy = field_and_energy(weights, points, table, stencil, 2).energy.sum()
    torch.autograd.grad(energy, [weights, points, table], retain_graph=True)
    assert convolutions == [2]
    forces = torch.autograd.grad(energy, points, create_graph=True)[0]
    assert convolutions == [2]
    torch.autograd.grad(forces.pow(2).sum(), [weights, table])
    assert convolutions == [2, 2]


def test_only_the_channels_of_the_field_are_convolved_again(convolutions):
    (weights, points, table), stencil = problem(3, n_inputs=3)
    field, energy, *_ = field_and_energy(weights, points, table, stencil, 1)
    forces = torch.autograd.grad(energy.sum() + field.sin().sum(), points, create_graph=True)[0]
    assert convolutions == [3, 2]
    torch.autograd.grad(forces.pow(2).sum(), [weights, table])
    assert sorted(convolutions[2:]) == [1, 2, 2, 2]  # the loss asks for the cotangent of the field once more


def test_graphs_are_freed_without_the_garbage_collector(monkeypatch):
    """A node that held its own output would keep meshes until the collector runs."""
    (weights, points, table), stencil = problem(3)
    evaluations = []
    plain = differentiation._differentiable
    monkeypatch.setattr(
        differentiation, "_differentiable", lambda *inputs: evaluations.append(weakref.ref(inputs[1])) or plain(*inputs)
    )
    gc.disable()
    try:
        field, energy, *_ = field_and_energy(weights, points, table, stencil, 1)
        forces = torch.autograd.grad(energy.sum() + field.sin().sum(), points, create_graph=True)[0]
        torch.autograd.grad(forces.pow(2).sum(), [weights, table])
        assert None not in [reference() for reference in evaluations]
        del field, energy, forces
        assert [reference() for reference in evaluations] == [None, None]
    finally:
        gc.enable()
