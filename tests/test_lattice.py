import math

import numpy as np
import pytest
import torch

from lrc_ase.layer.lattice import (
    fractional_coordinates,
    half_mesh_indices,
    held_mesh_shape,
    mesh_shape_for_spacing,
    reciprocal_cell,
    squared_wave_numbers,
    volume,
)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_reciprocal_cell_is_dual(d):
    cell = torch.randn(4, d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d))
    products = cell @ reciprocal_cell(cell).transpose(-1, -2)
    torch.testing.assert_close(products, (2 * math.pi * torch.eye(d, dtype=torch.float64)).expand(4, d, d))


def test_volume_of_left_handed_cell_is_positive():
    cell = torch.diag(torch.tensor([2.0, 3.0, -4.0]))[None]
    assert volume(cell).item() == pytest.approx(24)


@pytest.mark.parametrize("shape", [(5,), (6, 5), (4, 6, 8), (3, 5, 7)])
def test_half_mesh_indices_follow_torch_fft(shape):
    """A plane wave with index m has one entry in the real FFT, where `half_mesh_indices` says m."""
    indices = half_mesh_indices(shape)
    assert indices.dtype == torch.int64
    slot = tuple(size // 3 for size in indices.shape[:-1])
    wave = indices[slot].double()
    points = torch.stack(torch.meshgrid(*[torch.arange(n) / n for n in shape], indexing="ij"), dim=-1).double()
    transform = torch.fft.rfftn(torch.cos(2 * math.pi * points @ wave))
    assert transform[slot].real > 0.49 * math.prod(shape)


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2), (1,), ()])
def test_wave_numbers_of_a_triclinic_cell(axes):
    """A wave turns by 2 pi m_i along cell vector i: k = 2 pi A^-1 m, with m zero along the other axes."""
    cell = torch.tensor([[[3.0, 0, 0], [1, 4, 0], [0.5, -1, 5]]], dtype=torch.float64)
    indices = half_mesh_indices((4, 4, 6)).double()
    chosen = torch.zeros_like(indices)
    chosen[..., axes] = indices[..., axes]
    waves = torch.linalg.solve(cell[0], 2 * math.pi * chosen[..., None])[..., 0]
    squared = squared_wave_numbers(cell, (4, 4, 6), axes)
    assert squared.shape == (1, *(n if axis in axes else 1 for axis, n in enumerate((4, 4, 4))))
    torch.testing.assert_close(squared.expand(1, 4, 4, 4)[0], (waves**2).sum(dim=-1))


def test_fractional_coordinates_invert_the_cell():
    generator = torch.Generator().manual_seed(0)
    cell = torch.randn(2, 3, 3, dtype=torch.float64, generator=generator)
    fractional = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    structure = torch.tensor([0, 0, 1, 1, 1])
    positions = torch.einsum("ni,nij->nj", fractional, cell[structure])
    torch.testing.assert_close(fractional_coordinates(positions, cell, structure), fractional)


def test_mesh_shape_reaches_the_spacing_with_small_primes():
    shape = mesh_shape_for_spacing([10.0, 23.3, 1.0], 0.7, minimum=6)
    assert shape == (16, 36, 6)
    assert all(length / n <= 0.7 for length, n in zip([10.0, 23.3, 1.0], shape, strict=True))


@pytest.mark.parametrize(
    ("held", "shape"),
    [
        (None, (10, 10, 8)),
        ((10, 10, 8), (10, 10, 8)),
        ((12, 12, 10), (12, 12, 10)),  # at most a quarter finer
        ((14, 10, 8), (10, 10, 8)),
        ((10, 10, 12), (10, 10, 8)),
        ((10, 8, 8), (10, 10, 8)),  # too coarse
    ],
)
def test_a_mesh_is_held_up_to_a_quarter_finer_than_needed(held, shape):
    """The rows of the slanted cell are 10, 10 and 8 Angstrom long, its columns are not."""
    cell = np.array([[10.0, 0, 0], [6, 8, 0], [0, 0, 8]])
    assert held_mesh_shape(cell.tobytes(), "float64", 1.0, 4, held) == shape
