"""Kernels in Fourier and in real space against SciPy, their limits, derivatives and refusals."""

import math

import numpy as np
import pytest
import torch
from kernel_oracles import (
    coulomb,
    exponential,
    from_transform,
    gaussian_sum,
    inverse_power,
    spline_transform,
    yukawa,
)
from scipy import integrate, special

from lrc_ase.layer.kernels import (
    Coulomb,
    Exponential,
    GaussianSum,
    InversePower,
    Matrix,
    Multiplier,
    RadialSpline,
    Stack,
    WaveNumbers,
    Yukawa,
)
from lrc_ase.layer.special import bessel_j, exponential_integral, modified_bessel

S = 0.9
COEFFICIENTS = [1.0, 0.8, -0.3, 0.5, 0.2, -0.1]
KERNELS = {
    "yukawa": (Yukawa([0.7], smearing=S), yukawa(0.7, S)),
    "coulomb": (Coulomb(smearing=S), coulomb(S)),
    "exponential": (Exponential([0.7], smearing=S), exponential(0.7, S)),
    "power 1": (InversePower(1, smearing=S), coulomb(S)),
    "power 3": (InversePower(3, smearing=S), inverse_power(3, S)),
    "power 4.3": (InversePower(4.3, smearing=S), inverse_power(4.3, S)),
    "power 6": (InversePower(6, smearing=S), inverse_power(6, S)),
    "power 12": (InversePower(12, smearing=S), inverse_power(12, S)),
    "gaussians": (GaussianSum([[1.0, 2.5]], [[0.3, -1.2]], smearing=S), gaussian_sum([1.0, 2.5], [0.3, -1.2])),
    "spline": (
        RadialSpline([COEFFICIENTS], smearing=S, k_max=4.0),
        from_transform(spline_transform(COEFFICIENTS, S, 4.0), 4.0),
    ),
}
SURFACE = {1: 2.0, 2: 2 * math.pi, 3: 4 * math.pi}


def transform(multiplier, k, dimension=3):
    squared = torch.tensor(np.atleast_1d(k) ** 2, dtype=torch.float64)
    return multiplier(WaveNumbers(squared, dimension)).detach()[..., 0].numpy()


