"""Runs of consecutive frames: trajectories are recognized, structures in random order are not."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.md.verlet import VelocityVerlet

from lrc_ase.dataset import LabelledFrame, Lazy, consecutive_runs
from lrc_ase.dataset.consecutive import displacements


def unlabelled(structures):
    return [
        LabelledFrame(atoms, np.nan, np.full((len(atoms), 3), np.nan), np.full((3, 3), np.nan), "frame")
        for atoms in structures
    ]


def dynamics(atoms, calculator, n_frames, *, interval, seed=0):
    """Structures of molecular dynamics at 600 K, `interval` femtoseconds apart."""
    atoms = atoms.copy()
    atoms.calc = calculator
    rng = np.random.default_rng(seed)
    spread = np.sqrt(600 * units.kB * atoms.get_masses())[:, None]
    atoms.set_momenta(spread * rng.normal(size=(len(atoms), 3)))
    simulation = VelocityVerlet(atoms, units.fs)
    simulation.run(50)
    structures = []
    for _ in range(n_frames):
        simulation.run(interval)
        structures.append(atoms.copy())
    return structures


def rattled(atoms, n_frames, first_seed=0):
    structures = []
    for number in range(n_frames):
        structures.append(atoms.copy())
        structures[-1].rattle(0.1, seed=first_seed + number)
    return structures


COPPER = bulk("Cu", cubic=True) * (2, 1, 1)
NITROGEN = Atoms("N2", positions=[[0, 0, 0], [1.1, 0, 0]])


@pytest.mark.parametrize("interval", [1, 5, 20])
def test_dynamics_of_a_crystal_is_one_run(interval):
    frames = unlabelled(dynamics(COPPER, EMT(), 25, interval=interval))
    assert consecutive_runs(frames) == [range(25)]
    assert consecutive_runs(Lazy(25, frames.__getitem__)) == [range(25)]


def test_dynamics_of_a_diatomic_molecule_is_one_run():
    morse = MorsePotential(epsilon=9.8, r0=1.1, rho0=2.9)
    assert consecutive_runs(unlabelled(dynamics(NITROGEN, morse, 40, interval=3))) == [range(40)]


def test_wrapped_and_drifting_trajectories_are_runs():
    structures = dynamics(COPPER, EMT(), 20, interval=5)
    for number, atoms in enumerate(structures):
        atoms.positions += 0.4 * number
        atoms.wrap()
        atoms.set_cell(atoms.cell.array * (1 + 0.002 * number), scale_atoms=True)
    assert consecutive_runs(unlabelled(structures)) == [range(20)]


def test_trajectories_of_different_atoms_are_different_runs():
    structures = dynamics(COPPER, EMT(), 12, interval=5)
    more = dynamics(COPPER * (1, 2, 1), EMT(), 10, interval=5)
    mixed = [*structures, molecule("H2O"), *more]
    assert consecutive_runs(unlabelled(mixed)) == [range(12), range(13, 23)]


def test_a_jump_between_structures_ends_a_run():
    far = dynamics(bulk("Cu", "bcc", a=2.9, cubic=True) * (2, 2, 1), EMT(), 12, interval=5)
    near = dynamics(COPPER, EMT(), 12, interval=5)
    assert consecutive_runs(unlabelled([*near, *far])) == [range(12), range(12, 24)]


@pytest.mark.parametrize("atoms", [COPPER, NITROGEN, molecule("H2O")], ids=["crystal", "diatomic", "water"])
@pytest.mark.parametrize("n_frames", [3, 8, 60])
def test_structures_in_random_order_form_no_runs(atoms, n_frames):
    for seed in range(5):
        assert consecutive_runs(unlabelled(rattled(atoms, n_frames, 1000 * seed))) == []


def test_two_phases_of_rattled_structures_form_no_runs():
    dense = bulk("Cu", a=3.3, cubic=True) * (2, 1, 1)
    assert consecutive_runs(unlabelled([*rattled(COPPER, 40), *rattled(dense, 40, 500)])) == []


def test_a_shuffled_trajectory_forms_no_runs():
    structures = dynamics(COPPER, EMT(), 40, interval=10)
    order = np.random.default_rng(0).permutation(40)
    assert consecutive_runs(unlabelled([structures[place] for place in order])) == []


def test_a_slow_turn_of_unlike_shapes_is_no_run():
    structures = rattled(molecule("CH3CH2OH"), 60)
    for number, atoms in enumerate(structures):
        atoms.rotate(10 * number, (1, 2, 3), center=(0, 0, 0))
    assert consecutive_runs(unlabelled(structures)) == []


def test_a_molecule_whose_shape_changes_slowly_is_one_run_however_it_turns():
    structures = []
    for number in range(40):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.1, seed=1)
        atoms.positions += 0.02 * number * (atoms.positions - molecule("CH3CH2OH").positions)
        atoms.rotate(77 * number, (1, 2, 3), center=(0, 0, 0))
        structures.append(atoms)
    assert consecutive_runs(unlabelled(structures)) == [range(40)]


def test_too_few_frames_and_absurd_positions_form_no_runs():
    assert consecutive_runs([]) == []
    assert consecutive_runs(unlabelled([COPPER])) == []
    assert consecutive_runs(unlabelled([COPPER, COPPER])) == []
    broken = rattled(COPPER, 12)
    for atoms in broken:
        atoms.positions[0] = np.nan
    assert consecutive_runs(unlabelled(broken)) == []


def test_displacements_are_to_the_nearest_image_along_periodic_directions_only():
    one = Atoms("Cu2", positions=[[0.1, 0, 0], [1, 1, 1]], cell=[4, 5, 6], pbc=[True, True, False])
    two = one.copy()
    two.positions[0] += [4 - 0.2, -5 + 0.1, 6]
    assert displacements(one, two) == pytest.approx(np.array([[-0.2, 0.1, 6], [0, 0, 0]]))
