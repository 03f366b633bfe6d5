"""Parts of the step without autograd: layers, tables and sums over pairs, and copies of atoms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms
from structures import ELEMENTS, settings, shaken_model, water
from torch import nn

from lrc_ase import LongRangeSettings
from lrc_ase.layer.kernels import Coulomb, Stack, Yukawa
from lrc_ase.models.inference.field import LayerField
from lrc_ase.models.inference.networks import Columns, Layers
from lrc_ase.models.inference.pair_field import PairField
from lrc_ase.models.inference.radial_table import FIRST_OCTAVE, N_INTERVALS, radial_table
from lrc_ase.structures.copies import copied
from lrc_ase.structures.neighbors import neighbor_graph


def layers_by_torch(inputs, weights, constants, kinds, is_active):
    for index, (weight, constant) in enumerate(zip(weights, constants, strict=True)):
        rows = nn.functional.silu(inputs) if index or is_active else inputs
        of_rows = weight[kinds] if weight.ndim == 3 else weight.expand(len(kinds), -1, -1)
        inputs = torch.einsum("noi,ni->no", of_rows, rows) + constant[kinds]
    return inputs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n_rows", [1, 3, 4, 9])
@pytest.mark.parametrize(
    ("sizes", "per_kind", "is_active"),
    [((5, 3), False, False), ((16, 20, 1), False, True), ((7, 33, 16, 2), False, True), ((6, 5), True, False)],
)
def test_layers_and_their_adjoint_equal_torch(dtype, n_rows, sizes, per_kind, is_active):
    generator, n_kinds = torch.Generator().manual_seed(0), 3
    kinds = torch.sort(torch.randint(n_kinds, (n_rows,), generator=generator)).values
    leading = (n_kinds,) if per_kind else ()
    weights = [torch.randn(*leading, b, a, generator=generator).to(dtype) for a, b in pairwise(sizes)]
    constants = [torch.randn(n_kinds, size, generator=generator).to(dtype) for size in sizes[1:]]
    layers = Layers(weights, constants, is_active=is_active)
    layers.prepare(kinds.numpy())
    # large numbers too, of either sign
    x = 20 * torch.randn(n_rows, sizes[0], generator=generator).to(dtype).pow(3)
    inputs, outputs = layers.rows(0), layers.rows(-1)
    inputs[:, : sizes[0]] = x
    inputs[:, sizes[0] :] = 0.0
    layers(Columns(inputs), Columns(outputs))
    variable = x.clone().requires_grad_()
    expected = layers_by_torch(variable, weights, constants, kinds, is_active)
    size = float(expected.detach().abs().max())
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    actual = torch.from_numpy(outputs[:, : sizes[-1]])
    torch.testing.assert_close(actual, expected.detach(), rtol=tolerance, atol=tolerance * size)
    along = torch.randn(n_rows, sizes[-1], generator=generator).to(dtype)
    gradient = torch.autograd.grad(expected, variable, along)[0]
    by_inputs = torch.from_numpy(layers.pull(Columns(along.numpy()), layers.rows(0))[:, : sizes[0]])
    torch.testing.assert_close(by_inputs, gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max()))


def test_layers_add_to_columns_and_leave_others():
    layers = Layers([torch.eye(8).double()], [torch.zeros(1, 8).double()], is_active=False)
    layers.prepare(np.zeros(2, np.int64))
    inputs, outputs = np.arange(48.0).reshape(2, 24), np.ones((2, 24))
    layers(Columns(inputs, 16), Columns(outputs, 8), adds=True)
    np.testing.assert_array_equal(outputs[:, 8:16], 1 + inputs[:, 16:])
    np.testing.assert_array_equal(outputs[:, [*range(8), *range(16, 24)]], 1)


def test_a_nan_stays_a_nan_in_layers():
    layers = Layers([torch.eye(8).double()], [torch.zeros(1, 8).double()], is_active=True)
    layers.prepare(np.zeros(1, np.int64))
    inputs, outputs = np.zeros((1, 8)), np.empty((1, 8))
    inputs[0, 3] = np.nan
    layers(Columns(inputs), Columns(outputs))
    assert np.isnan(outputs).all()  # zero times NaN


@pytest.mark.parametrize("smearing", [1.25, 0.3])
def test_tables_equal_the_kernel_at_all_distances(smearing):
    kernel = Stack([Coulomb(smearing=smearing), Yukawa([0.1, 0.8, 4.0], smearing=smearing)]).double()
    table = radial_table(kernel, 300.0)
    distances = np.exp(np.random.default_rng(0).uniform(np.log(1e-2), np.log(300), 2000))
    mantissas, exponents = np.frexp(distances)
    places = (mantissas - 0.5) * 2 * N_INTERVALS
    intervals = (exponents - FIRST_OCTAVE) * N_INTERVALS + places.astype(int)
    t = 2 * (places - places.astype(int)) - 1
    values = np.zeros((len(distances), table.shape[2]))
    for power in range(table.shape[1]):
        values = values * t[:, None] + table[intervals, power]
    r = torch.from_numpy(distances)
    expected = torch.cat([kernel.radial(r), kernel.radial_slope(r, 4)], dim=1).detach().numpy()
    # both are differences of terms 1 / r, and slopes of terms 1 / r^3
    rounding = np.repeat(np.stack([1e-15 / distances, 1e-15 / distances**3], axis=1), 4, axis=1)
    assert (abs(values - expected) < 3 * rounding + 1e-13 * abs(expected)).all()


@pytest.mark.parametrize("options", [{}, {"electrostatics": False}, {"n_dipoles": 2, "polarizable": True}])
def test_pairs_equal_the_layer_where_atoms_leave_the_table(options):
    long_range = LongRangeSettings(accuracy=1e-6, **{"charges": "shifted", **options})
    part = shaken_model(settings(long_range=long_range)).requires_grad_(False).long_range
    graph = neighbor_graph(water(), ELEMENTS, 5.0)
    pairs, layer = PairField(part, graph, torch.float64), LayerField(part, graph)
    rng = np.random.default_rng(0)
    n = part.convolution.multiplier.n_channels
    for positions in (graph.positions.numpy(), 200 * graph.positions.numpy()):
        weights, n_energies = rng.standard_normal((3, n)), int(long_range.electrostatics)
        one, other = pairs(weights, positions), layer(weights.copy(), positions.copy())
        by_field, by_gradient = rng.standard_normal((3, n - n_energies)), None
        if options.get("polarizable"):
            by_gradient = rng.standard_normal((3, 3))
            np.testing.assert_allclose(one.gradient, other.gradient, rtol=1e-11, atol=1e-12)
        assert one.energy == pytest.approx(other.energy, rel=1e-12, abs=1e-12)
        gradients = pairs.pull(by_field, by_gradient), layer.pull(by_field, by_gradient)
        for a, b in zip((*one[1:3], *gradients[0]), (*other[1:3], *gradients[1]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match="three periodic directions"):
        pairs.virial()


def test_pairs_at_one_position_give_nan():
    part = shaken_model(settings(long_range=LongRangeSettings(charges="shifted"))).requires_grad_(False).long_range
    graph = neighbor_graph(water(), ELEMENTS, 5.0)
    field = PairField(part, graph, torch.float64)
    positions = graph.positions.numpy().copy()
    for wrong in (positions[0], np.nan):
        positions[1] = wrong
        assert np.isnan(field(np.ones((3, part.convolution.multiplier.n_channels)), positions).energy)


def test_a_copy_of_atoms_is_equal_and_shares_nothing():
    atoms = molecule("CH3OH", vacuum=3.0, pbc=(True, False, False))
    atoms.info["charge"] = 1
    atoms.set_momenta(np.ones((len(atoms), 3)))
    duplicate = copied(atoms)
    assert duplicate == atoms
    assert duplicate.calc is None
    assert type(duplicate) is Atoms
    assert set(duplicate.arrays) == set(atoms.arrays)
    before = atoms.copy()
    atoms.positions += 1.0
    atoms.cell[0, 0] = 20.0
    atoms.pbc[1] = True
    atoms.numbers[0] = 1
    atoms.info["charge"] = 2
    atoms.set_momenta(np.zeros((len(atoms), 3)))
    atoms.set_celldisp([1.0, 0.0, 0.0])
    assert duplicate == before
    assert duplicate.info["charge"] == 1
    assert duplicate.get_momenta().all()
    assert not duplicate.get_celldisp().any()


def test_a_copy_of_atoms_copies_constraints_and_keeps_their_class():
    class Special(Atoms):
        pass

    atoms = Special("H2", positions=np.eye(3)[:2], constraint=FixAtoms([0]))
    duplicate = copied(atoms)
    assert type(duplicate) is Special
    assert duplicate.constraints[0] is not atoms.constraints[0]
    duplicate.set_constraint()
    assert len(atoms.constraints) == 1
