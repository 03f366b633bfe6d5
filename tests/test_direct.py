"""Sums over pairs: the three ways through them, their memory, what they refuse."""

import numpy as np
import pytest
import torch
from kernel_oracles import image_sum, yukawa

from lrc_ase.layer import convolution, direct
from lrc_ase.layer.boundaries import open_layout
from lrc_ase.layer.convolution import LongRangeConvolution
from lrc_ase.layer.kernels import Coulomb, Exponential, GaussianSum, InversePower, Matrix, Multiplier, Stack, Yukawa
from lrc_ase.layer.memory import available_memory, check_mesh_memory

OPEN = torch.zeros(1, 3, dtype=torch.bool)


def cloud(n_atoms=14, n_channels=2):
    generator = torch.Generator().manual_seed(3)
    positions = 9 * torch.rand(n_atoms, 3, dtype=torch.float64, generator=generator)
    return positions, torch.randn(n_atoms, n_channels, dtype=torch.float64, generator=generator)


def field_and_forces(layer, positions, weights):
    positions = positions.clone().requires_grad_()
    field = layer(weights, positions, torch.eye(3, dtype=torch.float64)[None], pbc=OPEN)
    forces = torch.autograd.grad((weights[:, :1] * field).sum(), positions, create_graph=True)[0]
    second = torch.autograd.grad((forces**2).sum(), positions)[0]
    return field.detach(), forces.detach(), second


def test_pair_sum_equals_that_of_numpy():
    positions, weights = cloud(n_channels=1)
    layer = LongRangeConvolution(Yukawa([0.3], smearing=0.7), method="direct")
    exact = image_sum(yukawa(0.3, 0.7), positions.numpy(), weights[:, 0].numpy(), np.eye(3), [False] * 3, 100.0)
    actual = field_and_forces(layer, positions, weights)[0]
    np.testing.assert_allclose(actual[:, 0], exact, rtol=1e-12)


