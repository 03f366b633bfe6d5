"""Checks of liquids and of runs: closed forms for the formulas, and a failure for each kind of broken run."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from broken_calculators import AllToAll, Exploding, Forceless, NotExtensive, Swelling

from lrc_ase.checks import CheckSettings, check
from lrc_ase.checks.diffusion import Viscosity, finite_size_correction, mean_square_displacement, shear_viscosity
from lrc_ase.checks.permittivity import same_molecules
from lrc_ase.checks.runs import TrajectoryRecord

SHORT = CheckSettings(
    quick=True, equilibration=0.1, production=0.4, density_run=0.3, hot_run=0.2, smallest_cell=4.0, timestep=2.0
)


def copper(repeat=2) -> Atoms:
    return bulk("Cu", "fcc", a=3.61, cubic=True).repeat(repeat)


def result(name, calculator, atoms, suite="all", settings=SHORT, **options):
    (system,) = check(calculator, atoms, suite=suite, only=[name], settings=settings, **options).systems
    return system.results[0]


def values(outcome) -> dict[str, float]:
    return {quantity.name: quantity.value for quantity in outcome.quantities}


def record(temperature=1000.0, volume=1000.0) -> TrajectoryRecord:
    empty = np.zeros((0, 0, 3))
    return TrajectoryRecord(10.0, np.array([]), np.array([]), empty, None, volume, temperature)


def test_mean_square_displacement_is_that_of_the_double_loop():
    positions = np.cumsum(np.random.default_rng(0).standard_normal((60, 4, 3)), axis=0)
    expected = [np.mean(np.sum((positions[lag:] - positions[: 60 - lag]) ** 2, axis=2)) for lag in range(60)]
    np.testing.assert_allclose(mean_square_displacement(positions), expected, atol=1e-9)


def test_correction_of_yeh_and_hummer_is_its_formula_by_hand():
    """2.837297 k_B T / (6 pi eta L) at 298 K, 0.85 mPa s and 20 Angstrom is 0.364e-9 m^2/s."""
    correction, error = finite_size_correction(298.0, 20.0, Viscosity(0.85e-3, 0.085e-3, np.zeros(1), np.zeros(1)))
    assert correction == pytest.approx(0.3643, rel=1e-3)
    assert error == pytest.approx(0.03643, rel=1e-3)


def test_viscosity_of_a_pressure_that_forgets_exponentially():
    """V/kT <P^2> tau for the pressure of an Ornstein-Uhlenbeck process, 0.1 GPa, 50 fs, 1000 Angstrom^3, 1000 K.

    1e-27 m^3 / (1.380649e-20 J) * (1e8 Pa)^2 * 5e-14 s = 3.62e-5 Pa s.
    """
    rng = np.random.default_rng(1)
    n_frames, interval, memory = 40000, 0.01, 0.05  # ps
    decay = np.exp(-interval / memory)
    noise = np.sqrt(1 - decay**2) * rng.standard_normal((n_frames, 6))
    series = np.empty((n_frames, 6))
    series[0] = rng.standard_normal(6)
    for step in range(1, n_frames):
        series[step] = decay * series[step - 1] + noise[step]
    series *= 0.1 * units.GPa
    stresses = np.zeros((n_frames, 3, 3))
    for column, (row, other) in enumerate(((0, 1), (0, 2), (1, 2))):
        stresses[:, row, other] = stresses[:, other, row] = series[:, column]
    # differences of two diagonal elements, halved, must have the same variance
    for axis in range(3):
        stresses[:, axis, axis] = np.sqrt(2) * series[:, 3 + axis]
    viscosity = shear_viscosity(stresses, record(), interval)
    assert viscosity.value == pytest.approx(3.62e-5, rel=0.2)
    assert viscosity.times[-1] == pytest.approx(3.0, abs=0.02)


def test_bonds_of_a_molecular_liquid_stay_and_those_of_a_melt_do_not():
    water = molecule("H2O", cell=[6, 6, 6], pbc=True).repeat((2, 1, 1))
    turned = water.copy()
    turned.positions[[1, 4]] += 0.1 * (turned.positions[[1, 4]] - turned.positions[[0, 3]])  # a stretched bond
    assert same_molecules(water, turned)
    bonded = water.copy()
    bonded.positions[3:] += (
        bonded.positions[1] + [0, 1.29, -1.01] - bonded.positions[3]
    )  # a hydrogen bond of 1.64 Angstrom
    assert bonded.get_distance(1, 3, mic=True) < 1.7
    assert same_molecules(water, bonded)
    turned.positions[[0, 3]] = turned.positions[[3, 0]]  # two molecules exchange an atom
    assert not same_molecules(water, turned)
    assert not same_molecules(*2 * [bulk("NaCl", "rocksalt", a=5.6, cubic=True)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["radial distributions", "vibrational spectrum", "density", "stability", "locality", "dielectric constant"]
)
def test_copper_passes_or_says_why_not(name):
    outcome = result(name, EMT(), copper())
    assert outcome.verdict in {"dielectric constant": ("not applicable",)}.get(name, ("passed", "informative"))
    assert outcome.sentence


@pytest.mark.slow
def test_first_peak_of_copper_is_the_distance_of_neighbors():
    """3.61 / sqrt(2) = 2.55 Angstrom."""
    cold = CheckSettings(quick=True, temperature=50.0, equilibration=0.1, production=0.2, timestep=2.0)
    outcome = result("radial distributions", EMT(), copper(), settings=cold)
    assert values(outcome)["Cu-Cu: first peak"] == pytest.approx(3.61 / np.sqrt(2), abs=0.03)


@pytest.mark.slow
def test_density_of_copper_is_that_of_its_lattice():
    """63.546 u in 3.61^3/4 Angstrom^3 are 8.97 g/cm^3; EMT at 300 K is within 3 %."""
    outcome = result("density", EMT(), copper())
    assert values(outcome)["density"] == pytest.approx(8.97, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("calculator", "system", "suite", "name", "sentence"),
    [
        (Exploding, copper, "liquid", "stability", "explosions is 1"),  # a crystal would be relaxed first, without end
        (Forceless, copper, "crystal", "stability", "frames with atoms too close is"),
        (Swelling, copper, "liquid", "density", "volume"),
        (EMT, copper, "liquid", "diffusion", "diffusion of Cu in this cell is"),
        (AllToAll, copper, "crystal", "locality", "exponent of the distance is "),
        (NotExtensive, lambda: molecule("H2O"), "molecule", "locality", "excess energy of two far copies is "),
    ],
)
def test_a_broken_run_fails(calculator, system, suite, name, sentence):
    longer = CheckSettings(
        quick=True,
        equilibration=0.1,
        production=0.4,
        density_run=2.0,
        hot_run=2.0 if calculator is Forceless else 0.3,
        timestep=4.0,
        temperature={"stability": 3000.0, "diffusion": 0.05}.get(name, 300.0),
        smallest_cell=4.0,
    )
    outcome = result(name, calculator(), system(), suite, longer)
    assert outcome.verdict == "failed", outcome
    assert sentence in outcome.sentence


@pytest.mark.slow
def test_normal_mode_of_two_atoms_is_the_band_of_their_spectrum():
    dimer = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.2]])
    modes = values(result("normal modes", EMT(), dimer))
    cold = CheckSettings(quick=True, temperature=5.0, equilibration=0.2, production=4.0, timestep=4.0)
    spectrum = values(result("vibrational spectrum", EMT(), dimer, settings=cold))
    assert spectrum["mean wave number"] == pytest.approx(modes["highest vibration"], rel=0.1)


def test_a_linear_chain_of_argon_has_an_imaginary_bending_mode():
    chain = Atoms("Ar3", positions=[[0, 0, z] for z in (0, 1.12, 2.24)])
    calculator = LennardJones(epsilon=1.0, sigma=1.0)
    outcome = result("normal modes", calculator, chain)
    assert outcome.verdict == "failed"
    assert "largest imaginary wave number is" in outcome.sentence
    assert result("normal modes", calculator, Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 1.1]])).verdict == "passed"


def test_errors_on_labels_are_the_offsets_that_were_planted():
    frames = []
    for seed in range(3):
        atoms = copper(1)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        atoms.calc = SinglePointCalculator(atoms, energy=energy + 0.04, forces=forces + 0.02, stress=stress)
        frames.append(atoms)
    outcome = result("labelled errors", EMT(), copper(1), labels=frames)
    computed = values(outcome)
    assert computed["energy, mean absolute error"] == pytest.approx(10.0)  # meV/atom: 40 meV of 4 atoms
    assert computed["forces, root mean square error"] == pytest.approx(20.0)  # meV/Angstrom
    assert computed["stress, root mean square error"] == pytest.approx(0.0, abs=1e-9)
    assert result("labelled errors", EMT(), copper(1)).verdict == "not applicable"


@pytest.mark.slow
def test_runs_of_a_folder_are_read_again(tmp_path):
    first = result("radial distributions", EMT(), copper(), folder=tmp_path)
    trajectory = tmp_path / "runs" / "Cu32" / "production.traj"
    written = trajectory.stat().st_mtime_ns
    again = check(EMT(), copper(), only=["vibrational spectrum"], settings=SHORT, folder=tmp_path, resume=True)
    assert [each.name for each in again.systems[0].results] == ["vibrational spectrum", "radial distributions"]
    assert again.systems[0].results[1] == first
    assert trajectory.stat().st_mtime_ns == written
    result("radial distributions", EMT(), copper(), folder=tmp_path)
    assert trajectory.stat().st_mtime_ns > written
