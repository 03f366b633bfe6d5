import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.interpolate import BSpline

from lrc_ase.layer.accuracy import mesh_quality
from lrc_ase.layer.windows import PAPER_GAUSSIAN_WIDTH, bspline_window, gaussian_window, semicircle_window

WINDOWS = [bspline_window(4), bspline_window(7), semicircle_window(5), semicircle_window(8), gaussian_window(9, 0.8)]


def by_name(window):
    return window.name


def value_at(window, offset):
    """g at one offset of mesh point minus atom, through the stencil."""
    coordinates = torch.tensor([-offset + 100.0], dtype=torch.float64)
    point = 100 - int(window.first_point(coordinates)[0])
    if not 0 <= point < window.n_points:
        return 0.0
    return float(window.values(coordinates, 0)[0, point, 0])


@pytest.mark.parametrize("n_points", [2, 3, 4, 5, 8])
def test_bspline_window_is_scipys(n_points):
    spline = BSpline.basis_element(np.arange(n_points + 1) - n_points / 2, extrapolate=False)
    for offset in np.linspace(-n_points / 2 + 1e-6, n_points / 2 - 1e-6, 23):
        assert value_at(bspline_window(n_points), offset) == pytest.approx(float(spline(offset)), abs=1e-14)


@pytest.mark.parametrize("n_points", [4, 7, 8, 13])
def test_semicircle_window_is_its_formula(n_points):
    """The end intervals hold a square root, which polynomials follow only to about exp(-beta)."""
    beta = 2.0 * n_points
    window = semicircle_window(n_points, 2.0)
    for offset in np.linspace(-n_points / 2 + 1.01, n_points / 2 - 1.01, 17):
        exact = math.exp(beta * (math.sqrt(1 - (2 * offset / n_points) ** 2) - 1))
        assert value_at(window, offset) == pytest.approx(exact, abs=20 * math.exp(-beta))


@pytest.mark.parametrize(("n_points", "width"), [(9, 0.8), (12, PAPER_GAUSSIAN_WIDTH), (14, 1.5)])
def test_gaussian_window_is_its_formula(n_points, width):
    for offset in np.linspace(-n_points / 2 + 0.01, n_points / 2 - 0.01, 19):
        exact = math.exp(-(offset**2) / (2 * width**2))
        assert value_at(gaussian_window(n_points, width), offset) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("n_points", range(3, 17))
@pytest.mark.parametrize("shape", [1.3, 1.5, 2.1, 2.5])
def test_every_semicircle_window_can_be_made(n_points, shape):
    window = semicircle_window(n_points, shape)
    assert window.coefficients.shape[0] == n_points
    assert value_at(window, 0.0) == pytest.approx(1.0, abs=10 * math.exp(-shape * n_points) + 1e-14)


@pytest.mark.parametrize("window", [semicircle_window(4, 1.9), *WINDOWS[:-1]], ids=by_name)
def test_windows_are_continuous_and_end_at_zero(window):
    """An atom that gains or loses a mesh point must not change the energy."""
    half = window.n_points / 2
    for node in np.arange(-half, half + 1):
        before, after = value_at(window, node - 1e-13), value_at(window, node + 1e-13)
        assert before == pytest.approx(after, abs=1e-11)
    assert before == pytest.approx(0, abs=1e-11)


@pytest.mark.parametrize("window", WINDOWS, ids=by_name)
def test_derivatives_match_finite_differences(window):
    x = torch.linspace(3.02, 3.47, 10, dtype=torch.float64)
    step = 1e-5
    values = window.values(x, 3)
    for order in range(3):
        difference = (window.values(x + step, order)[..., order] - window.values(x - step, order)[..., order]) / (
            2 * step
        )
        torch.testing.assert_close(values[..., order + 1], difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("window", WINDOWS, ids=by_name)
def test_fourier_transform_matches_quadrature(window):
    half = window.n_points / 2
    for angular in (0.0, 0.7, 2.9):
        breaks = np.arange(-half, half + 1)
        exact = sum(
            quad(lambda x, w=angular: value_at(window, x) * math.cos(w * x), a + 1e-12, b - 1e-12, epsabs=1e-11)[0]
            for a, b in pairwise(breaks)
        )
        assert float(window.fourier_transform(np.array(angular))) == pytest.approx(exact, abs=1e-9)


def test_paper_width_of_the_gaussian():
    """tau = 12 (L / (2 pi L_FFT))^2 on [0, L]: exp(-x^2 / (4 tau)) with mesh spacing L / L_FFT."""
    length, n_mesh = 5.0, 64
    tau = 12 * (length / (2 * math.pi * n_mesh)) ** 2
    assert math.sqrt(2 * tau) / (length / n_mesh) == pytest.approx(PAPER_GAUSSIAN_WIDTH)


@pytest.mark.parametrize(
    ("accuracy", "n_points", "ratio"),
    [(1e-1, 4, 1.3), (1e-4, 7, 0.7), (0.1**4, 7, 0.7), (9.99e-4, 7, 0.7), (9.9e-5, 8, 0.6), (1e-10, 13, 0.4)],
)
def test_accuracy_takes_the_next_row_of_the_table_that_reaches_it(accuracy, n_points, ratio):
    """0.1**4 is a hair more than 1e-4; the spacing follows the smearing."""
    quality = mesh_quality(accuracy, 0.5)
    assert quality.window.n_points == n_points
    assert quality.spacing == pytest.approx(0.5 * ratio)


@pytest.mark.parametrize(
    ("accuracy", "smearing", "message"),
    [
        (0.11, 1.0, "`accuracy` must lie between 1e-10 and 1e-1, got 0.11"),
        (9e-11, 1.0, "`accuracy` must lie between 1e-10 and 1e-1, got 9e-11"),
        (1e-4, 0.0, "`smearing` must be a positive length so that a mesh can converge, got 0.0"),
        (1e-4, math.inf, "`smearing` must be a positive length so that a mesh can converge, got inf"),
        (1e-4, math.nan, "`smearing` must be a positive length so that a mesh can converge, got nan"),
    ],
)
def test_accuracies_that_no_mesh_reaches_are_refused(accuracy, smearing, message):
    with pytest.raises(ValueError, match=message):
        mesh_quality(accuracy, smearing)


def test_bad_windows_are_refused():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        bspline_window(1)
    with pytest.raises(ValueError, match="at least 3, got 2"):
        semicircle_window(2)
    with pytest.raises(ValueError, match="`width` positive"):
        gaussian_window(5, 0.0)
