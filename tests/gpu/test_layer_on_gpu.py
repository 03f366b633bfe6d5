"""The layer on a GPU beside the CPU: values, first and second derivatives, in every boundary and both precisions."""

from __future__ import annotations

import pytest
import torch

from lrc_ase import LongRangeConvolution
from lrc_ase.layer.kernels import Coulomb, Matrix, Stack, Yukawa
from lrc_ase.layer.lattice import fractional_coordinates

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}
BOUNDARIES = {
    "periodic": (12.0, (True, True, True), 60),
    "smaller than the window": (2.5, (True, True, True), 4),
    "slab": (9.0, (True, True, False), 40),
    "wire": (8.0, (False, True, False), 40),
    "cluster by pairs": (9.0, (False, False, False), 30),
    "cluster by mesh": (22.0, (False, False, False), 3000),
}


class Problem:
    """Two structures in slanted cells, with a kernel to be trained."""

    def __init__(self, boundary, dtype, kernel=None, n_channels=3):
        length, pbc, n_atoms = BOUNDARIES[boundary]
        generator = torch.Generator().manual_seed(0)
        options = {"dtype": torch.float64, "generator": generator}
        cell = length * torch.eye(3, dtype=torch.float64) + 0.1 * length * torch.rand(2, 3, 3, **options)
        self.structure = torch.arange(2 * n_atoms) // n_atoms
        positions = (torch.rand(2 * n_atoms, 3, **options)[:, None] @ cell[self.structure])[:, 0]
        self.fractional = fractional_coordinates(positions, cell, self.structure).to(dtype)
        self.cell, self.pbc = cell.to(dtype), torch.tensor([pbc, pbc])
        self.weights = torch.randn(2 * n_atoms, n_channels, **options).to(dtype)
        self.directions = torch.randn(2 * n_atoms, 3, **options).to(dtype)
        kernel = kernel or Stack([Coulomb(smearing=1.0), Yukawa([0.3, 0.8], smearing=1.0)])
        self.layer = LongRangeConvolution(kernel.to(dtype), smearing=1.0, accuracy=1e-6)

    def results(self, layer, device):
        """Energies, field, and derivatives as in a step of training: of energies, and of a loss on forces."""
        inputs = [tensor.to(device).requires_grad_() for tensor in (self.weights, self.fractional, self.cell)]
        options = {"structure": self.structure.to(device), "pbc": self.pbc.to(device)}
        if layer.multiplier.is_matrix:
            field, energies = layer(*inputs, **options), torch.zeros(2, 1, device=device)
        else:
            sums = layer.field_and_energy(*inputs, n_energies=1, **options)
            field, energies = sums.field, sums.energy
        total = energies.sum() + (field**2).sum() / 3
        first = torch.autograd.grad(total, inputs, create_graph=True)
        loss = (first[1] * self.directions.to(device)).sum() + (first[0] ** 2).sum()
        parameters = list(layer.parameters())
        second = torch.autograd.grad(loss, [inputs[0], *parameters], allow_unused=True)
        return {"energies": energies, "field": field} | {
            f"derivative {index}": tensor for index, tensor in enumerate([*first, *second])
        }


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_values_and_derivatives_are_those_of_the_cpu(boundary, dtype, device, moved, agree):
    problem, reference = Problem(boundary, dtype), Problem(boundary, torch.float64)
    expected = reference.results(reference.layer, torch.device("cpu"))
    actual = problem.results(moved(problem.layer), device)
    assert actual["field"].device.type == device.type
    for name, value in expected.items():
        agree(actual[name], value, TOLERANCE[dtype])


def test_a_matrix_of_kernels_is_that_of_the_cpu(device, moved, agree):
    problem = Problem("periodic", torch.float64, Matrix(Yukawa([0.3, 0.8, 0.5, 1.1], smearing=1.0), 2, 2), 2)
    expected = problem.results(problem.layer, torch.device("cpu"))
    for name, value in problem.results(moved(problem.layer), device).items():
        agree(value, expected[name], 1e-10)


def test_hessians_are_those_of_the_cpu(device, moved, agree):
    problem = Problem("smaller than the window", torch.float64)
    hessians = []
    for layer, place in ((problem.layer, torch.device("cpu")), (moved(problem.layer), device)):
        weights, cell = problem.weights.to(place), problem.cell.to(place)
        options = {"structure": problem.structure.to(place), "pbc": problem.pbc.to(place)}

        def energy(fractional, layer=layer, weights=weights, cell=cell, options=options):
            return layer.field_and_energy(weights, fractional, cell, n_energies=1, **options).energy.sum()

        hessians.append(torch.autograd.functional.hessian(energy, problem.fractional.to(place)))
    agree(hessians[1], hessians[0], 1e-9)


def test_a_million_atoms_have_finite_fields(device, moved):
    if device.type == "cpu":
        pytest.skip("for a GPU")
    generator = torch.Generator().manual_seed(0)
    layer = moved(LongRangeConvolution(Coulomb(smearing=1.25), smearing=1.25, accuracy=1e-4))
    n_atoms = 1_000_000
    fractional = torch.rand(n_atoms, 3, generator=generator).to(device)
    weights = torch.randn(n_atoms, 1, generator=generator).to(device)
    cell = (n_atoms / 0.1) ** (1 / 3) * torch.eye(3, device=device)[None]
    field = layer(weights, fractional, cell)
    assert bool(torch.isfinite(field).all())
    # some atoms again, together with all others: the same field to the last bit, whatever the order of threads
    assert torch.equal(field, layer(weights, fractional, cell))
