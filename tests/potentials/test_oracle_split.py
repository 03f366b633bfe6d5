"""The split sum of many points against the same forces pair by pair and mode by mode."""

import numpy as np
import pytest

from lrc_ase.potentials import Exponential, Mixture, ScreenedCoulomb, SplitForces, jittered, pair_sums

MIXTURE = Mixture(((0.9, ScreenedCoulomb(10.0)), (0.1, ScreenedCoulomb(1.0))))


def points(dimension, length, seed=0):
    generator = np.random.default_rng(seed)
    n_cells = [max(1, round(length))] * dimension
    return jittered([length] * dimension, n_cells, minimum_separation=0.05, generator=generator)


@pytest.mark.parametrize(
    ("dimension", "length", "kernel", "smoothing"),
    [
        (1, 5.0, ScreenedCoulomb(0.5), 0.01),
        (1, 30.0, MIXTURE, 0.01),
        (2, 3.0, MIXTURE, 0.005),
        (2, 9.0, ScreenedCoulomb(1.0), 0.01),
        (3, 2.0, ScreenedCoulomb(3.0), 0.05),
    ],
)
def test_forces_are_those_of_the_image_sum(dimension, length, kernel, smoothing):
    positions, lengths = points(dimension, length), [length] * dimension
    expected = pair_sums(positions, lengths, kernel, method="images", smoothing=smoothing).forces
    forces = SplitForces(lengths, kernel, smoothing=smoothing)(positions)
    np.testing.assert_allclose(forces, expected, rtol=0, atol=1e-11)


def test_forces_are_those_of_the_spectral_sum():
    """Eq. 8 mode by mode, in a box of unequal sides and with points outside it."""
    lengths = [2.0, 3.0]
    positions = np.random.default_rng(0).uniform(-4, 4, (6, 2))
    expected = pair_sums(positions, lengths, MIXTURE, method="spectral", smoothing=0.1).forces
    np.testing.assert_allclose(SplitForces(lengths, MIXTURE, smoothing=0.1)(positions), expected, rtol=0, atol=1e-11)


def test_wide_smoothing_leaves_waves_alone():
    positions = points(1, 4.0)
    expected = pair_sums(positions, [4.0], ScreenedCoulomb(1.0), method="spectral", smoothing=0.5).forces
    forces = SplitForces([4.0], ScreenedCoulomb(1.0), smoothing=0.5)(positions)
    np.testing.assert_allclose(forces, expected, rtol=0, atol=1e-12)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"`smoothing` must be at least 0\.001 Angstrom, got 0\.0"):
        SplitForces([4.0], ScreenedCoulomb(1.0), smoothing=0.0)
    with pytest.raises(ValueError, match=r"`kernel` must be made of screened Coulomb kernels, got Exponential"):
        SplitForces([4.0, 4.0], Exponential(1.0), smoothing=0.1)
