"""Pair sums: a two-body value by hand, methods against each other, derivatives, symmetries, supercells."""

import math

import numpy as np
import pytest

from lrc_ase.potentials.kernels import Exponential, Mixture, ScreenedCoulomb
from lrc_ase.potentials.pairs import _pair_chunks, pair_sums

KERNELS = {
    "exponential": Exponential(2.5),
    "screened Coulomb": ScreenedCoulomb(2.5),
    "mixture": Mixture(((0.9, ScreenedCoulomb(6.0)), (0.1, Exponential(2.0)))),
}
CELLS = [
    np.array([[5.0]]),
    np.array([[3.0, 0.4], [1.3, 2.5]]),
    np.array([[3.0, 0.4, 0.1], [1.0, 2.5, 0.2], [-0.4, 0.5, 2.8]]),
]
dimensions = pytest.mark.parametrize("cell", CELLS, ids=["1D", "2D", "3D"])
kernels = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def points_in(cell, n=7, seed=0):
    """A grid of n points along the diagonal, rattled: apart from each other, without symmetry."""
    generator = np.random.default_rng(seed)
    fractions = (np.arange(n)[:, None] + generator.uniform(-0.3, 0.3, (n, len(cell)))) / n
    return fractions @ cell


def assert_same(one, other, tolerance=1e-10):
    assert one.energy == pytest.approx(other.energy, abs=tolerance)
    for name in ("local_potentials", "forces", "virial"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0.0, atol=tolerance, err_msg=name)


def test_two_points_in_1d_by_hand():
    """Energy cosh(mu (L/2 - x)) / sinh(mu L/2), and the force is minus its derivative by the second point."""
    length, x, mu = 5.0, 1.2, 0.7
    sums = pair_sums([[0.3], [0.3 + x]], [length], Exponential(mu))
    assert sums.energy == pytest.approx(math.cosh(mu * (length / 2 - x)) / math.sinh(mu * length / 2), abs=1e-11)
    force = mu * math.sinh(mu * (length / 2 - x)) / math.sinh(mu * length / 2)
    np.testing.assert_allclose(sums.forces, [[-force], [force]], atol=1e-11)
    np.testing.assert_allclose(sums.local_potentials, sums.energy, atol=1e-15)


def test_minimum_image_is_equation_4():
    """U_j = sum_i exp(-mu |x_i - x_j|) and its force, written out with loops over a cube."""
    length, mu = 3.0, 5.0
    points = np.random.default_rng(0).uniform(0.0, length, (6, 3))
    potentials, forces = np.zeros(6), np.zeros((6, 3))
    for i in range(6):
        for j in range(6):
            if i != j:
                r = points[j] - points[i]
                r -= length * np.round(r / length)
                distance = np.linalg.norm(r)
                potentials[j] += math.exp(-mu * distance)
                forces[j] += mu * math.exp(-mu * distance) * r / distance
    sums = pair_sums(points, [length] * 3, Exponential(mu), method="minimum_image")
    np.testing.assert_allclose(sums.local_potentials, potentials, rtol=1e-13)
    np.testing.assert_allclose(sums.forces, forces, atol=1e-14)
    assert sums.energy == pytest.approx(potentials.sum() / 2, rel=1e-14)


@dimensions
@kernels
@pytest.mark.parametrize("self_images", [False, True])
def test_images_and_ewald_agree(kernel, cell, self_images):
    points = points_in(cell)
    assert_same(*(pair_sums(points, cell, kernel, method=m, self_images=self_images) for m in ("images", "ewald")))


@dimensions
def test_smoothed_images_and_spectral_sum_agree(cell):
    points = points_in(cell)
    assert_same(
        *(pair_sums(points, cell, ScreenedCoulomb(1.5), method=m, smoothing=0.3) for m in ("images", "spectral"))
    )


@dimensions
@kernels
@pytest.mark.parametrize("method", ["images", "ewald", "minimum_image"])
def test_forces_match_finite_differences(kernel, cell, method):
    points, h = points_in(cell), 1e-5
    forces = pair_sums(points, cell, kernel, method=method).forces
    for atom, axis in [(0, 0), (3, len(cell) - 1), (6, 0)]:
        ends = []
        for sign in (1, -1):
            moved = points.copy()
            moved[atom, axis] += sign * h
            ends.append(pair_sums(moved, cell, kernel, method=method).energy)
        assert forces[atom, axis] == pytest.approx(-(ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-7)


@dimensions
@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"self_images": True}], ids=str)
def test_virial_matches_finite_differences(cell, options):
    points, h, d, kernel = points_in(cell), 1e-5, len(cell), ScreenedCoulomb(2.5)
    virial = pair_sums(points, cell, kernel, **options).virial
    for a, b in [(0, 0), (0, d - 1), (d - 1, d - 1)]:
        strain = np.zeros((d, d))
        strain[a, b] += 0.5 * h
        strain[b, a] += 0.5 * h
        deform = [np.eye(d) + sign * strain for sign in (1, -1)]
        ends = [pair_sums(points @ f, cell @ f, kernel, **options).energy for f in deform]
        assert virial[a, b] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-7)


