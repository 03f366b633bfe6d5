"""The shipped potential of NaCl: accuracy on frames it never saw, conservation, smoothness, and what it refuses."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

import lrc_ase
from lrc_ase import ExtrapolationWarning, LRCCalculator
from lrc_ase.files.pretrained import trained_potential
from lrc_ase.simulation import energy_drift, thermalize

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "nacl"


def melt(temperature=1200.0):
    """64 ions near 1200 K, with momenta."""
    frames = [atoms for atoms in ase.io.read(EXAMPLES / "small.extxyz", ":60") if atoms.info["state"] == "melt"]
    actual = min(frames, key=lambda atoms: abs(atoms.info["temperature"] - temperature))
    atoms = Atoms(actual.numbers, positions=actual.positions, cell=actual.cell, pbc=True)
    thermalize(atoms, temperature, np.random.default_rng(0))
    return atoms


@pytest.mark.parametrize("load", [lrc_ase.load, LRCCalculator.from_pretrained])
def test_it_loads_by_name_and_meets_its_card(load):
    """On 3 of the 15 held-out cells; the card says 10.2 meV/Angstrom and 0.43 meV/atom on all."""
    calculator = load("nacl")
    assert trained_potential("nacl").stat().st_size < 1e6
    for frame in ase.io.read(EXAMPLES / "large.extxyz", "30:33"):
        assert np.sqrt(np.mean((calculator.get_forces(frame) - frame.get_forces()) ** 2)) < 0.016
        energy = frame.get_potential_energy()
        assert abs(calculator.get_potential_energy(frame) - energy) < 1.5e-3 * len(frame)
        assert calculator.extrapolation == ()


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 2e-5), (torch.float32, 2e-5)])
def test_energy_is_conserved_at_1200_kelvin(dtype, allowed):
    """0.2 ps at 0.5 fs, through searches of neighbors; 10 ps are in tests/benchmarks/conservation.py."""
    atoms = melt()
    atoms.calc = lrc_ase.load("nacl", dtype=dtype)
    energies = [atoms.get_total_energy()]
    integrator = VelocityVerlet(atoms, 0.5 * units.fs)
    for _ in range(80):
        integrator.run(5)
        energies.append(atoms.get_total_energy())
    times = np.arange(len(energies)) * 5 * 0.5e-3
    actual = energy_drift(times, np.array(energies), len(atoms))
    assert actual.max_deviation < allowed
    assert atoms.calc.neighbor_list.n_searches > 10


def test_a_scan_of_volumes_has_no_step_above_the_accuracy_asked_for():
    """Over -5 % to +5 %, through a change of the mesh: a smooth function has no third differences to speak of."""
    atoms = melt()
    atoms.set_cell(3 * [14.0], scale_atoms=True)
    atoms.calc = lrc_ase.load("nacl")
    accuracy = atoms.calc.model.settings.long_range.accuracy
    cell = atoms.cell.array.copy()
    energies, forces, meshes = [], [], set()
    for scale in np.linspace(0.998, 1.002, 25):  # steps of volume as in 1000 of them over the whole range
        atoms.set_cell(cell * scale ** (1 / 3), scale_atoms=True)
        energies.append(atoms.get_potential_energies())
        forces.append(atoms.get_forces())
        meshes.add(atoms.calc.neighbor_list.graph(atoms).mesh_shapes)
    assert len(meshes) == 2
    # a step s makes third differences s, -2 s, s
    step = np.abs(np.diff(np.sum(energies, axis=1), n=3)).max() / 2
    assert 0 < step < accuracy * len(atoms)
    steps = np.sqrt(np.mean(np.diff(forces, n=3, axis=0) ** 2, axis=(1, 2))) / 2
    assert steps.max() < accuracy * np.sqrt(np.mean(np.square(forces)))


def test_forces_pass_through_searches_of_neighbors_without_a_step():
    atoms = melt()
    atoms.calc = lrc_ase.load("nacl")
    fresh = lrc_ase.load("nacl", skin=0.0)
    integrator = VelocityVerlet(atoms, 1.0 * units.fs)
    before, n_compared = atoms.copy(), 0
    for _ in range(60):
        before.positions[:] = atoms.positions
        n_searches, forces = atoms.calc.neighbor_list.n_searches, atoms.get_forces()
        integrator.run(1)
        if atoms.calc.neighbor_list.n_searches > n_searches:  # `before` was the last of the old list
            np.testing.assert_allclose(fresh.get_forces(before), forces, rtol=0, atol=1e-12)
            n_compared += 1
    assert n_compared >= 2


@pytest.mark.parametrize("ensemble", ["melt", "crystal"])
def test_dynamics_stays_inside_the_training_set(ensemble):
    atoms = melt() if ensemble == "melt" else bulk("NaCl", "rocksalt", a=5.65, cubic=True) * 2
    atoms.calc = lrc_ase.load("nacl")
    rng = np.random.default_rng(1)
    thermalize(atoms, 800.0, rng)
    Langevin(atoms, 2 * units.fs, temperature_K=800.0, friction=0.02 / units.fs, fixcm=False, rng=rng).run(60)
    assert atoms.calc.extrapolation == ()
    assert atoms.get_temperature() < 1600


def test_what_lies_far_outside_is_flagged():
    calculator = lrc_ase.load("nacl")
    with pytest.warns(ExtrapolationWarning, match=r"has 1 neighbors within the cutoff, atoms in training had 8 to 29"):
        calculator.get_forces(Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.4]]))
    assert calculator.extrapolation
    squeezed = bulk("NaCl", "rocksalt", a=2.8, cubic=True)
    with pytest.warns(ExtrapolationWarning) as caught:
        calculator.get_forces(squeezed)
    assert any("closest such pair in training was 1.83" in str(warning.message) for warning in caught)
    assert any("are 1.400 Angstrom apart" in reason for reason in calculator.extrapolation)


def test_a_model_of_another_precision_is_the_same_potential():
    atoms = melt()
    double, single = (lrc_ase.load("nacl", dtype=dtype).get_forces(atoms) for dtype in (torch.float64, torch.float32))
    assert np.abs(double - single).max() < 1e-4 * np.abs(double).max()
