"""The band limit: nothing above it, and nothing of what it takes away beyond its reach."""

import math

import numpy as np
import pytest
import torch

from lrc_ase.layer.kernels import BandLimited, Matrix, Yukawa

HIGHEST, REACH, SCREENING = 12.0, 1.5, 0.5


@pytest.fixture
def kernel():
    return BandLimited(Yukawa([SCREENING], smearing=0.0), highest=HIGHEST, reach=REACH)


def test_no_wave_above_the_highest(kernel):
    squared = torch.tensor([0.0, 143.9, 144.0, 200.0], dtype=torch.float64, requires_grad=True)
    table = kernel.fourier(squared, 1)[:, 0]
    assert table[0].item() == pytest.approx(4 * math.pi / SCREENING**2)
    assert table[1] > 0
    assert table[2:].eq(0).all()
    table.sum().backward()
    assert torch.isfinite(squared.grad).all()


def test_beyond_its_reach_the_kernel_keeps_its_shape(kernel):
    """exp(-r/2) in one dimension by quadrature, to exp(-c), up to one factor; within, it is another function."""
    k = torch.linspace(0, HIGHEST, 40_001, dtype=torch.float64)
    table = kernel.fourier(k**2, 1)[:, 0].detach().numpy()
    r = np.array([0.0, 0.5, 1.6, 2.5, 4.0])
    values = np.trapezoid(table * np.cos(np.outer(r, k)), k) / math.pi
    ratio = values / np.exp(-SCREENING * r)
    np.testing.assert_allclose(ratio[2:], ratio[-1], rtol=1e-5)
    assert abs(ratio[0] / ratio[-1] - 1) > 0.02


def test_arguments_are_checked():
    yukawa = Yukawa([0.5], smearing=0.0)
    with pytest.raises(ValueError, match=r"`highest` and `reach` must be positive, got 0\.0 and 1\.0"):
        BandLimited(yukawa, highest=0.0, reach=1.0)
    with pytest.raises(ValueError, match="`kernel` must map channels one to one, got a Matrix"):
        BandLimited(Matrix(yukawa, 1, 1), highest=1.0, reach=1.0)
