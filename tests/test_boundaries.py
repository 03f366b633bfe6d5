"""Every kernel at every boundary, against sums over images that share nothing with the layer."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from kernel_oracles import (
    coulomb,
    coulomb_slab,
    coulomb_wire,
    exponential,
    from_transform,
    gaussian_sum,
    image_sum,
    inverse_power,
    spline_transform,
    yukawa,
)

from lrc_ase.layer.convolution import LongRangeConvolution
from lrc_ase.layer.kernels import Coulomb, Exponential, GaussianSum, InversePower, Matrix, RadialSpline, Stack, Yukawa

CELL = np.array([[7.0, 0.4, 0.3], [1.5, 6.5, -0.8], [-0.7, 1.2, 7.5]])
BOUNDARIES = ["".join(letters) for letters in product("TF", repeat=3)]
SMEARING = 0.8
# a bell in k, so that little of the kernel in real space is beyond 25 Angstrom
BELL = [math.exp(-((index / 7) ** 2)) for index in range(28)]
KERNELS = {
    "yukawa": (Yukawa([0.8], smearing=SMEARING), yukawa(0.8, SMEARING)),
    "exponential": (Exponential([0.9], smearing=SMEARING), exponential(0.9, SMEARING)),
    "dispersion": (InversePower(6, smearing=SMEARING), inverse_power(6, SMEARING)),
    "gaussians": (
        GaussianSum([[1.1, 2.6]], [[0.7, -0.4]], smearing=SMEARING),
        gaussian_sum([1.1, 2.6], [0.7, -0.4]),
    ),
    "spline": (RadialSpline([BELL], smearing=SMEARING), from_transform(spline_transform(BELL, SMEARING, 7.5), 7.5)),
}


@pytest.fixture(autouse=True)
def _always_the_mesh(monkeypatch):
    """Clusters of this size would otherwise be summed by pairs."""
    monkeypatch.setattr("lrc_ase.layer.boundaries._PAIRS_PER_MESH_POINT", 0.0)


def pbc(letters):
    return torch.tensor([[letter == "T" for letter in letters]])


def atoms(n_atoms=5, n_channels=1, seed=0, neutral=False):
    generator = torch.Generator().manual_seed(seed)
    positions = 5.5 * torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator)
    weights = torch.randn(n_atoms, n_channels, dtype=torch.float64, generator=generator)
    return positions, weights - weights.mean(dim=0) * neutral


def field_of(layer, positions, weights, letters, cell=CELL):
    cell = torch.as_tensor(cell)
    return layer(weights, positions @ torch.linalg.inv(cell), cell[None], pbc=pbc(letters))


def reach_and_tail(name, letters):
    n_periodic = letters.count("T")
    if name == "spline" and n_periodic == 1:
        return 100.0, 0.0
    if name != "dispersion" or n_periodic == 0:
        return 40.0, 0.0
    reach = {1: 600.0, 2: 300.0, 3: 110.0}[n_periodic]
    periodic = CELL[[letter == "T" for letter in letters]]
    measure = math.sqrt(np.linalg.det(periodic @ periodic.T))
    surface = {1: 2.0, 2: 2 * math.pi, 3: 4 * math.pi}[n_periodic]
    return reach, surface * reach ** (n_periodic - 6) / (6 - n_periodic) / measure


@pytest.mark.parametrize("letters", BOUNDARIES)
@pytest.mark.parametrize("name", KERNELS)
def test_field_equals_the_sum_over_images(name, letters):
    multiplier, radial = KERNELS[name]
    positions, weights = atoms()
    layer = LongRangeConvolution(multiplier, smearing=SMEARING, accuracy=1e-9, method="ewald")
    actual = field_of(layer, positions, weights, letters).detach()
    exact = image_sum(
        radial, positions.numpy(), weights[:, 0].numpy(), CELL, pbc(letters)[0].tolist(), *reach_and_tail(name, letters)
    )
    error = np.linalg.norm(actual[:, 0].numpy() - exact) / np.linalg.norm(exact)
    # a spline's kernel echoes every 2 pi / h = 24 Angstrom: in two and three directions its oracle stops after one
    assert error < (1e-6 if name == "spline" and letters.count("T") > 1 else 1e-8)


@pytest.mark.parametrize("letters", ["TFF", "FTF", "FFT"])
@pytest.mark.parametrize("smearing", [0.4, 0.8])
def test_coulomb_wire_equals_its_fourier_sum(letters, smearing):
    """A single charge seen from two other places: a charged wire, so the constant's convention is tested too."""
    axis = letters.index("T")
    cell = np.roll(np.diag([4.7, 3.0, 3.0]), axis, axis=(0, 1))
    separations = np.array([[0.0, 0, 0], [1.1, 5.6, 1.0], [2.0, -3.4, 5.5]])
    positions = torch.from_numpy(np.roll(separations, axis, axis=1))
    weights = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    layer = LongRangeConvolution(Coulomb(smearing=smearing), smearing=smearing, accuracy=1e-9, method="ewald")
    actual = field_of(layer, positions, weights, letters, cell)[1:, 0]
    exact = [coulomb_wire(separation, 4.7) for separation in separations[1:]]
    np.testing.assert_allclose(actual, exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize("letters", ["TTF", "TFT", "FTT"])
def test_coulomb_slab_equals_its_fourier_sum(letters):
    """As for the wire: a charged slab, whose sheet average is -2 pi |z| / area."""
    axis = letters.index("F")
    cell = np.array([[5.0, 0, 0], [1.3, 4.4, 0], [0, 0, 2.0]])
    separations = np.array([[0.0, 0, 0], [1.1, 1.6, 5.5], [2.0, -3.4, -7.0]])
    shift = axis - 2
    positions = torch.from_numpy(np.roll(separations, shift, axis=1))
    weights = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    layer = LongRangeConvolution(Coulomb(smearing=0.6), smearing=0.6, accuracy=1e-9, method="ewald")
    actual = field_of(layer, positions, weights, letters, np.roll(cell, shift, axis=(0, 1)))[1:, 0]
    exact = [coulomb_slab(separation, cell) for separation in separations[1:]]
    np.testing.assert_allclose(actual, exact, rtol=0, atol=1e-9)


def test_coulomb_cluster_equals_pairs():
    positions, weights = atoms()
    layer = LongRangeConvolution(Coulomb(smearing=0.8), smearing=0.8, accuracy=1e-9, method="ewald")
    exact = image_sum(coulomb(0.8), positions.numpy(), weights[:, 0].numpy(), CELL, [False] * 3, 100.0)
    np.testing.assert_allclose(field_of(layer, positions, weights, "FFF")[:, 0], exact, rtol=1e-10, atol=1e-10)


ALL_KERNELS = Stack([Coulomb(smearing=SMEARING), InversePower(1, smearing=SMEARING), *(k for k, _ in KERNELS.values())])


@pytest.mark.slow
@pytest.mark.parametrize("letters", BOUNDARIES)
def test_mesh_reaches_its_accuracy_at_every_boundary(letters):
    kernels = [k for k in ALL_KERNELS if letters in ("TTT", "FFF") or getattr(k, "power", 6) > 3]
    multiplier = Stack(kernels)
    positions, weights = atoms(30, multiplier.n_channels, neutral=True)
    positions.requires_grad_()
    for accuracy in (1e-3, 1e-6):
        mesh = LongRangeConvolution(multiplier, smearing=SMEARING, accuracy=accuracy)
        exact = LongRangeConvolution(multiplier, smearing=SMEARING, accuracy=1e-8, method="ewald")
        fields = [field_of(layer, positions, weights, letters) for layer in (mesh, exact)]
        for channel in range(multiplier.n_channels):
            of_channel = [field[:, channel] for field in fields]
            forces = [torch.autograd.grad(u @ weights[:, channel], positions, retain_graph=True)[0] for u in of_channel]
            errors = [float((a - b).detach().norm() / b.detach().norm()) for a, b in (of_channel, forces)]
            assert max(errors) < accuracy, (kernels, channel)


CHEAP = Stack([Coulomb(smearing=1.5), Yukawa([0.3], smearing=1.5), InversePower(6, smearing=1.5)])


@pytest.mark.slow
@pytest.mark.parametrize("letters", ["TTF", "FTF", "FFF"])
def test_first_and_second_derivatives_in_every_argument(letters):
    positions, weights = atoms(3, 3)
    cell = torch.from_numpy(CELL)
    layer = LongRangeConvolution(CHEAP, smearing=1.5, accuracy=1e-2)
    names = [f"multiplier.{name}" for name, _ in CHEAP.named_parameters()]

    def energy(weights, fractional, cell, *parameters):
        values = dict(zip(names, parameters, strict=True))
        field = torch.func.functional_call(layer, values, (weights, fractional, cell), {"pbc": pbc(letters)})
        return (weights * field).sum() + 0.1 * (field**2).sum()

    arguments = [weights, positions @ torch.linalg.inv(cell), cell[None], *(p.detach() for p in CHEAP.parameters())]
    inputs = [argument.clone().requires_grad_() for argument in arguments]
    # the mesh is a little different at every cell, by its own error: the cell is tested with the sum over waves below
    inputs[2].requires_grad_(False)
    assert torch.autograd.gradcheck(energy, inputs, atol=1e-6, rtol=1e-5, fast_mode=True)
    assert torch.autograd.gradgradcheck(energy, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("letters", BOUNDARIES)
def test_derivative_by_the_cell_is_that_of_the_sum(letters):
    """Finite differences of all nine components, shears and open cell vectors included."""
    positions, weights = atoms(4, CHEAP.n_channels)
    layer = LongRangeConvolution(CHEAP, smearing=1.5, accuracy=1e-8, method="ewald", mesh_shape=None)
    cell = torch.from_numpy(CELL)
    fractional = positions @ torch.linalg.inv(cell)

    def energy(cell):
        return (weights * layer(weights, fractional, cell, pbc=pbc(letters))).sum()

    assert torch.autograd.gradcheck(energy, cell[None].clone().requires_grad_(), atol=2e-6, rtol=1e-5, eps=1e-5)


@pytest.mark.parametrize("letters", ["TTF", "FTF", "FFT"])
def test_energy_forces_and_stress_do_not_depend_on_vacuum(letters):
    positions, weights = atoms(8, ALL_KERNELS.n_channels - 1, neutral=True)
    multiplier = Stack([kernel for kernel in ALL_KERNELS if getattr(kernel, "power", 6) > 3])
    results = []
    for method, vacuum in product(("mesh", "ewald"), (10.0, 20.0, 40.0)):
        layer = LongRangeConvolution(multiplier, smearing=SMEARING, accuracy=1e-10, method=method)
        cell = torch.from_numpy(CELL.copy())
        for axis, letter in enumerate(letters):
            cell[axis] *= 1.0 if letter == "T" else vacuum / cell[axis].norm()
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        fractional = (positions @ torch.linalg.inv(cell)).requires_grad_()
        energy = (weights * layer(weights, fractional, (cell + cell @ strain)[None], pbc=pbc(letters))).sum()
        by_fractional, virial = torch.autograd.grad(energy, [fractional, strain])
        forces = -by_fractional @ torch.linalg.inv(cell).T
        results.append((energy.detach(), forces, virial))
    for actual in results[1:]:
        for value, first in zip(actual, results[0], strict=True):
            torch.testing.assert_close(value, first, rtol=1e-6, atol=1e-6 * float(first.abs().max()))


def test_virial_of_a_cluster_is_that_of_its_pairs(monkeypatch):
    positions, weights = atoms(6)
    layer = LongRangeConvolution(Yukawa([0.4], smearing=1.0), smearing=1.0, accuracy=1e-10)
    virials = []
    for pairs_per_point in (0.0, math.inf):
        monkeypatch.setattr("lrc_ase.layer.boundaries._PAIRS_PER_MESH_POINT", pairs_per_point)
        cell = torch.from_numpy(CELL.copy())[None].requires_grad_()
        fractional = positions @ torch.linalg.inv(cell[0].detach())
        energy = (weights * layer(weights, fractional, cell, pbc=pbc("FFF"))).sum()
        virials.append(torch.autograd.grad(energy, cell)[0])
    torch.testing.assert_close(*virials, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("method", ["mesh", "ewald"])
def test_batch_of_all_boundaries_equals_single_calls(method):
    kernels = [Yukawa([0.4, 0.7], smearing=1.2), InversePower(6, [1.0, 2.0], smearing=1.2), Coulomb(2, smearing=1.2)]
    matrix = Matrix(Stack(kernels), 2, 3)
    layer = LongRangeConvolution(matrix, smearing=1.2, accuracy=1e-3, method=method)
    clouds = [atoms(3 + index % 3, 3, seed=index) for index in range(len(BOUNDARIES))]
    cells = torch.from_numpy(CELL).expand(len(BOUNDARIES), 3, 3)
    structure = torch.repeat_interleave(torch.arange(len(clouds)), torch.tensor([len(x) for x, _ in clouds]))
    fractional = torch.cat([x for x, _ in clouds]) @ torch.linalg.inv(cells[0])
    weights = torch.cat([w for _, w in clouds])
    together = layer(weights, fractional, cells, structure=structure, pbc=torch.cat([pbc(b) for b in BOUNDARIES]))
    singles = [field_of(layer, x, w, b) for (x, w), b in zip(clouds, BOUNDARIES, strict=True)]
    assert together.shape == (len(weights), 2)
    torch.testing.assert_close(together, torch.cat(singles), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("letters", ["TTT", "TFF", "FFF"])
@pytest.mark.parametrize("method", ["mesh", "ewald"])
@pytest.mark.parametrize("remove_self", [True, False])
def test_matrix_is_the_sum_of_its_kernels_over_inputs(letters, method, remove_self):
    widths = [1.3, 1.7, 2.1, 2.6, 3.0, 1.9]
    positions, weights = atoms(6, 3)
    options = {"smearing": 1.2, "accuracy": 1e-4, "method": method, "remove_self": remove_self}
    matrix = Matrix(GaussianSum([[width] for width in widths], smearing=1.2), 2, 3)
    actual = field_of(LongRangeConvolution(matrix, **options), positions, weights, letters)
    for a, b in product(range(2), range(3)):
        layer = LongRangeConvolution(GaussianSum([[widths[3 * a + b]]], smearing=1.2), **options)
        actual[:, a] -= field_of(layer, positions, weights[:, b : b + 1], letters)[:, 0]
    assert actual.abs().max() < 1e-10


def test_partly_open_boundaries_of_slowly_decaying_powers_are_refused():
    positions, weights = atoms()
    layer = LongRangeConvolution(InversePower(2, smearing=1.0), smearing=1.0)
    with pytest.raises(ValueError, match=r"1 / r\^2 cannot be summed with some directions open"):
        field_of(layer, positions, weights, "TTF")


def test_open_boundaries_need_a_smearing():
    positions, weights = atoms()
    layer = LongRangeConvolution(Exponential([1.0]), mesh_shape=(9, 9, 9), method="ewald")
    with pytest.raises(ValueError, match="a slab or wire needs a kernel with `smearing` > 0"):
        field_of(layer, positions, weights, "TFT")
    with pytest.raises(ValueError, match="Exponential without smearing cannot be truncated"):
        Exponential([1.0]).truncated(None)


def test_partly_open_planes_are_refused():
    layer = LongRangeConvolution(Yukawa([1.0]), smearing=1.0)
    with pytest.raises(ValueError, match="partly open boundaries are there in three dimensions alone"):
        layer(torch.ones(1, 1), torch.zeros(1, 2), torch.eye(2)[None], pbc=torch.tensor([[True, False]]))