@pytest.mark.parametrize("name", KERNELS)
def test_real_space_form_is_that_of_scipy(name):
    multiplier, radial = KERNELS[name]
    r = np.array([0.3, 1.0, 2.7, 6.0, 11.0])
    actual = multiplier.radial(torch.from_numpy(r)).detach()[:, 0].numpy()
    np.testing.assert_allclose(actual, radial(r), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_transform_and_real_space_form_belong_together(name):
    multiplier, radial = KERNELS[name]
    for r in (0.5, 2.0, 5.0):
        actual, _ = integrate.quad(
            lambda k, r=r: transform(multiplier, k)[0] * k * math.sin(k * r) / (2 * math.pi**2 * r),
            0,
            9 / S,
            limit=400,
            epsabs=1e-11,
        )
        assert actual == pytest.approx(float(radial(np.array([r]))[0]), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("smearing", [0.0, S])
@pytest.mark.parametrize(
    "kernel", [lambda width: Coulomb(2, smearing=width), lambda width: Yukawa([0.7, 0.2], [1.3, -0.4], smearing=width)]
)
def test_slopes_in_real_space_are_those_of_autograd(kernel, smearing):
    multiplier = kernel(smearing).double()
    distances = torch.linspace(0.2, 12.0, 40, dtype=torch.float64, requires_grad=True)
    for n in (1, 2):
        slopes = multiplier.radial_slope(distances, n).detach()
        assert slopes.shape == (40, n)
        for channel in range(n):
            (expected,) = torch.autograd.grad(multiplier.radial(distances)[:, channel].sum(), distances)
            torch.testing.assert_close(slopes[:, channel], expected / distances.detach(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(set(KERNELS) - {"coulomb", "power 1"}))
def test_value_at_the_origin_is_the_integral_of_the_transform(name, dimension):
    multiplier, _ = KERNELS[name]
    if getattr(multiplier, "power", 9) <= dimension:
        pytest.skip("the transform is infinite at k = 0")
    actual, _ = integrate.quad(
        lambda k: transform(multiplier, k, dimension)[0] * k ** (dimension - 1), 0, 10 / S, limit=800, epsabs=1e-11
    )
    exact = SURFACE[dimension] * actual / (2 * math.pi) ** dimension
    assert multiplier.at_origin(dimension).item() == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("multiplier", [Coulomb(smearing=S), InversePower(1, smearing=S)], ids=["coulomb", "power 1"])
def test_inverse_first_power_is_coulomb(multiplier):
    k = np.array([0.0, 0.2, 1.0, 4.0])
    np.testing.assert_allclose(transform(multiplier, k), transform(Coulomb(smearing=S), k), rtol=1e-13)
    assert multiplier.at_origin(3).item() == pytest.approx(math.sqrt(2 / math.pi) / S, rel=1e-13)


def test_dispersion_transform_is_that_of_essmann():
    """pi^(3/2) k^3/24b^3 [(1 - 2 b^2) exp(-b^2) + 2 b^3 sqrt(pi) erfc(b)], b = k s / sqrt(2); doi:10.1063/1.470117."""
    k = np.array([0.1, 0.7, 2.0, 4.0])
    b = k * S / math.sqrt(2)
    shape = (1 - 2 * b**2) * np.exp(-(b**2)) + 2 * b**3 * math.sqrt(math.pi) * special.erfc(b)
    exact = math.pi**1.5 * k**3 / (24 * b**3) * shape
    np.testing.assert_allclose(transform(InversePower(6, smearing=S), k), exact, rtol=1e-10)


def test_spline_has_two_continuous_derivatives():
    multiplier = RadialSpline([COEFFICIENTS], smearing=S, k_max=4.0)
    for knot in multiplier.breakpoints:
        k = torch.tensor([knot - 1e-7, knot + 1e-7], dtype=torch.float64, requires_grad=True)
        value = multiplier(WaveNumbers(k**2, 3))[:, 0]
        slope = torch.autograd.grad(value.sum(), k, create_graph=True)[0]
        curvature = torch.autograd.grad(slope.sum(), k)[0]
        for left, right in (value, slope, curvature):
            assert abs(float(left.detach() - right.detach())) < 2e-5


def trainable(multiplier):
    return {name: value.detach().clone().requires_grad_() for name, value in multiplier.named_parameters()}


@pytest.mark.parametrize("name", sorted(set(KERNELS) - {"coulomb"}))
@pytest.mark.parametrize("space", ["fourier", "real", "origin"])
def test_derivatives_by_parameters(name, space):
    multiplier, _ = KERNELS[name]
    values = trainable(multiplier)
    squared = torch.tensor([0.0, 0.3, 2.1, 9.0], dtype=torch.float64)
    distances = torch.tensor([0.4, 2.0, 5.5], dtype=torch.float64)

    class Evaluated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = multiplier

        def forward(self, at):
            if space == "origin":
                return self.kernel.at_origin(3)
            return self.kernel.fourier(at, 3) if space == "fourier" else self.kernel.radial(at)

    def evaluate(at, *parameters):
        replaced = {f"kernel.{key}": value for key, value in zip(values, parameters, strict=True)}
        return torch.func.functional_call(Evaluated(), replaced, (at,))

    at = (squared if space == "fourier" else distances).clone()
    # k = 0 stays where it is under strain: no derivative is asked for there
    inputs = (at[1:].requires_grad_(space != "origin"), *values.values())
    assert torch.autograd.gradcheck(evaluate, inputs, atol=1e-7)
    assert torch.autograd.gradgradcheck(evaluate, inputs, atol=1e-6)


@pytest.mark.parametrize("power", [2.5, 4, 5, 6])
def test_no_derivative_is_lost_at_zero_wave_number(power):
    squared = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    value = InversePower(power, smearing=S).fourier(squared, 3)
    assert torch.isfinite(torch.autograd.grad(value.sum(), squared)[0]).all()


@pytest.mark.parametrize("order", [-1.5, -1.0, 0.0, 0.5, 1.0, 1.5, 1.7, 2.0, 2.5, 3.0, 5.5])
def test_exponential_integral_is_its_definition(order):
    x = torch.tensor([1e-3, 0.05, 0.7, 1.99, 2.01, 6.0, 30.0], dtype=torch.float64)
    exact = [
        integrate.quad(lambda t, v=v: math.exp(-v * t) * t ** (-order), 1, np.inf, epsabs=0, epsrel=1e-12, limit=500)[0]
        for v in x[1:].tolist()
    ]
    np.testing.assert_allclose(exponential_integral(order, x)[1:].numpy(), exact, rtol=1e-9)
    if order > 0 and order % 1 == 0:
        np.testing.assert_allclose(
            exponential_integral(order, x).numpy(), special.expn(int(order), x.numpy()), rtol=1e-13
        )
    inputs = x[1:6].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: exponential_integral(order, x), inputs)
    assert torch.autograd.gradgradcheck(lambda x: exponential_integral(order, x), inputs)


def test_exponential_integral_at_zero():
    zero = torch.zeros(1, dtype=torch.float64)
    assert exponential_integral(2.5, zero).item() == pytest.approx(1 / 1.5)
    assert exponential_integral(1.0, zero).item() == 0  # infinite, and dropped


@pytest.mark.parametrize("order", [0, 1])
def test_bessel_functions_are_those_of_scipy(order):
    y = torch.linspace(0, 200, 4001, dtype=torch.float64)
    np.testing.assert_allclose(bessel_j(order, y), special.jv(order, y.numpy()), rtol=0, atol=3e-15)
    p = torch.tensor([1e-6, 0.01, 0.5, 3.0, 40.0], dtype=torch.float64)
    x = p.sqrt().numpy()
    np.testing.assert_allclose(modified_bessel(order, p), x**order * special.kv(order, x), rtol=1e-13)
    inputs = p[1:].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: modified_bessel(order, p), inputs)
    assert torch.autograd.gradgradcheck(lambda p: modified_bessel(order, p), inputs)


def test_matrix_reads_its_kernels_row_by_row():
    matrix = Matrix(GaussianSum([[1.0 + 0.1 * i] for i in range(6)], smearing=0.5), 2, 3)
    assert (matrix.n_outputs, matrix.n_inputs, matrix.n_channels) == (2, 3, 6)
    values = torch.arange(6.0)
    assert matrix.arranged(values).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Yukawa([math.nan]), "`screening` must hold one positive number"),
        (lambda: Yukawa([math.inf]), "`screening` must hold one positive number"),
        (lambda: Yukawa([0.0]), "for an unscreened kernel use Coulomb"),
        (lambda: Yukawa([1.0], [1.0, 2.0]), r"`amplitude` must have the length of `screening` \(1\), got 2"),
        (lambda: Yukawa([1.0], [math.nan]), "`amplitude` must hold finite numbers"),
        (lambda: Exponential([1.0], smearing=-1.0), "`smearing` must be zero or a positive length"),
        (lambda: Coulomb(0), "`n_channels` must be a positive whole number, got 0"),
        (lambda: InversePower(-6), "`power` must be a positive number, got -6"),
        (lambda: InversePower(6, smearing=0.0), "`smearing` must be positive for an inverse power"),
        (lambda: InversePower(6, []), "`amplitude` must hold one number per channel, got none"),
        (lambda: GaussianSum([]), "`widths` must hold one row per channel"),
        (lambda: GaussianSum([[2.0], [2.0, 3.0]]), "`widths` must hold one row per channel"),
        (lambda: GaussianSum([[0.5]], smearing=0.5), r"`widths` must all be finite and above `smearing` \(0.5\)"),
        (lambda: GaussianSum([[2.0]], [[1.0, 2.0]]), "`amplitudes` must have 1 rows of 1"),
        (lambda: RadialSpline([[1.0] * 4], smearing=0.0), "`smearing` must be positive for a free radial function"),
        (lambda: RadialSpline([[1.0] * 3]), "`coefficients` must hold one row per channel"),
        (lambda: RadialSpline([[1.0] * 4], k_max=0.0), "`k_max` must be a positive wave number"),
        (lambda: Matrix(Coulomb(3), 2, 2), r"must have n_outputs \* n_inputs = 2 \* 2 channels, got 3"),
        (lambda: Matrix(Matrix(Coulomb(1), 1, 1), 1, 1), "`multiplier` must map channels one to one"),
        (lambda: Stack([Matrix(Coulomb(4), 2, 2)]), "`multipliers` of a stack must map channels one to one"),
        (lambda: Stack([]), "`multipliers` must hold at least one"),
        (lambda: Multiplier().radial(torch.ones(1)), "Multiplier has no form in real space.*define `radial`"),
        (lambda: Multiplier().at_origin(3), "no closed form at the origin in 3 dimensions: define `at_origin`"),
        (lambda: Yukawa(0.5), r"`screening` must hold one number per channel, as in \[1.0\], got 0.5"),
        (lambda: Exponential([1.0], 2.0), "`amplitude` must hold one number per channel"),
        (lambda: InversePower(6, 2.0), "`amplitude` must hold one number per channel"),
        (lambda: GaussianSum([2.0]), r"`widths` must hold one row per channel, as in \[\[1.0, 2.0\]\]"),
        (lambda: GaussianSum([[2.0]], [1.0]), "`amplitudes` must hold one row per channel, as in"),
        (lambda: RadialSpline([1.0] * 4), "`coefficients` must hold one row per channel, as in"),
        (lambda: Multiplier().fourier(torch.ones(1), 3), "does not define a Fourier multiplier"),
    ],
)
def test_bad_kernels_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_kernels_show_their_channels_and_smearing():
    assert repr(Yukawa([0.3, 0.5], smearing=0.8)) == "Yukawa(n_channels=2, smearing=0.8)"
    assert repr(Multiplier()) == "Multiplier(n_channels=None, smearing=0)"


def test_widths_stay_above_the_smearing():
    multiplier = GaussianSum([[1.0]], smearing=0.9)
    with torch.no_grad():
        multiplier.log_excess -= 100.0
    assert multiplier.widths.item() >= 0.9
