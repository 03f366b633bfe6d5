"""The ASE calculator: finite differences, conventions, contract with ASE, errors; frames and their storage."""

import math
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import InputError, PropertyNotImplementedError
from ase.calculators.fd import FiniteDifferenceCalculator, calculate_numerical_forces, calculate_numerical_stress
from ase.io import read
from ase.io.trajectory import Trajectory
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.units import fs

from lrc_ase.potentials.calculator import KernelCalculator, frames, periodic_dimension
from lrc_ase.potentials.kernels import Exponential, Mixture, ScreenedCoulomb
from lrc_ase.potentials.pairs import pair_sums
from lrc_ase.potentials.sampling import Snapshot

KERNELS = {
    "exponential": Exponential(2.5),
    "screened Coulomb": ScreenedCoulomb(2.5),
    "mixture": Mixture(((0.9, ScreenedCoulomb(6.0)), (0.1, Exponential(2.0)))),
}
kernels = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
dimensions = pytest.mark.parametrize("dimension", [1, 2, 3])


def rattled(dimension, n_atoms=6):
    """Atoms in a triclinic cell whose periodic vectors lie in their line, plane or space; the others do not matter."""
    cell = np.array([[3.0, 0.4, 0.1], [1.0, 2.5, 0.2], [-0.4, 0.5, 2.8]])
    cell[:dimension, dimension:] = 0.0
    generator = np.random.default_rng(dimension)
    fractions = (np.arange(n_atoms)[:, None] + generator.uniform(-0.3, 0.3, (n_atoms, 3))) / n_atoms
    return Atoms("H" * n_atoms, fractions @ cell, cell=cell, pbc=np.arange(3) < dimension)


@dimensions
@kernels
def test_forces_match_finite_differences(kernel, dimension):
    atoms = rattled(dimension)
    atoms.calc = KernelCalculator(kernel)
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-5), atol=1e-7)
    assert np.all(atoms.get_forces()[:, dimension:] == 0.0)


@dimensions
@pytest.mark.parametrize("options", [{}, {"self_images": True}, {"method": "ewald"}], ids=str)
def test_stress_matches_finite_differences(dimension, options):
    """All six components, also those that tilt the plane: the energy sees the projection on its own space."""
    atoms = rattled(dimension)
    atoms.calc = KernelCalculator(ScreenedCoulomb(2.5), **options)
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), numerical, atol=1e-8)
    assert np.abs(numerical).max() > 1e-3


def test_smoothed_forces_and_stress_match_finite_differences():
    atoms = rattled(2)
    atoms.calc = KernelCalculator(ScreenedCoulomb(2.5), smoothing=0.2)
    exact = FiniteDifferenceCalculator(KernelCalculator(ScreenedCoulomb(2.5), smoothing=0.2), 1e-5, 1e-5)
    np.testing.assert_allclose(atoms.get_forces(), exact.get_property("forces", atoms), atol=1e-7)
    np.testing.assert_allclose(atoms.get_stress(), exact.get_property("stress", atoms), atol=1e-8)


@dimensions
def test_every_result_is_filled_at_once(dimension, monkeypatch):
    calls = []
    calculate = KernelCalculator.calculate
    monkeypatch.setattr(KernelCalculator, "calculate", lambda *arguments: (calls.append(1), calculate(*arguments))[1])
    atoms = rattled(dimension)
    atoms.calc = KernelCalculator(Exponential(2.0))
    energy = atoms.get_potential_energy()
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, rel=1e-14)
    atoms.get_forces()
    atoms.get_stress()
    assert len(calls) == 1
    atoms.positions[0, 0] += 0.01
    assert atoms.get_potential_energy() != energy
    assert len(calls) == 2


def test_results_are_the_pair_sums():
    atoms = rattled(2)
    atoms.calc = KernelCalculator(Exponential(5.0), method="minimum_image")
    expected = pair_sums(atoms.positions[:, :2], atoms.cell[:2, :2], Exponential(5.0), method="minimum_image")
    assert atoms.get_potential_energy() == expected.energy
    np.testing.assert_array_equal(atoms.get_forces()[:, :2], expected.forces)
    np.testing.assert_array_equal(atoms.get_potential_energies(), expected.local_potentials / 2)


