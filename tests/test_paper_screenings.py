"""Screenings fitted before training equal those of the data, for all boxes and starts; networks descend."""

import numpy as np
import pytest

from lrc_ase.paper.model import STARTING_SCREENING, highest_wave
from lrc_ase.paper.problems import Snapshots, exponential_3d, screened_coulomb
from lrc_ase.paper.recipes import force_error, train_ours
from lrc_ase.paper.screenings import GRID, find_screenings

pytestmark = pytest.mark.slow


def drawn(problem, n_snapshots, seed=0):
    generator = np.random.default_rng(seed)
    positions, forces = zip(*(problem.draw(generator) for _ in range(n_snapshots)), strict=True)
    return Snapshots(problem, np.array(positions), np.array(forces))


@pytest.mark.parametrize(
    ("problem", "n_modes", "n_snapshots"),
    [
        (screened_coulomb(1, 5.0, [5.0, 0.5], [0.5, 0.5]), 51, 20),
        (screened_coulomb(1, 50.0, [5.0, 0.5], [0.5, 0.5]), 501, 1),
        (screened_coulomb(2, 3.0, [10.0, 1.0], [0.9, 0.1]), 31, 40),
    ],
)
def test_both_screenings_of_the_data_are_found(problem, n_modes, n_snapshots):
    """In a box no longer than twice the cutoff as in a long one; of mu = 10 but a part of 1e-7 is beyond the cutoff."""
    larger, smaller = (term.mu for _, term in problem.kernel.terms)
    actual = find_screenings(drawn(problem, n_snapshots), highest=highest_wave(problem, n_modes))
    assert actual == (pytest.approx(larger, rel=0.1), pytest.approx(smaller, rel=1e-4))


@pytest.mark.parametrize("mu", [0.3, 2.2])
def test_a_single_kernel_is_one_of_the_two(mu):
    problem = screened_coulomb(1, 5.0, [mu])
    actual = find_screenings(drawn(problem, 20), highest=highest_wave(problem, 51))
    assert min(abs(screening / mu - 1) for screening in actual) < 1e-3
    assert not np.isclose(STARTING_SCREENING, mu).any()
    assert not np.isclose(GRID, mu, rtol=0.05).any()


def test_kernels_of_another_form_find_screenings_within_the_bounds():
    problem = exponential_3d(5.0)
    smaller, larger = sorted(find_screenings(drawn(problem, 10), highest=highest_wave(problem, 9)))
    assert GRID[0] <= smaller <= larger <= GRID[-1]


@pytest.mark.parametrize("seed", range(3))
def test_near_points_do_not_hold_a_descent_up(seed):
    """Ten iterations bring a two-dimensional short-range model near its final error, 0.017, from any random start."""
    problem = screened_coulomb(2, 5.0, [10.0, 1.0], [0.9, 0.1], smoothing=0.005)
    snapshots = drawn(problem, 20)
    model = train_ours(snapshots, highest=None, seed=seed, n_iterations=10)
    assert force_error(model, snapshots) < 0.03
