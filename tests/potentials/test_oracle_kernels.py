"""Kernels against quadrature, their differential equation and their Gaussian superposition."""

import ast
import math
import pathlib
import sys

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erfc, j0

import lrc_ase.potentials
from lrc_ase.potentials.heat import gaussian_integral, late_fourier
from lrc_ase.potentials.kernels import Exponential, Mixture, ScreenedCoulomb, check_dimension

KERNELS = [Exponential, ScreenedCoulomb]
DIMENSIONS = [1, 2, 3]


def fourier_by_quadrature(kernel, k, dimension):
    """Radial Fourier integral: cosine, Hankel, sine transform."""
    measure = {
        1: lambda r: 2.0 * math.cos(k * r),
        2: lambda r: 2.0 * math.pi * r * j0(k * r),
        3: lambda r: 4.0 * math.pi * r * math.sin(k * r) / k,
    }[dimension]
    # From a little above zero: the singular kernels times the measure vanish there.
    return quad(lambda r: measure(r) * float(kernel.value(r, dimension)), 1e-12, 40.0 / kernel.mu, limit=500)[0]


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("kernel_class", KERNELS)
@pytest.mark.parametrize("k", [0.3, 2.0, 7.0])
def test_fourier_transform_matches_quadrature(kernel_class, dimension, k):
    kernel = kernel_class(mu=1.7)
    assert kernel.fourier(k**2, dimension) == pytest.approx(fourier_by_quadrature(kernel, k, dimension), abs=1e-8)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("kernel_class", KERNELS)
def test_derivatives_match_finite_differences(kernel_class, dimension):
    kernel, h = kernel_class(mu=1.3), 1e-5
    r, k_squared = np.linspace(0.2, 4.0, 9), np.linspace(0.5, 9.0, 9)
    slope = (kernel.value(r + h, dimension) - kernel.value(r - h, dimension)) / (2 * h)
    np.testing.assert_allclose(kernel.derivative(r, dimension), slope, rtol=1e-8)
    slope = (kernel.fourier(k_squared + h, dimension) - kernel.fourier(k_squared - h, dimension)) / (2 * h)
    np.testing.assert_allclose(kernel.fourier_derivative(k_squared, dimension), slope, rtol=1e-8)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_screened_coulomb_solves_its_equation_with_unit_source(dimension):
    """psi'' + (d-1)/r psi' = mu^2 psi away from zero, and the flux out of a small sphere is one (eq. 7)."""
    kernel, r, h = ScreenedCoulomb(mu=0.8), np.linspace(0.5, 3.0, 6), 1e-5
    second = (kernel.derivative(r + h, dimension) - kernel.derivative(r - h, dimension)) / (2 * h)
    laplacian = second + (dimension - 1) / r * kernel.derivative(r, dimension)
    np.testing.assert_allclose(laplacian, 0.8**2 * kernel.value(r, dimension), rtol=1e-7)
    sphere = {1: 2.0, 2: 2.0 * math.pi * 1e-7, 3: 4.0 * math.pi * 1e-14}[dimension]
    assert -sphere * kernel.derivative(1e-7, dimension) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("kernel_class", KERNELS)
@pytest.mark.parametrize("mu", [0.5, 10.0])
def test_gaussian_superposition_is_the_kernel(kernel_class, dimension, mu):
    kernel, r = kernel_class(mu), np.geomspace(1e-4, 30.0, 60) / mu
    value, slope = gaussian_integral(kernel, r, dimension)
    np.testing.assert_allclose(value, kernel.value(r, dimension), rtol=1e-13)
    np.testing.assert_allclose(slope * r, kernel.derivative(r, dimension), rtol=1e-13)


def test_gaussian_integral_matches_ewald_erfc_in_3d():
    """Early part of the 3D screened Coulomb kernel, with eta the split: the sum over both signs s of
    exp(s mu r) erfc(r / 2 sqrt(eta) + s mu sqrt(eta)), over 8 pi r (Salin and Caillol 2000, doi:10.1063/1.1326477)."""
    mu, split, r = 1.4, 0.3, np.linspace(0.05, 4.0, 20)
    root = math.sqrt(split)
    expected = sum(np.exp(s * mu * r) * erfc(r / (2 * root) + s * mu * root) for s in (-1, 1)) / (8 * np.pi * r)
    value, _ = gaussian_integral(ScreenedCoulomb(mu), r, 3, upper=split)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("kernel_class", KERNELS)
def test_late_fourier_starts_as_the_transform(kernel_class, dimension):
    kernel, k_squared = kernel_class(0.9), np.linspace(0.0, 30.0, 7)
    value, derivative = late_fourier(kernel, k_squared, dimension, 1e-14)
    np.testing.assert_allclose(value, kernel.fourier(k_squared, dimension), rtol=1e-11)
    np.testing.assert_allclose(derivative, kernel.fourier_derivative(k_squared, dimension), rtol=1e-11)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_mixture_is_the_weighted_sum(dimension):
    first, second, r = ScreenedCoulomb(mu=10.0), Exponential(mu=1.0), np.array([0.1, 1.0])
    mixture = Mixture(((0.9, first), (0.1, second)))
    for name in ("value", "derivative", "fourier"):
        expected = 0.9 * getattr(first, name)(r, dimension) + 0.1 * getattr(second, name)(r, dimension)
        np.testing.assert_allclose(getattr(mixture, name)(r, dimension), expected, rtol=1e-15)
    assert mixture.is_singular(dimension) == (dimension > 1)


def test_kernels_are_values():
    assert Exponential(mu=1.0) == Exponential(mu=1.0) != ScreenedCoulomb(mu=1.0)
    assert len({Exponential(mu=1.0), Exponential(mu=1.0)}) == 1
    with pytest.raises(AttributeError):
        Exponential(mu=1.0).mu = 2.0


def test_values_at_zero():
    assert np.isinf(ScreenedCoulomb(1.0).value(0.0, 2))
    assert np.isinf(ScreenedCoulomb(1.0).value(0.0, 3))
    assert ScreenedCoulomb(2.0).value(0.0, 1) == 0.25
    assert np.isinf(ScreenedCoulomb(1.0).derivative(0.0, 3))


@pytest.mark.parametrize("mu", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("kernel_class", KERNELS)
def test_mu_must_be_positive(kernel_class, mu):
    with pytest.raises(ValueError, match="`mu` must be positive and finite"):
        kernel_class(mu)


def test_error_messages():
    with pytest.raises(ValueError, match=r"`dimension` must be 1, 2 or 3, got 4"):
        check_dimension(4)
    with pytest.raises(ValueError, match=r"`distance` must not be negative, got -1\.0"):
        Exponential(1.0).value([-1.0, 2.0], 1)
    with pytest.raises(ValueError, match="`terms` must hold at least one"):
        Mixture(())
    with pytest.raises(ValueError, match="weights in `terms` must be finite, got nan"):
        Mixture(((math.nan, Exponential(1.0)),))
    with pytest.raises(TypeError, match=r"`terms` must hold \(weight, Kernel\) pairs, got a float"):
        Mixture(((1.0, 2.0),))


def test_only_numpy_and_scipy_and_ase_in_the_calculator():
    """House rule: an oracle that shares code with what it tests proves nothing."""
    for path in pathlib.Path(lrc_ase.potentials.__file__).parent.glob("*.py"):
        allowed = {"numpy", "scipy", *({"ase"} if path.name == "calculator.py" else ())}
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.startswith("lrc_ase.potentials."):
                    continue
                assert name.split(".")[0] in allowed | set(sys.stdlib_module_names), f"{path.name} imports {name}"