@dimensions
@kernels
def test_symmetries(kernel, cell):
    """Translation, also by 1000 Angstrom; permutation; lattice shift of single points; Newton's third law."""
    points = points_in(cell)
    sums = pair_sums(points, cell, kernel)
    assert_same(pair_sums(points + 1000.0, cell, kernel), sums)
    generator = np.random.default_rng(1)
    shifted = points + generator.integers(-3, 4, points.shape) @ cell
    assert_same(pair_sums(shifted, cell, kernel), sums)
    order = generator.permutation(len(points))
    permuted = pair_sums(points[order], cell, kernel)
    np.testing.assert_allclose(permuted.forces, sums.forces[order], atol=1e-12)
    np.testing.assert_allclose(permuted.local_potentials, sums.local_potentials[order], atol=1e-12)
    np.testing.assert_allclose(sums.forces.sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(sums.virial, sums.virial.T, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS[1:], ids=["2D", "3D"])
@kernels
def test_rotation_of_points_with_cell(kernel, cell):
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=cell.shape))[0]
    sums, rotated = (pair_sums(points_in(cell) @ r, cell @ r, kernel) for r in (np.eye(len(cell)), rotation))
    assert rotated.energy == pytest.approx(sums.energy, abs=1e-11)
    np.testing.assert_allclose(rotated.forces, sums.forces @ rotation, atol=1e-11)
    np.testing.assert_allclose(rotated.virial, rotation.T @ sums.virial @ rotation, atol=1e-11)


@dimensions
@kernels
def test_supercell_is_a_multiple_with_self_images_alone(kernel, cell):
    points = points_in(cell)
    doubled = np.concatenate([points, points + cell[0]])
    supercell = np.diag([2.0] + [1.0] * (len(cell) - 1)) @ cell
    one, two = (
        pair_sums(points, cell, kernel, self_images=True),
        pair_sums(doubled, supercell, kernel, self_images=True),
    )
    assert two.energy == pytest.approx(2 * one.energy, rel=1e-11)
    np.testing.assert_allclose(two.virial, 2 * one.virial, atol=1e-10)
    np.testing.assert_allclose(two.forces[: len(points)], one.forces, atol=1e-11)
    without = [pair_sums(*arguments, kernel).energy for arguments in ((points, cell), (doubled, supercell))]
    assert abs(without[1] - 2 * without[0]) > 1e-6


@dimensions
@kernels
def test_self_images_add_a_constant_and_no_force(kernel, cell):
    differences = []
    for seed in (0, 1):
        points = points_in(cell, seed=seed)
        with_images, without = (pair_sums(points, cell, kernel, self_images=flag) for flag in (True, False))
        differences.append(with_images.energy - without.energy)
        np.testing.assert_allclose(with_images.forces, without.forces, rtol=0.0, atol=0.0)
    assert differences[0] == pytest.approx(differences[1], abs=1e-11)
    alone = pair_sums(np.zeros((1, len(cell))), cell, kernel, self_images=True)
    assert 7 * alone.energy == pytest.approx(differences[0], abs=1e-11)


def test_one_point_and_no_point():
    for n in (0, 1):
        sums = pair_sums(np.zeros((n, 2)), [3.0, 3.0], ScreenedCoulomb(1.0))
        assert sums.energy == 0.0
        assert sums.forces.shape == (n, 2)
        assert np.all(sums.forces == 0.0)


@pytest.mark.parametrize("n_points", [2, 3, 450, 700])
def test_chunks_hold_every_pair_once(n_points):
    chunks = list(_pair_chunks(n_points))
    i, j = (np.concatenate(index) for index in zip(*chunks, strict=True))
    expected = np.triu_indices(n_points, 1)
    assert np.array_equal(i, expected[0])
    assert np.array_equal(j, expected[1])
    assert n_points < 450 or len(chunks) > 1


def test_inputs_are_not_changed():
    points = np.array([[7.0, -9.0], [0.0, 1.0]])
    before = points.copy()
    pair_sums(points, [3.0, 4.0], Exponential(2.0), self_images=True)
    assert np.array_equal(points, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fft"}, "`method` must be one of images, ewald, spectral, minimum_image, got 'fft'"),
        ({"tolerance": -1.0}, r"`tolerance` must be positive, got -1\.0"),
        ({"smoothing": math.nan}, "`smoothing` must be zero or positive and finite"),
        ({"method": "spectral"}, "`smoothing` must be positive with `method` 'spectral'"),
        ({"method": "ewald", "smoothing": 0.1}, r"`smoothing` needs `method` 'images' or 'spectral', got 0\.1"),
        ({"method": "minimum_image", "self_images": True}, "`self_images` needs `method` 'images' or 'ewald'"),
    ],
    ids=str,
)
def test_option_errors(options, message):
    with pytest.raises(ValueError, match=message):
        pair_sums([[0.0], [1.0]], [5.0], ScreenedCoulomb(1.0), **options)


def test_argument_errors():
    with pytest.raises(TypeError, match="`kernel` must be a Kernel or a Mixture, got float"):
        pair_sums([[0.0]], [5.0], 1.0)
    with pytest.raises(ValueError, match=r"`positions` must have shape \(n_points, 1\) to match `cell`, got \(2,\)"):
        pair_sums([0.0, 1.0], [5.0], Exponential(1.0))
    with pytest.raises(ValueError, match="`positions` must be finite"):
        pair_sums([[0.0], [math.nan]], [5.0], Exponential(1.0))
    points = [[0.0, 0.0], [1.0, 1.0], [5.0, -5.0]]
    with pytest.raises(ValueError, match="`positions` 0 and 2 coincide, where the kernel is singular"):
        pair_sums(points, [5.0, 5.0], ScreenedCoulomb(1.0))
    smooth = pair_sums(points, [5.0, 5.0], ScreenedCoulomb(1.0), smoothing=0.1)
    assert np.isfinite(smooth.energy)
    assert np.all(np.isfinite(smooth.forces))