@dimensions
def test_supercell_with_self_images(dimension):
    atoms = rattled(dimension)
    repeated = atoms.repeat([2 if axis < dimension else 1 for axis in range(3)])
    for each in (atoms, repeated):
        each.calc = KernelCalculator(ScreenedCoulomb(2.5), self_images=True)
    n = 2**dimension
    assert repeated.get_potential_energy() == pytest.approx(n * atoms.get_potential_energy(), rel=1e-11)
    np.testing.assert_allclose(repeated.get_forces(), np.tile(atoms.get_forces(), (n, 1)), atol=1e-10)
    np.testing.assert_allclose(repeated.get_stress(), atoms.get_stress(), atol=1e-10)


def test_one_atom():
    atoms = Atoms("H", cell=[3.0, 3.0, 3.0], pbc=True)
    atoms.calc = KernelCalculator(ScreenedCoulomb(1.0))
    assert atoms.get_potential_energy() == 0.0
    assert np.all(atoms.get_forces() == 0.0)
    assert np.all(atoms.get_stress() == 0)


def test_stress_is_left_out_where_it_is_not_defined():
    atoms = rattled(2)
    atoms.calc = KernelCalculator(Exponential(2.0), method="minimum_image")
    with pytest.raises(PropertyNotImplementedError, match="stress property not implemented"):
        atoms.get_stress()
    atoms.calc.set(method="images")
    assert atoms.get_stress().shape == (6,)
    atoms.cell[2] = 0.0
    with pytest.raises(PropertyNotImplementedError, match="stress not present in this calculation"):
        atoms.get_stress()


def test_atoms_are_not_changed():
    atoms = rattled(3)
    atoms.positions += 20.0
    before = atoms.copy()
    atoms.calc = KernelCalculator(Exponential(2.0))
    atoms.get_potential_energy()
    assert atoms == before


def test_set_changes_the_result():
    atoms = rattled(1)
    atoms.calc = KernelCalculator(Exponential(2.0))
    energy = atoms.get_potential_energy()
    atoms.calc.set(kernel=Mixture(((2.0, Exponential(2.0)),)))
    assert atoms.get_potential_energy() == pytest.approx(2 * energy, rel=1e-14)
    assert atoms.calc.set(tolerance=1e-12) == {}


def test_relaxation_and_dynamics():
    """Three atoms on a line of length 3 repel each other to a spacing of 1; dynamics keeps the energy."""
    atoms = Atoms("H3", [[0, 0, 0], [0.8, 0, 0], [2.1, 0, 0]], cell=[3.0, 0, 0], pbc=[True, False, False])
    atoms.calc = KernelCalculator(ScreenedCoulomb(1.0))
    moving = atoms.copy()
    moving.calc = KernelCalculator(ScreenedCoulomb(1.0), smoothing=0.1)
    assert BFGS(atoms, logfile=None).run(fmax=1e-6, steps=60)
    assert sorted(atoms.get_all_distances(mic=True)[0].round(4)) == [0.0, 1.0, 1.0]
    start = moving.get_total_energy()
    VelocityVerlet(moving, 0.2 * fs).run(50)
    assert moving.get_kinetic_energy() > 1e-3
    assert moving.get_total_energy() == pytest.approx(start, abs=1e-4)


