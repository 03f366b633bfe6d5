"""Periodic kernels: closed forms in 1D, three ways to the same number, derivatives, symmetries, truncation."""

import math

import numpy as np
import pytest

from lrc_ase.potentials.heat import gaussian_integral
from lrc_ase.potentials.kernels import Exponential, Mixture, ScreenedCoulomb
from lrc_ase.potentials.lattice import as_cell, half_diagonal, lattice_points, wrap
from lrc_ase.potentials.torus import ewald_sum, image_sum, minimum_image, spectral_sum, torus_distance

KERNELS = [Exponential, ScreenedCoulomb]
CELLS = {
    "1D": np.array([[5.0]]),
    "2D rectangular": np.diag([3.0, 4.5]),
    "2D oblique": np.array([[3.0, 0.4], [1.3, 2.5]]),
    "3D rectangular": np.diag([3.0, 3.5, 2.8]),
    "3D triclinic": np.array([[3.0, 0.4, 0.1], [1.0, 2.5, 0.2], [-0.4, 0.5, 2.8]]),
}
# Rounding of sums of some hundred terms of order one; the truncation tolerance asked for is 1e-12.
TOLERANCE = 3e-12


@pytest.fixture(params=CELLS, ids=lambda name: name.replace(" ", "-"))
def cell(request):
    return CELLS[request.param]


@pytest.fixture
def displacements(cell):
    """Points all over the cell and beyond it, none near a lattice vector."""
    generator = np.random.default_rng(3)
    points = generator.uniform(-4.0, 4.0, (40, len(cell)))
    return points[torus_distance(points, cell) > 0.05]


