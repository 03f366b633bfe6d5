"""Workflows of ASE with our calculator, a few steps each: one number of each is known in advance."""

import multiprocessing
import os
import pickle
import threading
from functools import partial

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.checkpoint import CheckpointCalculator
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.calculators.socketio import PySocketIOClient, SocketClient, SocketIOCalculator
from ase.constraints import FixAtoms, FixBondLengths, FixSymmetry
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE, LBFGS
from ase.phonons import Phonons
from ase.vibrations import Infrared, Vibrations
from structures import potential, rattled_crystal, water

import lrc_ase
from lrc_ase import LRCCalculator, load_potential, save_potential
from lrc_ase.simulation import thermalize


@pytest.fixture(scope="module")
def own_potential():
    return potential()


@pytest.fixture
def crystal(own_potential):
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(own_potential)
    return atoms


@pytest.fixture
def salt(own_potential):
    """Rock salt held together by a repulsion that the untrained model lacks."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.calc = SumCalculator([LRCCalculator(own_potential), LennardJones(sigma=2.6, epsilon=0.05, rc=6.0)])
    return atoms


@pytest.fixture
def molecule(own_potential):
    atoms = water()
    atoms.calc = LRCCalculator(own_potential)
    return atoms


@pytest.mark.parametrize("optimizer", [FIRE, BFGS, LBFGS])
def test_relaxation_of_cell_and_positions_lowers_energy_and_forces(optimizer, salt):
    salt.rattle(0.1, seed=0)
    start, forces = salt.get_potential_energy(), np.abs(salt.get_forces()).max()
    optimizer(FrechetCellFilter(salt), logfile=None).run(fmax=1e-3, steps=10)
    assert salt.get_potential_energy() < start
    assert np.abs(salt.get_forces()).max() < 0.7 * forces


def test_fixed_atoms_stay(crystal):
    crystal.set_constraint(FixAtoms([0, 3]))
    before = crystal.get_positions()
    FIRE(crystal, logfile=None).run(fmax=1e-3, steps=3)
    moved = np.abs(crystal.positions - before).max(axis=1)
    assert (moved[[0, 3]] == 0).all()
    assert moved[1] > 0


def test_fixed_bonds_keep_their_lengths_in_dynamics(molecule):
    molecule.set_constraint(FixBondLengths([(0, 1), (0, 2)]))
    before = [molecule.get_distance(0, other) for other in (1, 2)]
    thermalize(molecule, 200, np.random.default_rng(0))
    VelocityVerlet(molecule, 0.5 * units.fs).run(5)
    assert [molecule.get_distance(0, other) for other in (1, 2)] == pytest.approx(before, rel=1e-6)


def test_fixed_symmetry_stays(salt):
    salt.set_cell(salt.cell.array * [1, 1, 1.03], scale_atoms=True)
    salt.set_constraint(FixSymmetry(salt))
    BFGS(FrechetCellFilter(salt), logfile=None).run(fmax=1e-4, steps=3)
    lengths = salt.cell.lengths()
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-9)
    assert abs(lengths[2] - lengths[0]) > 1e-3


THERMOSTATS = {
    "Langevin": partial(
        Langevin, temperature_K=300, friction=0.01 / units.fs, fixcm=False, rng=np.random.default_rng(0)
    ),
    "Bussi": partial(Bussi, temperature_K=300, taut=50 * units.fs, rng=np.random.default_rng(0)),
    "NoseHooverChainNVT": partial(NoseHooverChainNVT, temperature_K=300, tdamp=50 * units.fs),
    "IsotropicMTKNPT": partial(
        IsotropicMTKNPT, temperature_K=300, pressure_au=0, tdamp=50 * units.fs, pdamp=500 * units.fs
    ),
    "MTKNPT": partial(MTKNPT, temperature_K=300, pressure_au=0, tdamp=50 * units.fs, pdamp=500 * units.fs),
}


@pytest.mark.parametrize("name", THERMOSTATS)
def test_thermostats_and_barostats_run_and_keep_what_they_conserve(name, salt):
    thermalize(salt, 300, np.random.default_rng(1))
    volume = salt.get_volume()
    integrator = THERMOSTATS[name](salt, timestep=0.5 * units.fs)
    conserved = getattr(integrator, "get_conserved_energy", None)
    before = conserved() if conserved else None
    integrator.run(20)
    assert np.isfinite(salt.get_total_energy())
    if conserved:
        assert conserved() == pytest.approx(before, abs=5e-3)
    assert (salt.get_volume() != volume) == ("NPT" in name)


def test_elastic_band(own_potential):
    """An ion passes from one side of a pair to the other; the band's ends are mirror images."""
    ends = []
    for x in (-3.0, 3.0):
        ends.append(Atoms("Na2Cl", positions=[[0, 2.0, 0], [0, -2.0, 0], [x, 0.1, 0.2]]))
    band = [ends[0], *(ends[0].copy() for _ in range(3)), ends[1]]
    band_of_images = NEB(band, method="improvedtangent", allow_shared_calculator=True)
    band_of_images.interpolate()
    shared = LRCCalculator(own_potential)
    for image in band:
        image.calc = shared
    FIRE(band_of_images, logfile=None).run(fmax=1e-3, steps=3)
    energies = [image.get_potential_energy() for image in band]
    assert energies[0] == pytest.approx(energies[-1], rel=1e-9)
    assert energies[1] == pytest.approx(energies[-2], abs=1e-3)


