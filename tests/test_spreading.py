import itertools

import numpy as np
import pytest
import torch
from tolerances import ROUNDING

from lrc_ase.layer.mesh import Stencil, gather, multi_indices, spread
from lrc_ase.layer.mesh.backend import backend_for
from lrc_ase.layer.mesh.cpu import MAX_LEVEL, CpuBackend
from lrc_ase.layer.mesh.cpu.sorting import sort_atoms
from lrc_ase.layer.mesh.stencil import Sites
from lrc_ase.layer.mesh.torch import TorchBackend
from lrc_ase.layer.windows import bspline_window, semicircle_window

SHAPES = {1: (12,), 2: (10, 9), 3: (8, 10, 9)}


def problem(d, window, *, n_atoms=6, n_channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    stencil = Stencil(window, SHAPES[d], torch.tensor([0, 0, 0, 1, 1, 1])[:n_atoms], 2)
    fractional = 3 * torch.randn(n_atoms, d, dtype=torch.float64, generator=generator)
    weights = torch.randn(n_atoms, n_channels, dtype=torch.float64, generator=generator)
    mesh = torch.randn(2, n_channels, *SHAPES[d], dtype=torch.float64, generator=generator)
    return stencil, fractional, weights, mesh


@pytest.mark.parametrize("d", [1, 2, 3])
def test_spread_matches_the_sum_over_mesh_points(d):
    window = bspline_window(5)
    stencil, fractional, weights, _ = problem(d, window)
    mesh = torch.zeros(2, 2, *SHAPES[d], dtype=torch.float64)
    for atom in range(len(fractional)):
        x = (fractional[atom] % 1) * torch.tensor(SHAPES[d])
        bump = torch.ones((), dtype=torch.float64)
        for axis in range(d):
            line = torch.zeros(SHAPES[d][axis], dtype=torch.float64)
            first = int(window.first_point(x[axis]))
            for point, value in enumerate(window.values(x[axis], 0)[:, 0]):
                line[(first + point) % len(line)] += value
            bump = bump[..., None] * line
        mesh[stencil.structure[atom]] += weights[atom].reshape(-1, *(1,) * d) * bump
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


@pytest.mark.parametrize(
    ("level", "n_points", "dtype", "mesh_shape"),
    [
        # tiles as large as they get, 32 points along y and z, which their memory must hold
        *itertools.product(range(MAX_LEVEL + 1), [7], [torch.float64, torch.float32], [(40, 64, 64)]),
        # whole vectors; kernels that no other test compiles
        pytest.param(1, 4, torch.float64, (40, 34, 50), marks=pytest.mark.slow),
        pytest.param(1, 8, torch.float32, (40, 34, 50), marks=pytest.mark.slow),
        (1, 9, torch.float64, (40, 34, 50)),
        (1, 13, torch.float64, (40, 64, 64)),
        (1, 7, torch.float64, (7, 8, 7)),  # the same point more than once in a tile
        (1, 6, torch.float64, (6, 6, 6)),
    ],
)
def test_compiled_kernels_match_the_reference(level, n_points, dtype, mesh_shape, monkeypatch):
    """All derivatives at once: atoms at edges of the mesh, two tiles along each axis, in pieces and in threads."""
    monkeypatch.setattr("lrc_ase.layer.mesh.torch._CHUNK_ELEMENTS", 900)
    generator = torch.Generator().manual_seed(0)
    n_atoms = 50
    structure = torch.arange(n_atoms) // 30
    stencil = Stencil(semicircle_window(n_points), mesh_shape, structure, 2)
    fractional = torch.rand(n_atoms, 3, dtype=dtype, generator=generator)
    fractional[0], fractional[1] = 0.0, 1 - 1e-9
    weights = torch.randn(n_atoms, len(multi_indices(3, level)), 3, dtype=dtype, generator=generator)
    mesh = torch.randn(2, 3, *mesh_shape, dtype=dtype, generator=generator)
    sites = Sites(fractional, stencil)
    scale = ROUNDING[dtype] * 10**level
    monkeypatch.setattr("lrc_ase.layer.mesh.cpu.stencils._SERIAL_BELOW", 0)
    for n_threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        spread_mesh, expected = torch.zeros_like(mesh), torch.zeros_like(mesh)
        CpuBackend().spread(weights, sites, level, spread_mesh)
        TorchBackend().spread(weights, sites, level, expected)
        torch.testing.assert_close(spread_mesh, expected, rtol=scale, atol=scale)
        gathered = CpuBackend().gather(mesh, sites, level)
        torch.testing.assert_close(gathered, TorchBackend().gather(mesh, sites, level), rtol=scale, atol=scale)


@pytest.mark.parametrize(
    ("mesh_shape", "level", "n_points", "expected"),
    [
        ((8, 10, 9), 2, 6, CpuBackend),
        ((8, 10, 9), 3, 6, TorchBackend),  # third derivatives
        ((8, 10), 0, 6, TorchBackend),  # a plane
        ((8, 10, 5), 0, 6, TorchBackend),  # a window wider than the mesh
        ((20, 20, 20), 0, 17, TorchBackend),  # a window wider than two vectors
    ],
)
def test_the_cpu_gets_compiled_kernels_where_they_serve(mesh_shape, level, n_points, expected):
    stencil = Stencil(bspline_window(n_points), mesh_shape, torch.zeros(1, dtype=torch.int64), 1)
    assert isinstance(backend_for(torch.zeros(1), stencil, level), expected)


@pytest.mark.parametrize("n_points", [5, 8, 12])
@pytest.mark.parametrize("n_planes", [8, 13, 30, 64])
@pytest.mark.parametrize("n_threads", [1, 4])
def test_slabs_of_one_parity_never_touch_the_same_plane(monkeypatch, n_points, n_planes, n_threads):
    """Tiles of one parity touch disjoint planes, wrapped ones included, so that threads need no locks."""
    monkeypatch.setattr("lrc_ase.layer.mesh.cpu.sorting._THREADED_FROM", 0)
    fractional = 3 * np.random.default_rng(0).standard_normal((2000, 3))
    structure = np.arange(2000) // 1000
    atoms = sort_atoms(fractional, structure, (n_planes, 9, 9), 2, semicircle_window(n_points), n_threads)
    assert sorted(atoms.order.tolist()) == list(range(2000))
    slabs = atoms.slabs()
    assert [first for first, _ in slabs[1:]] == [last for _, last in slabs[:-1]]
    for index in range(2):
        own_slabs = slabs[index * atoms.tiles[0] : (index + 1) * atoms.tiles[0]]
        touched = []
        for first_tile, last_tile in own_slabs:
            first, last = atoms.starts[first_tile], atoms.starts[last_tile]
            assert (structure[atoms.order[first:last]] == index).all()
            points = np.floor(atoms.coordinates[first:last, 0, None] - n_points / 2).astype(int) + 1
            touched.append(set(((points + np.arange(n_points)) % n_planes).ravel().tolist()))
        for parity in range(2) if len(touched) > 1 else ():
            local_planes = touched[parity::2]
            assert sum(len(planes) for planes in local_planes) == len(set().union(*local_planes))
    assert (atoms.starts[0], atoms.starts[-1]) == (0, 2000)


def test_tiles_are_shared_out_evenly():
    atoms = sort_atoms(
        np.random.default_rng(0).random((5000, 3)), np.zeros(5000, int), (64, 64, 64), 1, bspline_window(6)
    )
    ranges = atoms.tile_ranges(4)
    assert [first for first, _ in ranges] == [0, *(last for _, last in ranges[:-1])]
    assert ranges[-1][1] == len(atoms.starts) - 1
    sizes = [atoms.starts[last] - atoms.starts[first] for first, last in ranges]
    assert max(sizes) - min(sizes) < 2 * np.diff(atoms.starts).max()


def test_threads_sort_as_one(monkeypatch):
    monkeypatch.setattr("lrc_ase.layer.mesh.cpu.sorting._SERIAL_BELOW", 0)
    fractional, structure = np.random.default_rng(0).random((500, 3)), np.arange(500) % 2
    one, three = (sort_atoms(fractional, structure, (30, 9, 20), 2, semicircle_window(6), n) for n in (1, 3))
    for name in ("order", "coordinates", "starts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))
    np.testing.assert_array_equal(one.coordinates, (fractional * (30, 9, 20))[one.order])


def test_atoms_are_sorted_again_when_their_coordinates_change():
    stencil, fractional, weights, _ = problem(3, semicircle_window(6))
    first = spread(weights, fractional, stencil)
    fractional += 0.3
    fresh = Stencil(stencil.window, stencil.mesh_shape, stencil.structure, 2)
    moved = spread(weights, fractional, stencil)
    torch.testing.assert_close(moved, spread(weights, fractional, fresh), rtol=0, atol=0)
    assert (moved - first).abs().max() > 1e-3


@pytest.mark.parametrize("d", [1, 3])
def test_coordinates_that_are_not_finite_are_refused(d):
    stencil, fractional, weights, _ = problem(d, semicircle_window(6))
    fractional[2, d - 1] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        spread(weights, fractional, stencil)
