r"""The layer against exact values and sums that share nothing with it but the formula."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import erfc

from lrc_ase.layer.convolution import LongRangeConvolution
from lrc_ase.layer.kernels import Coulomb, Exponential, Stack, Yukawa
from lrc_ase.layer.windows import PAPER_GAUSSIAN_WIDTH, gaussian_window, semicircle_window

MADELUNG = 1.747564594633  # NaCl, per nearest-neighbor distance; OEIS A085469
TRICLINIC = torch.tensor([[[12.0, 0, 0], [4, 10, 0], [-3, 2, 9]]], dtype=torch.float64)
SLANTED = {
    1: torch.tensor([[[9.0]]], dtype=torch.float64),
    2: torch.tensor([[[9.0, 0], [3, 8]]], dtype=torch.float64),
    3: TRICLINIC,
}


def cloud(d, *, n_atoms=20, n_channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    fractional = torch.rand(n_atoms, d, dtype=torch.float64, generator=generator)
    weights = torch.randn(n_atoms, n_channels, dtype=torch.float64, generator=generator)
    return weights, fractional


def relative(actual, exact):
    return float((actual - exact).detach().norm() / exact.detach().norm())


def test_madelung_constant_of_rock_salt():
    sites = [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]
    fractional = torch.tensor(sites, dtype=torch.float64) / 2
    charges = torch.tensor([[1.0]] * 4 + [[-1.0]] * 4, dtype=torch.float64)
    # clouds of width 0.35 on ions 4 apart: erfc(4 / (2 * 0.35)) is below 1e-15
    layer = LongRangeConvolution(Coulomb(smearing=0.35), smearing=0.35, accuracy=1e-10)
    field = layer(charges, fractional, 8.0 * torch.eye(3, dtype=torch.float64)[None])
    torch.testing.assert_close(4.0 * field * charges, torch.full_like(charges, -MADELUNG), rtol=1e-10, atol=0)


def test_exponential_kernel_on_a_ring_has_its_closed_form():
    """sum_n exp(-mu |x + nL|) = cosh(mu (L/2 - x)) / sinh(mu L / 2) for 0 <= x <= L."""
    length, decay, x = 5.0, 1.7, 1.3
    layer = LongRangeConvolution(Exponential([decay]), mesh_shape=(200001,), method="ewald", remove_self=False)
    weights = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    field = layer.double()(weights, torch.tensor([[0.0], [x / length]], dtype=torch.float64), _ring(length))
    exact = [math.cosh(decay * (length / 2 - r)) / math.sinh(decay * length / 2) for r in (0.0, x)]
    # the k-sum converges as 1/k at the cusp, as 1/k^2 elsewhere
    assert field[0].item() == pytest.approx(exact[0], abs=1e-5)
    assert field[1].item() == pytest.approx(exact[1], abs=1e-9)


def test_yukawa_field_matches_the_sum_over_images_in_real_space():
    screening, smearing = 0.8, 0.9
    weights, fractional = cloud(3, n_atoms=6, n_channels=1)
    layer = LongRangeConvolution(
        Yukawa([screening], [1.3], smearing=smearing).double(), smearing=smearing, accuracy=1e-10
    )
    field = layer(weights, fractional, TRICLINIC)
    span = torch.arange(-5, 6, dtype=torch.float64)
    images = torch.cartesian_prod(span, span, span) @ TRICLINIC[0]
    separations = ((fractional[:, None] - fractional) @ TRICLINIC[0])[:, :, None] + images
    distances = separations.norm(dim=-1)
    kernel = torch.from_numpy(_smeared_yukawa(distances.clamp(min=1e-9).numpy(), 1.3, screening, smearing))
    kernel = torch.where(distances < 1e-6, 0.0, kernel)  # the atom itself
    torch.testing.assert_close(field, kernel.sum(dim=-1) @ weights, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("accuracy", [1e-2, 1e-4, 1e-6, pytest.param(1e-8, marks=pytest.mark.slow), 1e-10])
def test_mesh_reaches_the_accuracy_asked_for(d, accuracy):
    weights, fractional = cloud(d, n_atoms=60)
    fractional.requires_grad_()
    multiplier = Yukawa([0.3, 0.9], smearing=0.8).double()
    mesh = LongRangeConvolution(multiplier, smearing=0.8, accuracy=accuracy, remove_self=False)
    exact = LongRangeConvolution(multiplier, mesh_shape=(61, 55, 49)[:d], method="ewald", remove_self=False)
    fields = [layer(weights, fractional, SLANTED[d]) for layer in (mesh, exact)]
    forces = [torch.autograd.grad((field * weights).sum(), fractional)[0] for field in fields]
    assert relative(*fields) < accuracy
    assert relative(*forces) < accuracy


@pytest.mark.parametrize("angle", [30, 150])
def test_accuracy_holds_in_anisotropic_and_strongly_slanted_cells(angle):
    radians = math.radians(angle)
    cell = torch.tensor([[[4.0, 0, 0], [20 * math.cos(radians), 20 * math.sin(radians), 0], [3, 2, 40]]]).double()
    weights, fractional = cloud(3, n_atoms=80)
    multiplier = Yukawa([0.3, 0.9], smearing=1.0).double()
    mesh = LongRangeConvolution(multiplier, smearing=1.0, accuracy=1e-6)
    exact = LongRangeConvolution(multiplier, mesh_shape=(17, 81, 121), method="ewald")
    assert relative(mesh(weights, fractional, cell), exact(weights, fractional, cell)) < 1e-6


@pytest.mark.parametrize("accuracy", [1e-2, 1e-4, 1e-6, pytest.param(1e-8, marks=pytest.mark.slow)])
def test_moving_all_atoms_through_the_mesh_changes_less_than_the_accuracy(accuracy):
    """The "egg box": energy and forces while the atoms shift by fractions of the spacing, and the net force."""
    weights, fractional = cloud(3, n_atoms=60)
    layer = LongRangeConvolution(Yukawa([0.3, 0.9], smearing=0.8).double(), smearing=0.8, accuracy=accuracy)
    spacing = 1 / torch.tensor(layer.mesh_shape_for(SLANTED[3][0].numpy()))
    energies, forces = [], []
    for step in range(8):
        moved = (fractional + step / 8 * spacing * torch.tensor([1.0, 0.7, -0.4])).requires_grad_()
        parts = 0.5 * weights * layer(weights, moved, SLANTED[3])
        energy = parts.sum()
        forces.append(-torch.autograd.grad(energy, moved)[0] @ torch.linalg.inv(SLANTED[3][0]).T)
        energies.append(float(energy.detach()))
    size = torch.stack(forces).pow(2).mean().sqrt()
    mean = torch.stack(forces).mean(dim=0)
    assert np.ptp(energies) < accuracy * float(parts.detach().abs().sum())
    assert max((force - mean).pow(2).mean().sqrt() for force in forces) < accuracy * size
    assert max(force.mean(dim=0).norm() for force in forces) < accuracy * size


def test_error_falls_with_the_mesh_and_the_window():
    weights, fractional = cloud(3, n_atoms=30)
    multiplier = Yukawa([0.3, 0.9], smearing=1.0).double()
    exact = LongRangeConvolution(multiplier, mesh_shape=(49, 45, 41), method="ewald")(weights, fractional, TRICLINIC)
    errors = []
    for n_points, shape in [(5, (15, 15, 12)), (7, (24, 20, 20)), (9, (32, 27, 27)), (13, (40, 36, 36))]:
        layer = LongRangeConvolution(multiplier, mesh_shape=shape, window=semicircle_window(n_points, 2.2))
        errors.append(relative(layer(weights, fractional, TRICLINIC), exact))
    assert all(later < earlier / 10 for earlier, later in pairwise(errors)), errors


def test_sums_over_waves_in_blocks_give_the_same_numbers(monkeypatch):
    weights, fractional = cloud(3)
    fractional.requires_grad_()
    layer = LongRangeConvolution(Yukawa([0.3, 0.9], smearing=1.0), mesh_shape=(12, 12, 12), method="ewald")
    at_once = layer(weights, fractional, TRICLINIC)
    monkeypatch.setattr(
        "lrc_ase.layer.ewald._PHASES_AT_ONCE", 100 * len(weights)
    )  # 1008 waves: the last block is short
    in_blocks = layer(weights, fractional, TRICLINIC)
    torch.testing.assert_close(in_blocks, at_once, rtol=1e-11, atol=1e-11)
    forces = [
        torch.autograd.grad((field * weights).sum(), fractional, create_graph=True)[0] for field in (in_blocks, at_once)
    ]
    torch.testing.assert_close(*forces, rtol=1e-10, atol=1e-10)
    second = [torch.autograd.grad(of.square().sum(), list(layer.parameters())) for of in forces]
    torch.testing.assert_close(*second, rtol=1e-10, atol=1e-10)


def test_paper_window_reaches_the_same_sum():
    weights, fractional = cloud(2)
    multiplier = Yukawa([0.5, 1.5], smearing=0.6).double()
    exact = LongRangeConvolution(multiplier, mesh_shape=(31, 31), method="ewald", remove_self=False)
    paper = LongRangeConvolution(
        multiplier, mesh_shape=(63, 63), window=gaussian_window(12, PAPER_GAUSSIAN_WIDTH), remove_self=False
    )
    # the window's own aliases: exp(-w^2 (2 pi)^2 / 2) = 6e-6 for the longest waves, more for shorter ones
    assert relative(paper(weights, fractional, SLANTED[2]), exact(weights, fractional, SLANTED[2])) < 5e-5


@pytest.mark.parametrize("d", [1, 2, 3])
def test_first_and_second_derivatives_in_every_argument(d):
    weights, fractional = cloud(d, n_atoms=4)
    multiplier = Yukawa([0.5, 1.1], [1.0, -0.7], smearing=0.8).double()
    shape = (10, 9, 8)[:d]
    layer = LongRangeConvolution(multiplier, mesh_shape=shape, window=semicircle_window(7, 2.1), remove_self=d != 2)

    def energy(weights, fractional, cell, log_screening, amplitude):
        values = {"multiplier.log_screening": log_screening, "multiplier.amplitude": amplitude}
        field = torch.func.functional_call(layer, values, (weights, fractional, cell))
        return torch.tanh(field * weights).sum() + (weights * field).sum()

    inputs = [weights, fractional, SLANTED[d].clone(), multiplier.log_screening.detach(), multiplier.amplitude.detach()]
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(energy, inputs, atol=1e-6, rtol=1e-5)
    assert torch.autograd.gradgradcheck(energy, inputs, atol=1e-5, rtol=1e-4)


def test_direct_sum_equals_a_mesh_in_a_wide_box():
    """Screened, so that images at 40 Angstrom are below 1e-12."""
    generator = torch.Generator().manual_seed(0)
    positions = 6 * torch.rand(12, 3, dtype=torch.float64, generator=generator)
    weights = torch.randn(12, 1, dtype=torch.float64, generator=generator)
    multiplier = Yukawa([0.8], smearing=0.8).double()
    box = 40 * torch.eye(3, dtype=torch.float64)[None]
    mesh = LongRangeConvolution(multiplier, smearing=0.8, accuracy=1e-8)
    open_space = LongRangeConvolution(multiplier, method="direct")
    actual = mesh(weights, positions / 40, box)
    torch.testing.assert_close(actual, open_space(weights, positions / 40, box, pbc=_pbc("FFF")), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kernel", ["coulomb", "yukawa"])
def test_slab_does_not_depend_on_vacuum_and_is_the_limit_of_thick_vacuum(axis, kernel):
    """A neutral slab without dipole: the periodic sum goes to the slab's as the vacuum grows."""
    generator = torch.Generator().manual_seed(1)
    positions = torch.rand(8, 3, dtype=torch.float64, generator=generator) * torch.tensor([6.0, 7.0, 6.5])
    positions = torch.cat([positions, positions])
    positions[8:, axis] = -positions[8:, axis]  # mirror images: no dipole across the slab
    weights = torch.randn(8, 1, dtype=torch.float64, generator=generator)
    weights = torch.cat([weights - weights.mean()] * 2)
    multiplier = Coulomb(smearing=0.8) if kernel == "coulomb" else Yukawa([0.2], smearing=0.8).double()
    layer = LongRangeConvolution(multiplier, smearing=0.8, accuracy=1e-8)
    pbc = torch.ones(1, 3, dtype=torch.bool)
    pbc[0, axis] = False
    fields = []
    for vacuum in (1.0, 20.0, 60.0):
        lengths = torch.tensor([6.0, 7.0, 6.5], dtype=torch.float64)
        lengths[axis] = vacuum
        fields.append(layer(weights, positions / lengths, torch.diag(lengths)[None], pbc=pbc))
    torch.testing.assert_close(fields[0], fields[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fields[0], fields[2], rtol=1e-9, atol=1e-9)
    lengths[axis] = 120.0
    thick = layer(weights, positions / lengths, torch.diag(lengths)[None])
    # with a background and conducting surroundings, the thick cell's potential is shifted by a constant
    difference = thick - fields[0]
    torch.testing.assert_close(difference - difference.mean(), torch.zeros_like(difference), rtol=0, atol=2e-3)


def test_slab_derivatives():
    weights, fractional = cloud(3, n_atoms=4, n_channels=2)
    cell = torch.tensor([[[5.0, 0, 0], [1, 6, 0], [0, 0, 1]]], dtype=torch.float64)
    fractional = fractional * torch.tensor([1.0, 1.0, 3.0])
    multiplier = Stack([Coulomb(smearing=1.2), Yukawa([0.6], smearing=1.2).double()])
    layer = LongRangeConvolution(multiplier, smearing=1.2, accuracy=1e-3)

    def energy(weights, fractional, cell):
        return (weights * layer(weights, fractional, cell, pbc=_pbc("TTF"))).sum()

    inputs = [tensor.clone().requires_grad_() for tensor in (weights, fractional)]
    assert torch.autograd.gradcheck(lambda w, s: energy(w, s, cell), inputs, atol=1e-6, rtol=1e-5)


def test_batch_of_different_boxes_and_boundaries_equals_single_calls():
    cells = torch.stack(
        [TRICLINIC[0], 7 * torch.eye(3).double(), torch.diag(torch.tensor([8.0, 7, 1])).double(), TRICLINIC[0]]
    )
    pbc = torch.cat([_pbc("TTT"), _pbc("FFF"), _pbc("TTF"), _pbc("TTT")])
    counts = [5, 4, 6, 3]
    layer = LongRangeConvolution(Stack([Coulomb(), Yukawa([0.4], smearing=1.0).double()]), smearing=1.0)
    clouds = [cloud(3, n_atoms=n, seed=n) for n in counts]
    structure = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    together = layer(
        torch.cat([w for w, _ in clouds]), torch.cat([s for _, s in clouds]), cells, structure=structure, pbc=pbc
    )
    singles = [layer(w, s, cells[i : i + 1], pbc=pbc[i : i + 1]) for i, (w, s) in enumerate(clouds)]
    torch.testing.assert_close(together, torch.cat(singles), rtol=1e-12, atol=1e-12)


def test_self_term_is_the_kernel_at_the_origin():
    for multiplier, layer_options in [
        (Yukawa([0.4], [1.7], smearing=0.9).double(), {"smearing": 0.9}),
        (Coulomb(smearing=0.9), {"smearing": 0.9}),
        (Exponential([0.7]), {"mesh_shape": (9, 9, 9), "method": "ewald"}),
    ]:
        weights, fractional = cloud(3, n_channels=1)
        kept = LongRangeConvolution(multiplier, remove_self=False, **layer_options)(weights, fractional, TRICLINIC)
        removed = LongRangeConvolution(multiplier, **layer_options)(weights, fractional, TRICLINIC)
        torch.testing.assert_close(kept - removed, multiplier.at_origin(3).double() * weights)
        if not isinstance(multiplier, Exponential):
            near = multiplier.radial(torch.tensor([1e-4], dtype=torch.float64))[0]
            torch.testing.assert_close(near, multiplier.at_origin(3), rtol=1e-6, atol=0)


def test_self_term_on_a_ring_matches_quadrature():
    multiplier = Yukawa([0.4], [1.7], smearing=0.9).double()
    k = torch.linspace(-60, 60, 600001, dtype=torch.float64)
    table = 4 * math.pi * 1.7 * torch.exp(-0.5 * 0.81 * k**2) / (k**2 + 0.16)
    assert multiplier.at_origin(1).item() == pytest.approx(torch.trapezoid(table, k).item() / (2 * math.pi), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_output_follows_the_type_of_the_input(dtype):
    weights, fractional = cloud(3)
    layer = LongRangeConvolution(Yukawa([0.3, 0.9]).to(dtype), smearing=1.0)
    field = layer(weights.to(dtype), fractional.to(dtype), TRICLINIC.to(dtype))
    assert field.dtype == dtype
    exact = LongRangeConvolution(Yukawa([0.3, 0.9]).double(), smearing=1.0)(weights, fractional, TRICLINIC)
    assert relative(field.double(), exact) < 1e-5


def test_mesh_is_held_while_a_cell_changes_a_little():
    layer = LongRangeConvolution(Coulomb(), smearing=1.0)
    start = layer.mesh_shape_for(TRICLINIC[0].numpy())
    assert layer.mesh_shape_for(0.95 * TRICLINIC[0].numpy(), start) == start
    assert layer.mesh_shape_for(1.2 * TRICLINIC[0].numpy(), start) != start
    assert layer.mesh_shape_for(0.5 * TRICLINIC[0].numpy(), start) != start


@pytest.mark.parametrize("screening", [[], [0.0], [1.0, -2.0]])
def test_screening_must_be_positive(screening):
    with pytest.raises(ValueError, match="`screening` must hold one positive number"):
        Yukawa(screening)
    with pytest.raises(ValueError, match="`decay` must hold one positive number"):
        Exponential(screening)


def _ring(length):
    return torch.tensor([[[length]]], dtype=torch.float64)


def _pbc(letters):
    return torch.tensor([[letter == "T" for letter in letters]])


def _smeared_yukawa(r, amplitude, screening, smearing):
    """Written with SciPy from the formula in DESIGN, not from the code under test."""
    plus = erfc((screening * smearing + r / smearing) / math.sqrt(2))
    minus = erfc((screening * smearing - r / smearing) / math.sqrt(2))
    shifted = math.exp(0.5 * (screening * smearing) ** 2)
    return amplitude / (2 * r) * shifted * (np.exp(-screening * r) * minus - np.exp(screening * r) * plus)
