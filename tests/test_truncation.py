"""Transforms of kernels that are cut off in open directions, against quadrature of the kernel itself."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import j0, k0

from lrc_ase.layer.truncation import truncated_coulomb, truncated_yukawa

RADIUS = 7.0


def by_quadrature(n_open, kernel, wave):
    """Integrate a kernel of the distance across the periodic directions up to RADIUS; divide by 4 pi RADIUS^2."""
    waves = {
        1: lambda r: 2 * np.cos(wave * r),
        2: lambda r: 2 * np.pi * r * j0(wave * r),
        3: lambda r: 4 * np.pi * r**2 * np.sinc(wave * r / np.pi),
    }
    integral, _ = quad(lambda r: kernel(r) * waves[n_open](r), 0, RADIUS, epsabs=1e-12, epsrel=1e-12, limit=200)
    return integral / (4 * np.pi * RADIUS**2)


def squares(wave):
    return torch.tensor((wave * RADIUS) ** 2, dtype=torch.float64)


@pytest.mark.parametrize("wave", [0.0, 0.05, 1.3])
@pytest.mark.parametrize("decay", [0.01, 0.2, 2.0])
@pytest.mark.parametrize("n_open", [1, 2, 3])
def test_screened_kernels(n_open, decay, wave):
    """The transform of exp(-K r) / r along two periodic directions, along one, and along none."""
    kernels = {
        1: lambda r: 2 * np.pi / decay * np.exp(-decay * r),
        2: lambda r: 2 * k0(decay * r),
        3: lambda r: np.exp(-decay * r) / r,
    }
    expected = by_quadrature(n_open, kernels[n_open], wave)
    assert truncated_yukawa(n_open, squares(decay), squares(wave)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("wave", [0.0, 0.05, 1.3])
@pytest.mark.parametrize("n_open", [1, 2, 3])
def test_coulomb_where_nothing_screens_it(n_open, wave):
    """The constants that diverge are left out: -2 pi |z| of a charged slab, -2 ln(rho / Angstrom) of a wire."""
    kernels = {1: lambda r: -2 * np.pi * r, 2: lambda r: -2 * np.log(r), 3: lambda r: 1 / r}
    expected = by_quadrature(n_open, kernels[n_open], wave)
    radius, none = torch.tensor(RADIUS, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    assert truncated_coulomb(n_open, none, squares(wave), radius).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n_open", [1, 2])
def test_coulomb_along_periodic_waves_is_screened_by_them(n_open):
    arguments = squares(0.3), squares(1.3)
    radius = torch.tensor(RADIUS, dtype=torch.float64)
    assert truncated_coulomb(n_open, *arguments, radius) == truncated_yukawa(n_open, *arguments)