def test_trajectory_keeps_results_and_options(tmp_path):
    atoms = rattled(2)
    atoms.calc = KernelCalculator(ScreenedCoulomb(2.5), smoothing=0.1)
    energy = atoms.get_potential_energy()
    with Trajectory(tmp_path / "one.traj", "w") as trajectory:
        trajectory.write(atoms)
    assert read(tmp_path / "one.traj").get_potential_energy() == energy
    assert atoms.calc.todict() == {"kernel": "ScreenedCoulomb(mu=2.5)", "smoothing": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pbc": False}, r"the leading directions must be periodic.*got \[False, False, False\]"),
        ({"pbc": [False, True, True]}, r"the leading directions must be periodic.*got \[False, True, True\]"),
        ({"cell": [3.0, 0.0, 3.0]}, "cell vector 1 is periodic but zero"),
        ({"cell": [[3, 0, 0], [6, 0, 0], [0, 0, 3]]}, "cannot treat these atoms: `cell` must have a volume"),
        ({"cell": [3.0, math.nan, 3.0]}, "cell vectors must be finite"),
        ({"positions": [[0, 0, 0], [0, math.nan, 0]]}, r"positions must be finite, got \[ 0. nan  0.\] for atom 1"),
        ({"positions": [[0, 0, 0], [3, 0, -3]]}, "cannot treat these atoms: `positions` 0 and 1 coincide"),
        (
            {"cell": [[3, 0, 1], [0, 3, 0], [0, 0, 3]], "pbc": [True, True, False]},
            "the 2 periodic cell vectors must lie along the first 2 Cartesian axes",
        ),
    ],
    ids=str,
)
def test_input_errors(change, message):
    arguments = {"positions": [[0, 0, 0], [1, 0, 0]], "cell": [3.0, 3.0, 3.0], "pbc": True, **change}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # ASE's own, on a cell that is not finite
        atoms = Atoms("H2", **arguments)
        atoms.calc = KernelCalculator(ScreenedCoulomb(1.0))
        with pytest.raises(InputError, match=message):
            atoms.get_potential_energy()


def test_option_and_argument_errors():
    with pytest.raises(InputError, match="needs at least one atom, got an empty Atoms object"):
        periodic_dimension(Atoms(cell=[1, 1, 1], pbc=True))
    with pytest.raises(InputError, match="KernelCalculator needs atoms, got None"):
        KernelCalculator(Exponential(1.0)).calculate()
    with pytest.raises(TypeError, match="unknown option 'mu' of KernelCalculator; the options are kernel, method"):
        KernelCalculator(Exponential(1.0)).set(mu=3.0)
    with pytest.raises(ValueError, match="`self_images` needs `method` 'images' or 'ewald'"):
        KernelCalculator(Exponential(1.0), method="minimum_image", self_images=True)
    with pytest.raises(TypeError, match="`kernel` must be a Kernel or a Mixture, got str"):
        KernelCalculator("exponential")


def test_failure_leaves_no_stale_result():
    atoms = rattled(3)
    atoms.calc = KernelCalculator(ScreenedCoulomb(1.0))
    atoms.get_potential_energy()
    atoms.positions[0] = atoms.positions[1]
    with pytest.raises(InputError, match="coincide"):
        atoms.get_potential_energy()
    assert atoms.calc.results == {}


@dimensions
def test_frames_carry_the_snapshots(dimension, tmp_path):
    generator = np.random.default_rng(0)
    made = [
        Snapshot(generator.random((4, dimension)), 1.5 + i, generator.normal(size=(4, dimension))) for i in range(2)
    ]
    images = frames(made, [2.0] * dimension)
    with Trajectory(tmp_path / "frames.traj", "w") as trajectory:
        for image in images:
            trajectory.write(image)
    for each in (images, read(tmp_path / "frames.traj", ":")):
        for atoms, snapshot in zip(each, made, strict=True):
            np.testing.assert_array_equal(atoms.positions[:, :dimension], snapshot.positions)
            np.testing.assert_array_equal(atoms.get_forces()[:, :dimension], snapshot.forces)
            assert atoms.get_potential_energy() == snapshot.energy
            assert periodic_dimension(atoms) == dimension
            assert np.all(atoms.positions[:, dimension:] == 0.0)
            assert np.all(atoms.get_forces()[:, dimension:] == 0.0)


def test_frames_errors():
    snapshot = Snapshot(np.zeros((1, 2)), 0.0, np.zeros((1, 2)))
    with pytest.raises(ValueError, match="`lengths` must match the snapshots' dimension 2, got 1 lengths"):
        frames([snapshot], [2.0])
    with pytest.raises(ValueError, match=r"`lengths` must have shape \(d,\) with d = 1, 2 or 3, got \(2, 2\)"):
        frames([snapshot], np.eye(2))