def test_phonons_obey_the_acoustic_sum_rule(own_potential, tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    calculator = SumCalculator([LRCCalculator(own_potential), LennardJones(sigma=2.6, epsilon=0.05, rc=6.0)])
    phonons = Phonons(atoms, calculator, supercell=(2, 2, 2), delta=0.01, name=str(tmp_path / "phonons"))
    phonons.run()
    phonons.read(acoustic=False)
    force_constants = phonons.get_force_constant()
    total = force_constants.sum(axis=0).reshape(2, 3, 2, 3).sum(axis=2)
    assert np.abs(total).max() < 1e-4 * np.abs(force_constants).max()


def test_vibrations_have_three_translations_and_infrared_intensities(molecule, tmp_path):
    vibrations = Vibrations(molecule, name=str(tmp_path / "vibrations"), delta=1e-3)
    vibrations.run()
    eigenvalues = np.linalg.eigvalsh(vibrations.get_vibrations().get_hessian_2d())
    assert np.sort(np.abs(eigenvalues))[2] < 1e-5 * np.abs(eigenvalues).max()
    infrared = Infrared(molecule, name=str(tmp_path / "infrared"), delta=1e-3)
    infrared.run()
    infrared.read()
    assert np.isfinite(infrared.intensities).all()
    assert infrared.intensities.max() > 0


def test_equation_of_state_agrees_with_the_pressure(salt):
    volumes, energies, pressures = [], [], []
    cell = salt.cell.array.copy()
    for scale in np.linspace(0.96, 1.04, 9):
        salt.set_cell(cell * scale, scale_atoms=True)
        volumes.append(salt.get_volume())
        energies.append(salt.get_potential_energy())
        pressures.append(-salt.get_stress()[:3].mean())
    _, energy, _ = EquationOfState(volumes, energies, eos="sj").fit()
    assert np.isfinite(energy)
    slopes = np.gradient(energies, volumes, edge_order=2)
    np.testing.assert_allclose(-slopes[2:-2], pressures[2:-2], rtol=0, atol=0.02 * np.abs(pressures).max())


def test_elastic_constants_by_finite_strain_are_symmetric(salt):
    """dE/de_1 under e_2 equals dE/de_2 under e_1, at the volume where both are zero and at any other."""
    cell, step = salt.cell.array.copy(), 1e-3
    stresses = {}
    for axis in (0, 1):
        strain = np.eye(3)
        strain[axis, axis] += step
        sides = []
        for deformation in (strain, 2 * np.eye(3) - strain):
            salt.set_cell(cell @ deformation, scale_atoms=True)
            sides.append(salt.get_stress())
        stresses[axis] = (sides[0] - sides[1]) / (2 * step)
    assert stresses[0][0] == pytest.approx(stresses[1][1], rel=1e-3)
    assert stresses[0][1] == pytest.approx(stresses[1][0], rel=1e-3)


def test_sum_with_a_pair_potential(own_potential):
    atoms = rattled_crystal()
    parts = [LRCCalculator(own_potential), LennardJones(sigma=2.6, epsilon=0.05, rc=6.0)]
    atoms.calc = SumCalculator(parts)
    for name in ("energy", "free_energy", "forces", "stress"):
        expected = sum(part.get_property(name, atoms) for part in parts)
        np.testing.assert_allclose(atoms.calc.get_property(name, atoms), expected, rtol=1e-12)


def test_database_rows_hold_what_was_computed(crystal, tmp_path):
    energy, forces, charges = crystal.get_potential_energy(), crystal.get_forces(), crystal.get_charges()
    with ase.db.connect(tmp_path / "rows.db") as database:
        number = database.write(crystal, note="rattled")
    row = ase.db.connect(tmp_path / "rows.db").get(number)
    assert row.calculator == "lrccalculator"
    assert row.energy == energy
    restored = row.toatoms()
    np.testing.assert_array_equal(restored.get_forces(), forces)
    np.testing.assert_array_equal(restored.get_charges(), charges)


def test_databases_and_trajectories_name_the_potential(own_potential, tmp_path, monkeypatch):
    """The stored path leads to the same numbers from any folder."""
    monkeypatch.chdir(tmp_path)
    save_potential("mine.safetensors", own_potential)
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    salt.calc = LRCCalculator("mine.safetensors", dtype="float32", electric_field=(0, 0, 0.1))
    energy = salt.get_potential_energy()
    with ase.db.connect("rows.db") as database:
        stored = database.get(database.write(salt)).calculator_parameters
    ase.io.write("frame.traj", salt)
    assert ase.io.read("frame.traj").calc.parameters == stored
    assert stored == {
        "potential": str(tmp_path / "mine.safetensors"),
        "digest": load_potential(tmp_path / "mine.safetensors").digest(),
        "dtype": "float32",
        "electric_field": [0.0, 0.0, 0.1],
    }
    monkeypatch.chdir("/")
    keywords = {name: value for name, value in stored.items() if name != "digest"}
    salt.calc = LRCCalculator(**keywords)
    assert salt.get_potential_energy() == energy


def test_shipped_potentials_are_stored_by_name():
    stored = {"potential": "nacl", "digest": load_potential("nacl").digest(), "dtype": "float64"}
    assert lrc_ase.load("nacl").todict() == LRCCalculator.from_pretrained("nacl").todict() == stored
    assert lrc_ase.load(load_potential("nacl")).todict() == stored


def test_atoms_are_pickled_with_their_calculator(crystal):
    crystal.get_forces()
    again = pickle.loads(pickle.dumps(crystal))
    assert again.get_potential_energy() == crystal.get_potential_energy()
    again.positions[0] += 0.1
    crystal.positions[0] += 0.1
    np.testing.assert_array_equal(again.get_forces(), crystal.get_forces())


def total_energy(atoms):
    """Work for another process."""
    return float(atoms.get_potential_energy())


def test_other_processes_evaluate_atoms_sent_to_them(own_potential):
    frames = [rattled_crystal(seed=seed) for seed in range(3)]
    for atoms in frames:
        atoms.calc = LRCCalculator(own_potential)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        actual = pool.map(total_energy, frames)
    assert actual == [atoms.get_potential_energy() for atoms in frames]


def test_a_socket_client_serves_the_calculator(crystal, own_potential):
    """The calculator on the far side, in a thread; ASE's socket calculator on the near one."""
    far = crystal.copy()
    far.calc = LRCCalculator(own_potential)
    near = crystal.copy()
    name = f"lrc_ase_client_{os.getpid()}"
    with SocketIOCalculator(unixsocket=name, timeout=60) as near.calc:
        client = SocketClient(unixsocket=name, timeout=60)
        thread = threading.Thread(target=client.run, args=(far, True))
        thread.start()
        for _ in range(2):
            near.positions[0] += 0.05
            crystal.positions[0] += 0.05
            assert near.get_potential_energy() == pytest.approx(crystal.get_potential_energy(), rel=1e-12)
            np.testing.assert_allclose(near.get_forces(), crystal.get_forces(), rtol=0, atol=1e-9)
            np.testing.assert_allclose(near.get_stress(), crystal.get_stress(), rtol=0, atol=1e-9)
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_ase_starts_the_calculator_as_its_socket_client(crystal, own_potential, tmp_path):
    path = tmp_path / "potential.safetensors"
    save_potential(path, own_potential)
    near = crystal.copy()
    launch = PySocketIOClient(partial(LRCCalculator, str(path)))
    name = f"lrc_ase_server_{os.getpid()}"
    with SocketIOCalculator(unixsocket=name, timeout=60, launch_client=launch) as near.calc:
        assert near.get_potential_energy() == pytest.approx(crystal.get_potential_energy(), rel=1e-12)
        process = near.calc.server.proc
    assert process.wait(timeout=60) == 0


def test_checkpoints_are_written_and_read(own_potential, tmp_path):
    frames = [rattled_crystal(seed=seed) for seed in range(2)]
    file = str(tmp_path / "checkpoints.db")
    runs = []
    for _ in range(2):
        calculator_inside = LRCCalculator(own_potential)
        calculator = CheckpointCalculator(calculator_inside, db=file)
        actual = []
        for atoms in frames:
            atoms.calc = calculator
            actual.append((atoms.get_potential_energy(), atoms.get_forces()))
        runs.append((actual, calculator_inside.neighbor_list.n_searches))
    assert [n_searches for _, n_searches in runs] == [2, 0]
    for (energy, forces), (again, forces_again) in zip(runs[0][0], runs[1][0], strict=True):
        assert energy == again
        np.testing.assert_array_equal(forces, forces_again)


def test_an_open_structure_has_no_stress_for_a_cell_filter(molecule):
    molecule.center(vacuum=5)
    with pytest.raises(PropertyNotImplementedError):
        FIRE(FrechetCellFilter(molecule), logfile=None).run(steps=1)
