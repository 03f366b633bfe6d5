"""Gradients of the layer's potentials at the atoms, against differences of the field and against autograd."""

import numpy as np
import pytest
import torch

from lrc_ase.layer.convolution import LongRangeConvolution
from lrc_ase.layer.kernels import Coulomb, Exponential, Stack, Yukawa

TRICLINIC = torch.tensor([[[12.0, 0, 0], [4, 10, 0], [-3, 2, 9]]], dtype=torch.float64)
BOUNDARIES = ["TTT", "TTF", "FTF", "FFF", "TTT FFF"]


def layer(**options):
    kernel = Stack([Coulomb(2, smearing=1.0), Yukawa([0.5], [0.7], smearing=1.0)]).double()
    return LongRangeConvolution(kernel, smearing=1.0, **options)


def cloud(pbc, n_channels=3):
    """Return weights, fractional coordinates, cells and options of structures that share the cell."""
    generator = torch.Generator().manual_seed(0)
    n_structures = len(pbc.split())
    fractional = torch.rand(12, 3, dtype=torch.float64, generator=generator)
    weights = torch.randn(12, n_channels, dtype=torch.float64, generator=generator)
    options = {
        "structure": torch.arange(12) * n_structures // 12,
        "pbc": torch.tensor([[letter == "T" for letter in letters] for letters in pbc.split()]),
    }
    return weights, fractional, TRICLINIC.expand(n_structures, 3, 3).clone(), options


@pytest.mark.parametrize("pbc", BOUNDARIES)
def test_gradients_match_differences_of_the_field_at_a_probe(pbc):
    """A probe without weight feels the field of the others and makes none."""
    weights, fractional, cell, options = cloud(pbc)
    weights[4] = 0.0
    exact = layer(accuracy=1e-10)
    gradient = exact.field_and_energy(weights, fractional, cell, n_energies=2, gradient=True, **options).gradient
    step = 1e-4
    for axis in range(3):
        move = step * torch.eye(3, dtype=torch.float64)[axis] @ torch.linalg.inv(TRICLINIC[0])
        sides = []
        for sign in (1, -1):
            moved = fractional.clone()
            moved[4] += sign * move
            sides.append(exact(weights, moved, cell, **options)[4, :2])
        torch.testing.assert_close(gradient[4, axis], (sides[0] - sides[1]) / (2 * step), rtol=1e-6, atol=1e-7)


def test_gradient_of_two_ions_is_the_field_of_a_gaussian_charge():
    """E = q [erf(r / (sqrt 2 s)) / r^2 - sqrt(2 / pi) exp(-r^2 / (2 s^2)) / (s r)] along the line between them."""
    distance, smearing = 1.7, 1.0
    fractional = torch.tensor([[0.0, 0, 0], [0, 0, distance]], dtype=torch.float64)
    weights = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    coulomb = LongRangeConvolution(Coulomb(smearing=smearing), smearing=smearing)
    sums = coulomb.field_and_energy(
        weights, fractional, torch.eye(3)[None].double(), n_energies=1, gradient=True, pbc=torch.zeros(1, 3).bool()
    )
    # 0.910869 = erf(1.7 / sqrt 2), 0.235746 = exp(-1.445)
    expected = -2.0 * (0.910869 / distance**2 - np.sqrt(2 / np.pi) * 0.235746 / distance)
    assert sums.gradient[1, 2, 0].item() == pytest.approx(expected, abs=1e-5)
    assert sums.gradient[0, 2, 0].item() == pytest.approx(expected / 2, abs=1e-5)
    assert sums.gradient[:, :2].abs().max() == 0


@pytest.mark.parametrize("pbc", BOUNDARIES)
def test_derivatives_of_gradients_match_differences(pbc):
    """First, second and mixed ones: by weights, positions and cell, together with those of energies and field."""
    weights, fractional, cell, options = cloud(pbc)
    coarse = layer(accuracy=1e-3, mesh_shape=(8, 10, 8))

    def value(weights, fractional, cell):
        sums = coarse.field_and_energy(weights, fractional, cell, n_energies=2, gradient=True, **options)
        return torch.cat([sums.gradient.sin().flatten(), sums.energy.flatten(), sums.field.flatten()])

    inputs = tuple(each.requires_grad_() for each in (weights, fractional, cell))
    torch.autograd.gradcheck(value, inputs, fast_mode=True)
    torch.autograd.gradgradcheck(value, inputs, fast_mode=True)


@pytest.mark.parametrize("dimension", [1, 2])
def test_gradients_on_lines_and_planes(dimension):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 2, dtype=torch.float64, generator=generator).requires_grad_()
    fractional = torch.rand(5, dimension, dtype=torch.float64, generator=generator).requires_grad_()
    cell = (9.0 * torch.eye(dimension, dtype=torch.float64))[None].requires_grad_()
    periodic = LongRangeConvolution(Yukawa([0.5, 1.0], smearing=1.0).double(), smearing=1.0, accuracy=1e-3)

    def gradient(weights, fractional, cell):
        return periodic.field_and_energy(weights, fractional, cell, n_energies=2, gradient=True).gradient

    probe = weights.detach().clone()
    probe[2] = 0.0
    fixed = fractional.detach()
    for axis in range(dimension):
        sides = []
        for sign in (1, -1):
            moved = fixed.clone()
            moved[2, axis] += sign * 1e-4 / 9.0
            sides.append(periodic(probe, moved, cell)[2])
        expected = (sides[0] - sides[1]) / 2e-4
        torch.testing.assert_close(gradient(probe, fixed, cell)[2, axis], expected, rtol=1e-6, atol=1e-7)
    torch.autograd.gradcheck(gradient, (weights, fractional, cell), fast_mode=True)
    torch.autograd.gradgradcheck(gradient, (weights, fractional, cell), fast_mode=True)


def test_blocks_of_pairs_give_the_gradients_of_all_pairs(monkeypatch):
    weights, fractional, cell, options = cloud("FFF")
    results = []
    for at_once in (2_000_000, 30):
        monkeypatch.setattr("lrc_ase.layer.direct._PAIRS_AT_ONCE", at_once)
        leaf = fractional.clone().requires_grad_()
        gradient = layer().field_and_energy(weights, leaf, cell, n_energies=2, gradient=True, **options).gradient
        results.append((gradient, *torch.autograd.grad(gradient.sin().sum(), leaf)))
    for blocks, whole in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-12)


def test_what_gives_no_gradients_is_refused():
    weights, fractional, cell, options = cloud("TTT")
    with pytest.raises(ValueError, match="gives no gradients: use method='mesh'"):
        layer(method="ewald").field_and_energy(weights, fractional, cell, n_energies=1, gradient=True, **options)
    exponential = LongRangeConvolution(Exponential([0.5], smearing=1.0).double(), smearing=1.0)
    with pytest.raises(ValueError, match="Exponential has no derivative in real space"):
        exponential.field_and_energy(
            weights[:, :1], fractional, cell, n_energies=1, gradient=True, pbc=torch.zeros(1, 3, dtype=torch.bool)
        )