def assert_same(one, other, tolerance=TOLERANCE):
    for name in ("value", "gradient", "strain_derivative"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0.0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("ways", [image_sum, ewald_sum])
@pytest.mark.parametrize("mu", [0.5, 2.0, 10.0])
def test_1d_sum_is_the_hyperbolic_cosine(ways, mu):
    """sum_n exp(-mu |x + n L|) = cosh(mu (L/2 - x)) / sinh(mu L/2) for 0 <= x <= L, a geometric series."""
    length, x = 5.0, np.linspace(0.01, 4.99, 40)
    value = np.cosh(mu * (length / 2 - x)) / np.sinh(mu * length / 2)
    gradient = -mu * np.sinh(mu * (length / 2 - x)) / np.sinh(mu * length / 2)
    for kernel, factor in ((Exponential(mu), 1.0), (ScreenedCoulomb(mu), 0.5 / mu)):
        result = ways(kernel, x[:, None], [length])
        np.testing.assert_allclose(result.value, factor * value, rtol=0.0, atol=TOLERANCE)
        np.testing.assert_allclose(result.gradient[:, 0], factor * gradient, rtol=0.0, atol=TOLERANCE)


def test_1d_strain_derivative_is_that_of_the_closed_form():
    """With L and x both times (1 + e), cosh(mu (L/2 - x)) / sinh(mu L/2) depends on mu (1 + e)."""
    length, x, mu, h = 5.0, np.linspace(0.1, 4.9, 20), 0.7, 1e-6

    def closed(scale):
        return np.cosh(scale * mu * (length / 2 - x)) / np.sinh(scale * mu * length / 2)

    expected = (closed(1 + h) - closed(1 - h)) / (2 * h)
    result = image_sum(Exponential(mu), x[:, None], [length])
    np.testing.assert_allclose(result.strain_derivative[:, 0, 0], expected, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("kernel_class", KERNELS)
@pytest.mark.parametrize("mu", [1.5, 7.5])
def test_images_and_ewald_agree(kernel_class, mu, cell, displacements):
    kernel = kernel_class(mu)
    assert_same(image_sum(kernel, displacements, cell), ewald_sum(kernel, displacements, cell))


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_ewald_does_not_depend_on_the_split(kernel_class, cell, displacements):
    kernel = kernel_class(0.5)
    expected = ewald_sum(kernel, displacements, cell)
    for split in (0.05, 0.4):
        assert_same(ewald_sum(kernel, displacements, cell, split=split), expected)


@pytest.mark.parametrize("mu", [1.5, 7.5])
@pytest.mark.parametrize("smoothing", [0.25, 0.5])
def test_smoothed_images_and_spectral_sum_agree(mu, smoothing, cell, displacements):
    kernel = ScreenedCoulomb(mu)
    near = np.concatenate([displacements, np.zeros((1, len(cell)))])  # finite at zero
    images = image_sum(kernel, near, cell, smoothing=smoothing)
    assert_same(images, spectral_sum(kernel, near, cell, smoothing=smoothing))


def test_spectral_sum_converges_to_the_exponential_as_smoothing_squared(cell, displacements):
    """Convolution with a Gaussian adds (sigma^2/2) Laplacian and more: a quarter of the error at half sigma."""
    apart = displacements[torus_distance(displacements, cell) > 1.0]
    exact = image_sum(Exponential(2.0), apart, cell).value
    errors = [np.abs(spectral_sum(Exponential(2.0), apart, cell, smoothing=s).value - exact).max() for s in (0.2, 0.1)]
    assert 3.5 < errors[0] / errors[1] < 4.7


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_smoothing_in_free_space_matches_convolution(dimension):
    """In a box where images do not matter, against the Gaussian average at zero distance:
    int psi(|y|) gauss_sigma(y) dy, done over y in spherical shells."""
    sigma, kernel = 0.3, ScreenedCoulomb(2.0)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    r = 3.0 * (nodes + 1.0) ** 2 / 4.0  # r^2-spaced nodes meet the logarithm
    jacobian = 3.0 * (nodes + 1.0) / 2.0
    shell = {1: 2.0, 2: 2.0 * np.pi * r, 3: 4.0 * np.pi * r**2}[dimension]
    gauss = (2.0 * np.pi * sigma**2) ** (-dimension / 2) * np.exp(-(r**2) / (2 * sigma**2))
    expected = np.sum(weights * jacobian * shell * gauss * kernel.value(r, dimension))
    value = image_sum(kernel, np.zeros((1, dimension)), [40.0] * dimension, smoothing=sigma).value[0]
    assert value == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_own_images_agree(kernel_class, cell):
    kernel, zero = kernel_class(1.5), np.zeros((1, len(cell)))
    images, ewald = (ways(kernel, zero, cell, skip_home=True) for ways in (image_sum, ewald_sum))
    assert_same(images, ewald)
    assert np.abs(images.gradient).max() < 1e-14


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_gradient_and_strain_derivative_match_finite_differences(kernel_class, cell, displacements):
    kernel, h, d = kernel_class(3.0), 1e-5, len(cell)
    displacements = displacements[:12]
    result = image_sum(kernel, displacements, cell)
    for a in range(d):
        step = h * np.eye(d)[a]
        ends = [image_sum(kernel, displacements + sign * step, cell).value for sign in (1, -1)]
        np.testing.assert_allclose(result.gradient[:, a], (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-8)
        for b in range(d):
            strain = np.zeros((d, d))
            strain[a, b] += 0.5 * h
            strain[b, a] += 0.5 * h
            deform = [np.eye(d) + sign * strain for sign in (1, -1)]
            ends = [image_sum(kernel, displacements @ f, cell @ f).value for f in deform]
            slope = (ends[0] - ends[1]) / (2 * h)
            np.testing.assert_allclose(result.strain_derivative[:, a, b], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("ways", [image_sum, ewald_sum])
def test_truncation_error_stays_below_the_tolerance(ways, tolerance, cell, displacements):
    kernel = Exponential(2.0)
    exact = image_sum(kernel, displacements, cell, tolerance=1e-14)
    # the Ewald sum is truncated twice
    assert_same(ways(kernel, displacements, cell, tolerance=tolerance), exact, 2 * tolerance)


def test_spectral_truncation_error_stays_below_the_tolerance(cell, displacements):
    exact = spectral_sum(ScreenedCoulomb(2.0), displacements, cell, smoothing=0.3, tolerance=1e-14)
    rough = spectral_sum(ScreenedCoulomb(2.0), displacements, cell, smoothing=0.3, tolerance=1e-5)
    assert_same(rough, exact, 1e-5)
    assert np.abs(rough.value - exact.value).max() > 0.0


def test_lattice_shift_and_inversion_change_nothing(cell, displacements):
    kernel = Mixture(((0.9, ScreenedCoulomb(5.0)), (0.1, Exponential(1.5))))
    expected = image_sum(kernel, displacements, cell)
    shift = np.arange(1, len(cell) + 1) @ cell
    assert_same(image_sum(kernel, displacements + shift, cell), expected)
    inverted = image_sum(kernel, -displacements, cell)
    np.testing.assert_allclose(inverted.value, expected.value, atol=TOLERANCE)
    np.testing.assert_allclose(inverted.gradient, -expected.gradient, atol=TOLERANCE)


def test_periodic_kernel_does_not_depend_on_the_choice_of_cell_vectors():
    cell = CELLS["3D triclinic"]
    other = np.array([[1, 0, 0], [1, 1, 0], [-1, 2, 1]]) @ cell  # unimodular: the same lattice
    points = np.random.default_rng(0).uniform(-2.0, 2.0, (10, 3))
    for ways in (image_sum, ewald_sum, minimum_image):
        assert_same(ways(Exponential(4.0), points, cell), ways(Exponential(4.0), points, other))


def test_nearest_image_is_the_nearest_of_many(cell, displacements):
    images = lattice_points(cell, 40.0 / len(cell))
    brute = np.linalg.norm(displacements[:, None] + images, axis=-1).min(axis=1)
    np.testing.assert_allclose(torus_distance(displacements, cell), brute, atol=1e-12)
    np.testing.assert_allclose(
        minimum_image(Exponential(2.0), displacements, cell).value, np.exp(-2.0 * brute), atol=1e-12
    )


def test_minimum_image_approaches_the_full_sum_in_a_large_box():
    x = np.array([[1.0, 0.5, -0.3]])
    near, full = minimum_image(Exponential(5.0), x, [20.0] * 3), image_sum(Exponential(5.0), x, [20.0] * 3)
    assert_same(near, full, 1e-30 + 1e-14)


def test_half_diagonal_bounds_wrapped_displacements(cell):
    points = np.random.default_rng(1).uniform(-30.0, 30.0, (2000, len(cell)))
    longest = np.linalg.norm(wrap(points, cell), axis=1).max()
    assert 0.7 * half_diagonal(cell) < longest <= half_diagonal(cell) * (1 + 1e-12)


def test_lattice_points_are_complete():
    points = lattice_points(CELLS["2D oblique"], 6.0)
    grid = np.stack(np.meshgrid(*[np.arange(-20, 21)] * 2), axis=-1).reshape(-1, 2) @ CELLS["2D oblique"]
    assert len(points) == np.sum(np.linalg.norm(grid, axis=1) <= 6.0)
    assert np.all(points[0] == 0.0)


def test_kink_at_zero_has_no_gradient():
    for ways in (image_sum, ewald_sum, minimum_image):
        assert np.abs(ways(Exponential(2.0), [[0.0, 0.0]], [5.0, 5.0]).gradient).max() < 1e-14


def test_gaussian_integral_at_zero_distance():
    value, slope = gaussian_integral(Exponential(2.0), np.zeros(1), 3)
    assert value[0] == pytest.approx(1.0, abs=1e-12)
    assert slope[0] == 0.0


def test_inputs_are_not_changed():
    points, cell = np.array([[7.0, -9.0]]), np.diag([3.0, 4.0])
    before = points.copy(), cell.copy()
    image_sum(Exponential(1.0), points, cell)
    ewald_sum(Exponential(1.0), points, cell)
    minimum_image(Exponential(1.0), points, cell)
    assert np.array_equal(points, before[0])
    assert np.array_equal(cell, before[1])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([[1.0, 2.0]], r"`cell` must be lengths \(d,\) or a matrix \(d, d\).*got shape \(1, 2\)"),
        ([1.0] * 4, r"got shape \(4,\)"),
        ([1.0, math.nan], "`cell` must be finite"),
        ([1.0, 0.0], "`cell` must have a volume"),
        ([[1.0, 1.0], [2.0, 2.0]], "`cell` must have a volume"),
    ],
)
def test_cell_errors(cell, message):
    with pytest.raises(ValueError, match=message):
        as_cell(cell)


def test_error_messages():
    kernel, x = ScreenedCoulomb(1.0), [[1.0, 1.0]]
    with pytest.raises(ValueError, match=r"`displacements` must have shape \(n, 2\) to match `cell`, got \(1, 3\)"):
        image_sum(kernel, [[1.0, 1.0, 1.0]], [5.0, 5.0])
    with pytest.raises(ValueError, match="`displacements` must be finite"):
        image_sum(kernel, [[1.0, math.nan]], [5.0, 5.0])
    with pytest.raises(ValueError, match=r"`tolerance` must be positive, got 0\.0"):
        image_sum(kernel, x, [5.0, 5.0], tolerance=0.0)
    with pytest.raises(ValueError, match="`smoothing` must be zero or positive and finite"):
        image_sum(kernel, x, [5.0, 5.0], smoothing=-1.0)
    with pytest.raises(ValueError, match=r"`smoothing` in real space needs a screened Coulomb kernel, got Exponential"):
        image_sum(Exponential(1.0), x, [5.0, 5.0], smoothing=0.1)
    with pytest.raises(ValueError, match="`smoothing` must be positive in a spectral sum"):
        spectral_sum(kernel, x, [5.0, 5.0], smoothing=0.0)
    with pytest.raises(ValueError, match=r"the spectral sum needs about .* modes, more than 2000000"):
        spectral_sum(kernel, x, [15.0, 15.0], smoothing=0.005)
    with pytest.raises(
        ValueError, match=r"the sum over images needs about .* images, more than 2000000; use `ewald_sum`"
    ):
        image_sum(Exponential(0.01), [[1.0] * 3], [3.0] * 3)
    with pytest.raises(ValueError, match="`split` must be positive and finite"):
        ewald_sum(kernel, x, [5.0, 5.0], split=0.0)
    for ways in (image_sum, ewald_sum, minimum_image):
        with pytest.raises(ValueError, match="displacement 1 is a lattice vector, where the kernel is singular"):
            ways(kernel, [*x, [5.0, -10.0]], [5.0, 5.0])
