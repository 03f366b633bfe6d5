"""Sampling: separation, evenness, reproducibility, limits; snapshots."""

import itertools
import math
from functools import partial

import numpy as np
import pytest

from lrc_ase.potentials.kernels import Exponential, ScreenedCoulomb
from lrc_ase.potentials.pairs import pair_sums
from lrc_ase.potentials.sampling import jittered, random_points, snapshots
from lrc_ase.potentials.torus import torus_distance

# The boxes and point numbers of the paper's tables.
PAPER = [
    ([5.0], 20, [10], 0.05),
    ([50.0], 200, [100], 0.05),
    ([5.0, 5.0], 50, [5, 5], 0.05),
    ([15.0, 15.0], 450, [15, 15], 0.05),
    ([3.0, 3.0, 3.0], 54, [3, 3, 3], 0.1),
]


def closest(points, lengths):
    i, j = np.triu_indices(len(points), 1)
    return torus_distance(points[i] - points[j], lengths).min()


@pytest.mark.parametrize(("lengths", "n_points", "n_cells", "separation"), PAPER)
def test_separation_holds_on_the_torus(lengths, n_points, n_cells, separation):
    generator = np.random.default_rng(0)
    for _ in range(3):
        for points in (
            random_points(n_points, lengths, minimum_separation=separation, generator=generator),
            jittered(lengths, n_cells, minimum_separation=separation, generator=generator),
        ):
            assert points.shape == (n_points, len(lengths))
            assert np.all(points >= 0.0)
            assert np.all(points < lengths)
            assert closest(points, lengths) >= separation


def test_dense_random_points():
    """3/5 of the jamming density of random sequential addition in 1D, 0.7476 (Renyi 1958)."""
    points = random_points(90, [200.0], minimum_separation=1.0, generator=np.random.default_rng(0))
    assert closest(points, [200.0]) >= 1.0


def test_jittered_points_are_two_per_cell():
    points = jittered([4.0, 6.0], [4, 3], minimum_separation=0.1, generator=np.random.default_rng(0))
    cells = np.floor(points / [1.0, 2.0]).astype(int)
    expected = [cell for cell in itertools.product(range(4), range(3)) for _ in range(2)]
    assert [tuple(cell) for cell in cells] == expected


@pytest.mark.parametrize("separation", [0.0, 0.02])
def test_points_are_uniform(separation):
    """Mean and variance of uniform numbers on [0, 1): 1/2 and 1/12."""
    generator = np.random.default_rng(5)
    samplers = (
        partial(random_points, 10, [1.0, 1.0], minimum_separation=separation, generator=generator),
        partial(jittered, [1.0, 1.0], [2, 2], minimum_separation=separation, generator=generator),
    )
    for sampler in samplers:
        points = np.concatenate([sampler() for _ in range(500)])
        np.testing.assert_allclose(points.mean(axis=0), 0.5, atol=0.02)
        np.testing.assert_allclose(points.var(axis=0), 1.0 / 12.0, atol=0.005)


def test_random_points_are_sequential_addition(monkeypatch):
    """Three points on a circle of length 1, separation 0.3: the third one fits only where the gap between the first
    two is at least 0.6. Their shorter gap is uniform on [0.3, 0.5], so it must be below 0.4: half of all cases."""
    monkeypatch.setattr("lrc_ase.potentials.sampling._MAX_TRIES", 100)  # 300 candidates miss room below 1/300: 0.48
    generator = np.random.default_rng(1)
    gaps = []
    for _ in range(400):
        try:
            points = random_points(3, [1.0], minimum_separation=0.3, generator=generator)
        except ValueError:
            continue
        gaps.append(torus_distance(points[:1] - points[1:2], [1.0])[0])
    assert min(gaps) >= 0.3
    assert max(gaps) <= 0.4
    assert np.mean(gaps) == pytest.approx(0.35, abs=0.01)
    assert 0.41 < len(gaps) / 400 < 0.56


@pytest.mark.parametrize(
    "sampler",
    [
        partial(random_points, 20, [5.0, 5.0], minimum_separation=0.3),
        partial(jittered, [5.0, 5.0], [3, 3], minimum_separation=0.3),
    ],
    ids=["random", "jittered"],
)
def test_seed_decides_the_points(sampler):
    first, second = (sampler(generator=np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, sampler(generator=np.random.default_rng(8)))


def test_no_points():
    generator = np.random.default_rng(0)
    assert random_points(0, [5.0], minimum_separation=0.1, generator=generator).shape == (0, 1)


def test_errors():
    generator = np.random.default_rng(0)
    random = partial(random_points, minimum_separation=0.1, generator=generator)
    with pytest.raises(ValueError, match=r"could place 0 of 60 points with `minimum_separation` 0\.1 in a box of"):
        random(60, [5.0])
    with pytest.raises(
        ValueError, match=r"could place \d+ of 46 points .* use fewer points, a larger box or a smaller"
    ):
        random(46, [5.0])
    with pytest.raises(ValueError, match=r"could place \d+ of 40 points"):
        jittered([4.0], [2], minimum_separation=0.099, generator=generator, points_per_cell=20)
    with pytest.raises(ValueError, match="`n_points` must not be negative, got -1"):
        random(-1, [5.0])
    for lengths in ([], [1.0, -1.0], [math.inf], [1.0] * 4):
        with pytest.raises(ValueError, match="`lengths` must be one to three positive lengths"):
            random(3, lengths)
    with pytest.raises(ValueError, match="`minimum_separation` must be zero or positive and finite, got -1"):
        random_points(3, [1.0], minimum_separation=-1, generator=generator)
    with pytest.raises(ValueError, match="`n_cells` must be 2 positive numbers to match `lengths`"):
        jittered([1.0, 1.0], [2], minimum_separation=0.0, generator=generator)
    with pytest.raises(ValueError, match="`points_per_cell` must be positive, got 0"):
        jittered([1.0], [2], minimum_separation=0.0, generator=generator, points_per_cell=0)


def test_snapshots_are_pair_sums_of_the_samples():
    def sampler():
        return jittered([3.0] * 3, [3] * 3, minimum_separation=0.1, generator=generator)

    generator = np.random.default_rng(2)
    made = list(snapshots(sampler, 3, [3.0] * 3, Exponential(5.0), method="minimum_image"))
    generator = np.random.default_rng(2)
    for snapshot in made:
        assert np.array_equal(snapshot.positions, sampler())
        expected = pair_sums(snapshot.positions, [3.0] * 3, Exponential(5.0), method="minimum_image")
        assert snapshot.energy == expected.energy
        assert np.array_equal(snapshot.forces, expected.forces)
    assert len(made) == 3
    assert made[0].energy != made[1].energy


def test_snapshots_pass_the_smoothing_on():
    sampler = partial(jittered, [5.0], [10], minimum_separation=0.05)
    rough, smooth = (
        next(
            snapshots(partial(sampler, generator=np.random.default_rng(0)), 1, [5.0], ScreenedCoulomb(5.0), smoothing=s)
        )
        for s in (0.0, 0.05)
    )
    assert np.array_equal(rough.positions, smooth.positions)
    assert rough.energy != smooth.energy
