import itertools

import pytest
import torch
from tolerances import ROUNDING

from lrc_ase.mesh import Stencil, gather, spread
from lrc_ase.mesh.compiled import gather_compiled, spread_compiled
from lrc_ase.mesh.reference import gather_reference, spread_reference
from lrc_ase.windows import bspline_window, semicircle_window

SHAPES = {1: (12,), 2: (10, 9), 3: (8, 10, 9)}


def problem(d, window, *, n_atoms=6, n_channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    stencil = Stencil(window, SHAPES[d], torch.tensor([0, 0, 0, 1, 1, 1])[:n_atoms], 2)
    fractional = 3 * torch.randn(n_atoms, d, dtype=torch.float64, generator=generator)
    weights = torch.randn(n_atoms, n_channels, dtype=torch.float64, generator=generator)
    mesh = torch.randn(2, *SHAPES[d], n_channels, dtype=torch.float64, generator=generator)
    return stencil, fractional, weights, mesh


@pytest.mark.parametrize("d", [1, 2, 3])
def test_spread_matches_the_sum_over_mesh_points(d):
    window = bspline_window(5)
    stencil, fractional, weights, _ = problem(d, window)
    mesh = torch.zeros(2, *SHAPES[d], 2, dtype=torch.float64)
    for atom in range(len(fractional)):
        x = (fractional[atom] % 1) * torch.tensor(SHAPES[d])
        bump = torch.ones((), dtype=torch.float64)
        for axis in range(d):
            line = torch.zeros(SHAPES[d][axis], dtype=torch.float64)
            first = int(window.first_point(x[axis]))
            for point, value in enumerate(window.values(x[axis], 0)[:, 0]):
                line[(first + point) % len(line)] += value
            bump = bump[..., None] * line
        mesh[stencil.structure[atom]] += bump[..., None] * weights[atom]
    torch.testing.assert_close(spread(weights, fractional, stencil), mesh)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_spread_and_gather_are_adjoint(d):
    stencil, fractional, weights, mesh = problem(d, semicircle_window(6))
    left = (spread(weights, fractional, stencil) * mesh).sum()
    right = (weights * gather(mesh, fractional, stencil)).sum()
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("window", [bspline_window(6), semicircle_window(7)], ids=lambda w: w.name)
def test_first_and_second_derivatives(d, window):
    """Inside the intervals of the window: a finite difference across an edge sees its (tiny) jumps."""
    stencil, fractional, weights, mesh = problem(d, window, n_atoms=4)
    fractional = torch.floor(fractional * 7) / 7 + 0.02
    inputs = [tensor.requires_grad_() for tensor in (weights, fractional)]
    assert torch.autograd.gradcheck(lambda w, s: spread(w, s, stencil), inputs, atol=1e-6, rtol=1e-5)
    assert torch.autograd.gradgradcheck(
        lambda w, s: (spread(w, s, stencil) * mesh).sum(dim=tuple(range(1, d + 1))), inputs, atol=1e-5, rtol=1e-4
    )
    inputs = [tensor.requires_grad_() for tensor in (mesh, fractional)]
    assert torch.autograd.gradcheck(lambda m, s: gather(m, s, stencil), inputs, atol=1e-6, rtol=1e-5)


def test_gather_differentiates_twice():
    stencil, fractional, _, mesh = problem(2, bspline_window(6), n_atoms=3)
    inputs = [tensor.requires_grad_() for tensor in (mesh, fractional)]
    assert torch.autograd.gradgradcheck(lambda m, s: gather(m, s, stencil), inputs, atol=1e-6, rtol=1e-5)


def test_atoms_far_outside_the_cell_land_on_their_images():
    stencil, fractional, weights, _ = problem(3, semicircle_window(6))
    moved = fractional + torch.tensor([3.0, -7.0, 1000.0], dtype=torch.float64)
    torch.testing.assert_close(spread(weights, moved, stencil), spread(weights, fractional, stencil), rtol=0, atol=1e-9)


@pytest.mark.parametrize("max_order", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_compiled_kernels_match_the_reference(max_order, dtype, monkeypatch):
    """All derivative orders at once, atoms at the mesh's edges, in pieces and in threads."""
    monkeypatch.setattr("lrc_ase.mesh.reference._CHUNK_ELEMENTS", 900)
    orders = tuple(itertools.product(range(max_order + 1), repeat=3))
    generator = torch.Generator().manual_seed(0)
    n_atoms, mesh_shape = 50, (40, 9, 10)
    structure = torch.arange(n_atoms) // 30
    stencil = Stencil(semicircle_window(7), mesh_shape, structure, 2)
    fractional = torch.rand(n_atoms, 3, dtype=dtype, generator=generator)
    fractional[0], fractional[1] = 0.0, 1 - 1e-9
    weights = torch.randn(n_atoms, len(orders), 3, dtype=dtype, generator=generator)
    mesh = torch.randn(2, *mesh_shape, 3, dtype=dtype, generator=generator)
    coordinates = ((fractional - torch.floor(fractional)) * torch.tensor(mesh_shape)).numpy()
    table = stencil.window.horner_table(max_order, coordinates.dtype)
    rest = (coordinates.astype(float), structure.numpy(), 7, table, orders)
    scale = ROUNDING[dtype] * 10**max_order
    for n_threads, serial_below in [(1, 0), (2, 0)]:
        monkeypatch.setattr("lrc_ase.mesh.compiled._SERIAL_BELOW", serial_below)
        spread_mesh = torch.zeros_like(mesh)
        spread_compiled(weights.numpy(), *rest, spread_mesh.numpy(), n_threads)
        expected = spread_reference(weights, fractional, stencil, orders)
        torch.testing.assert_close(spread_mesh, expected, rtol=scale, atol=scale)
        gathered = torch.empty_like(weights)
        gather_compiled(mesh.numpy(), *rest, gathered.numpy(), n_threads)
        expected = gather_reference(mesh, fractional, stencil, orders)
        torch.testing.assert_close(gathered, expected, rtol=scale, atol=scale)


def test_coordinates_that_are_not_finite_are_refused():
    stencil, fractional, weights, _ = problem(3, semicircle_window(6))
    fractional[2, 1] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        spread(weights, fractional, stencil)