@pytest.mark.parametrize(
    "multiplier",
    [
        Yukawa([0.3, 0.8], smearing=1.0),
        Stack([InversePower(6), Coulomb()]),
        Matrix(Yukawa([0.2, 0.4, 0.6, 0.8, 1.0, 1.2]), 3, 2),
    ],
    ids=["smeared", "stack", "matrix"],
)
def test_many_atoms_go_by_blocks_with_the_same_numbers(multiplier, monkeypatch):
    positions, weights = cloud()
    layer = LongRangeConvolution(multiplier, method="direct")
    at_once = field_and_forces(layer, positions, weights)
    monkeypatch.setattr(direct, "_PAIRS_AT_ONCE", 30)
    for actual, expected in zip(field_and_forces(layer, positions, weights), at_once, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("limit", [60, 30])
def test_each_of_several_structures_takes_its_way(monkeypatch, limit):
    """Together they have 92 pairs, both ways: more than the limit, while one of them alone has fewer."""
    sizes = (4, 6, 2, 6)
    positions, weights = cloud(sum(sizes))
    structure = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    multiplier = Yukawa([0.3, 0.8], smearing=1.0)
    monkeypatch.setattr(direct, "_PAIRS_AT_ONCE", limit)
    field = direct.pair_sums(multiplier, weights, positions, structure, torch.bincount(structure).tolist()).detach()
    for number in range(4):
        place = positions[structure == number].numpy()
        for channel, screening in enumerate((0.3, 0.8)):
            charges = weights[structure == number][:, channel].numpy()
            exact = image_sum(yukawa(screening, 1.0), place, charges, np.eye(3), [False] * 3, 100.0)
            np.testing.assert_allclose(field[structure == number][:, channel], exact, rtol=1e-10)


KEOPS = {
    "exponential": Exponential([0.5, 1.0]),
    "coulomb": Coulomb(2, smearing=0.0),
    "yukawa": Yukawa([0.3, 0.8], smearing=0.0),
    "gaussians": GaussianSum([[1.1, 2.0], [1.5, 3.0]], [[1.0, -0.5], [0.3, 0.4]]),
}


def field_and_gradients(name, pairs, monkeypatch, *, gradients=True):
    """Return a field and the gradients of its energy, by KeOps where there are more pairs than `pairs`."""
    multiplier = KEOPS[name]
    positions, weights = cloud()
    positions.requires_grad_(gradients)
    monkeypatch.setattr(direct, "_PAIRS_AT_ONCE", pairs)
    layer = LongRangeConvolution(multiplier.requires_grad_(gradients), method="direct")
    field = layer(weights, positions, torch.eye(3, dtype=torch.float64)[None], pbc=OPEN)
    inputs = [positions, *multiplier.parameters()]
    return field.detach(), *(torch.autograd.grad((field * weights).sum(), inputs) if gradients else ())


def test_keops_field_of_many_atoms_equals_all_pairs(monkeypatch):
    kernel = "exponential"
    expected, actual = (field_and_gradients(kernel, n, monkeypatch, gradients=False) for n in (10**6, 30))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.slow  # KeOps compiles each formula and each derivative once per machine, seven seconds each
@pytest.mark.parametrize("name", KEOPS)
def test_keops_sum_of_many_atoms_equals_all_pairs(name, monkeypatch):
    expected, actual = (field_and_gradients(name, n, monkeypatch) for n in (10**6, 30))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("multiplier", [Yukawa([0.3]), Matrix(Yukawa([0.2, 0.4]), 2, 1)], ids=["diagonal", "matrix"])
def test_a_single_atom_sees_nothing_but_itself(multiplier):
    positions, weights = cloud(1, 1)
    field = LongRangeConvolution(multiplier, method="direct")(weights, positions, torch.eye(3)[None].double(), pbc=OPEN)
    assert field.tolist() == [[0.0] * multiplier.n_outputs]
    kept = LongRangeConvolution(multiplier, method="direct", remove_self=False)
    field = kept(weights, positions, torch.eye(3)[None].double(), pbc=OPEN)
    torch.testing.assert_close(field, (multiplier.at_origin(3) * weights[0]).reshape(1, -1))


def test_kernels_of_three_dimensions_are_refused_in_the_plane():
    layer = LongRangeConvolution(Yukawa([1.0]), method="direct")
    with pytest.raises(ValueError, match="Yukawa in real space is known in three dimensions, not in 2"):
        layer(torch.ones(2, 1), torch.rand(2, 2), torch.eye(2)[None], pbc=torch.zeros(1, 2, dtype=torch.bool))


def test_kernels_that_keops_cannot_write_are_none():
    assert Multiplier().keops_radial(None) is None


def test_mesh_larger_than_memory_is_refused():
    layer = LongRangeConvolution(Coulomb(), smearing=0.1, accuracy=1e-4)
    huge = 3000 * torch.eye(3, dtype=torch.float64)[None]
    with pytest.raises(ValueError, match=r"needs about .* GiB, and .* GiB are available: ask for a lower `accuracy`"):
        layer(torch.ones(1, 1).double(), torch.zeros(1, 3).double(), huge)
    assert 2**20 < available_memory(torch.device("cpu")) < 2**50
    check_mesh_memory((64, 64, 64), 1, 4, torch.float64, torch.device("cpu"))


def test_memory_of_a_mesh_is_four_arrays_of_every_channel_and_structure(monkeypatch):
    """2^23 points, 2 structures and 3 channels: 1.5 GiB in float64."""
    cpu, shape = torch.device("cpu"), (256, 256, 128)
    needed = 4 * 2**23 * 2 * 3 * 8
    monkeypatch.setattr("lrc_ase.layer.memory.available_memory", lambda device: needed)
    check_mesh_memory(shape, 2, 3, torch.float64, cpu)
    monkeypatch.setattr("lrc_ase.layer.memory.available_memory", lambda device: needed - 1)
    with pytest.raises(
        ValueError, match=r"\(256, 256, 128\) with 3 channels and 2 structures needs about 1\.5 GiB, and 1"
    ):
        check_mesh_memory(shape, 2, 3, torch.float64, cpu)
    check_mesh_memory(shape, 2, 3, torch.float32, cpu)
    monkeypatch.setattr("lrc_ase.layer.memory.available_memory", lambda device: 0)
    check_mesh_memory((127, 128, 128), 1, 1, torch.float64, cpu)  # less than 64 MiB: nobody asks


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("periodic", [True, False])
def test_coordinates_that_are_not_finite_are_named(bad, periodic):
    positions, weights = cloud(n_channels=1)
    positions[4, 1] = bad
    layer = LongRangeConvolution(Coulomb(), smearing=1.0)
    pbc = torch.full((1, 3), periodic)
    with pytest.raises(ValueError, match=r"coordinates that are not finite \(NaN or infinite\), of atoms \[4\]"):
        layer(weights, positions, 10 * torch.eye(3, dtype=torch.float64)[None], pbc=pbc)


@pytest.mark.parametrize("row", [[0.0, 0, 0], [10.0, 10, 0], [float("nan"), 0, 1]])
def test_singular_cells_are_refused(row):
    positions, weights = cloud(n_channels=1)
    cell = torch.tensor([[[10.0, 0, 0], [0, 10, 0], row]], dtype=torch.float64)
    with pytest.raises(ValueError, match="`cell` 0 is singular or not finite"):
        LongRangeConvolution(Coulomb(), smearing=1.0)(weights, positions, cell)


def test_layer_smearing_must_not_exceed_that_of_its_kernel():
    with pytest.raises(ValueError, match=r"`smearing` of the layer \(1.0\) must not exceed that of its multiplier"):
        LongRangeConvolution(Yukawa([1.0], smearing=0.5), smearing=1.0)


SMEARED = {"multiplier": Coulomb(smearing=1.0), "smearing": 1.0, "accuracy": 1e-3}


@pytest.mark.parametrize(
    ("options", "pairs_cost_less", "takes_mesh"),
    [
        (SMEARED, False, True),
        (SMEARED, True, False),
        (SMEARED | {"method": "direct"}, False, False),
        ({"multiplier": Exponential([1.0]), "mesh_shape": (9, 9, 9), "method": "ewald"}, False, False),
    ],
    ids=["mesh", "few atoms", "direct", "no smearing"],
)
def test_a_cluster_takes_pairs_where_they_cost_less_or_nothing_else_will_do(
    monkeypatch, options, pairs_cost_less, takes_mesh
):
    layouts = []
    monkeypatch.setattr(convolution, "pairs_cost_less", lambda *_: pairs_cost_less)
    monkeypatch.setattr(convolution, "open_layout", lambda *words: layouts.append(words) or open_layout(*words))
    layer = LongRangeConvolution(**options)
    positions, weights = cloud(n_channels=1)
    layer(weights, positions, torch.eye(3, dtype=torch.float64)[None], pbc=OPEN)
    assert bool(layouts) == takes_mesh
