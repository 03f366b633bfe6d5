"""Energies 1/2 sum f u as outputs of the layer, against those made of its field."""

import pytest
import torch

from lrc_ase.layer.convolution import LongRangeConvolution
from lrc_ase.layer.kernels import Coulomb, Matrix, Stack, Yukawa

TRICLINIC = torch.tensor([[[12.0, 0, 0], [4, 10, 0], [-3, 2, 9]]], dtype=torch.float64)


def cloud(n_channels):
    generator = torch.Generator().manual_seed(0)
    fractional = torch.rand(12, 3, dtype=torch.float64, generator=generator)
    return torch.randn(12, n_channels, dtype=torch.float64, generator=generator), fractional


@pytest.mark.parametrize("remove_self", [False, True])
@pytest.mark.parametrize(
    ("method", "pbc"), [("mesh", "TTT"), ("ewald", "TTT"), ("direct", "FFF"), ("mesh", "TTF"), ("mesh", "TTT FFF")]
)
def test_energies_are_half_the_sum_of_weights_and_field(method, pbc, remove_self):
    """Values and derivatives by everything; with two boundaries structures are summed in two groups."""
    weights, fractional = cloud(n_channels=3)
    kernel = Stack([Coulomb(smearing=1.0), Yukawa([0.5, 1.1], [0.7, -1.2], smearing=1.0)]).double()
    layer = LongRangeConvolution(
        kernel, smearing=1.0, accuracy=1e-3, mesh_shape=(8, 10, 8), method=method, remove_self=remove_self
    )
    n_structures = len(pbc.split())
    cell = TRICLINIC.expand(n_structures, 3, 3).clone().requires_grad_()
    structure = torch.arange(12) * n_structures // 12
    options = {
        "structure": structure,
        "pbc": torch.tensor([[letter == "T" for letter in letters] for letters in pbc.split()]),
    }
    inputs = [weights.requires_grad_(), fractional.requires_grad_(), cell, *kernel.parameters()]
    factors = torch.tensor([[1.0, -0.3], [2.0, 0.7]], dtype=torch.float64)[:n_structures]
    field = layer(weights, fractional, cell, **options)
    products = 0.5 * (weights * field)[:, :2]
    energy = torch.zeros(n_structures, 2, dtype=torch.float64).index_add(0, structure, products)
    sums = layer.field_and_energy(weights, fractional, cell, n_energies=2, **options)
    torch.testing.assert_close(sums.field, field[:, 2:], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sums.energy, energy, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sums.potential, field[:, :2].detach(), rtol=1e-12, atol=1e-12)
    results = []
    for own_field, own_energy in ((field[:, 2:], energy), sums[:2]):
        value = (factors * own_energy).sum() + own_field.sin().sum()
        first = torch.autograd.grad(value, inputs, create_graph=True)
        results.append([*first, *torch.autograd.grad(first[1].pow(2).sum(), inputs)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_energies_are_refused_where_there_are_none():
    weights, fractional = cloud(n_channels=2)
    layer = LongRangeConvolution(Yukawa([0.5, 1.0]).double(), smearing=1.0)
    with pytest.raises(ValueError, match=r"`n_energies` must lie between 0 and the number of channels \(2\), got 3"):
        layer.field_and_energy(weights, fractional, TRICLINIC, n_energies=3)
    matrix = LongRangeConvolution(Matrix(Yukawa([0.5] * 4).double(), 2, 2), smearing=1.0)
    with pytest.raises(ValueError, match="one field for each weight, got a Matrix: use `forward`"):
        matrix.field_and_energy(weights, fractional, TRICLINIC, n_energies=1)
