"""Exploration: which walkers run, where they go on, and the frames that are chosen from what they met."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from learn_runs import content, crystal, ensemble

from lrc_ase import LRCCalculator
from lrc_ase.learning.exploration import ATTEMPTS, choose_frames, explore, levels, time_step
from lrc_ase.learning.settings import ExplorationSettings, FirstFramesSettings, parse_settings
from lrc_ase.learning.starts import first_frames, read_starts, shortest_distance
from lrc_ase.learning.training_steps import single_members
from lrc_ase.learning.walker import Plan, run_walker
from lrc_ase.structures.charge import total_charge


def test_time_step_follows_the_lightest_mass():
    settings = ExplorationSettings()
    assert time_step([molecule("H2O")], settings) == 0.5
    assert time_step([bulk("Al")], settings) == 2.6  # 0.5 sqrt(26.98)
    assert time_step([bulk("Au"), bulk("Pt")], settings) == 4.0
    assert time_step([bulk("Au")], ExplorationSettings(timestep=1.5)) == 1.5


def test_walkers_are_spread_over_the_temperatures():
    assert levels(ExplorationSettings(temperatures=(300, 900)), 3) == [900, 600, 300]
    assert levels(ExplorationSettings(temperatures=500), 2) == [500, 500]
    assert levels(ExplorationSettings(temperatures=(300, 900)), 1) == [900]


def exploration(tmp_path, threshold=1e3, previous=(), iteration=0, correction=1.0, **changes):
    settings = parse_settings(content(tmp_path, **changes))
    starts = read_starts(settings.starts)
    return explore(
        ensemble(), starts, settings, previous, threshold=threshold, correction=correction, iteration=iteration
    )


def test_an_exploration_without_alarm_is_complete_and_goes_on_from_its_ends(tmp_path):
    first = exploration(tmp_path)
    assert first.complete
    assert (first.runs, first.alarms, first.explosions) == (2, 0, 0)
    assert first.picoseconds == pytest.approx(2 * 0.0208)  # 8 steps of 2.6 fs
    assert {atoms.info["walker"] for atoms in first.snapshots} == {0, 1}
    assert [atoms.info["cycle"] for atoms in first.walkers] == [1, 1]
    second = exploration(tmp_path, previous=first.walkers, iteration=1)
    # cooled or heated from where the first run ended
    assert [second.walkers[0].info[f"{end}_temperature"] for end in ("first", "last")] == [600, 300]
    third = exploration(tmp_path, previous=second.walkers, iteration=2)
    assert [atoms.info["cycle"] for atoms in third.walkers] == [3, 3]
    assert third.snapshots[0].info["temperature"] == first.snapshots[0].info["temperature"]
    assert not np.array_equal(third.snapshots[0].positions, first.snapshots[0].positions)


def test_an_exploration_repeats_itself(tmp_path):
    first, second = exploration(tmp_path), exploration(tmp_path)
    for one, other in zip(first.snapshots, second.snapshots, strict=True):
        assert np.array_equal(one.positions, other.positions)


def test_members_of_the_ensemble_take_turns_in_moving_walkers(tmp_path):
    potential = ensemble()
    members = single_members(potential)
    settings = parse_settings(content(tmp_path, exploration__temperatures=[300.0]))
    result = explore(potential, read_starts(settings.starts), settings, (), threshold=1e3, iteration=0)
    for walker, member in enumerate(members):
        (atoms,) = read_starts(settings.starts)
        atoms.calc = LRCCalculator(member, dtype="float32")
        plan = Plan(
            first_temperature=300.0,
            last_temperature=300.0,
            pressure=0.0,
            friction=0.01,
            relative_threshold=1.0,
            correction=1.0,
            steps=8,
            timestep=2.6,
            snapshots=4,
            check_every=1,
            threshold=1e3,
            start_volume=atoms.get_volume(),
        )
        alone = run_walker(
            atoms, plan, np.random.default_rng([0, 0, walker]), ensemble=LRCCalculator(potential, dtype="float32")
        )
        end = [frame for frame in result.snapshots if frame.info["walker"] == walker][-1]
        np.testing.assert_allclose(end.positions, alone.last.positions, atol=1e-6)


def test_walkers_that_stop_at_once_are_tried_again_and_end(tmp_path):
    result = exploration(tmp_path, 1e-9, frames_per_iteration=100, exploration__relative_threshold=0.0)
    assert result.runs == 2 * ATTEMPTS
    assert result.alarms == result.runs
    assert not result.complete
    assert [atoms.info["step"] for atoms in result.walkers] == [0, 0]


def test_a_correction_keeps_walkers_where_the_true_error_is_below_the_threshold(tmp_path):
    """A teacher that differs from the mean by four times the deviations, whatever they are."""
    wrong, length = 4.0, {"exploration__length": 0.1, "exploration__relative_threshold": 0.0}
    largest = max(atoms.info["deviation"] for atoms in exploration(tmp_path, **length).snapshots)
    threshold = 2 * largest  # above all deviations, and half of the largest true error
    free = exploration(tmp_path, threshold, **length)
    assert free.alarms == 0
    assert max(wrong * atoms.info["deviation"] for atoms in free.snapshots) > threshold
    held = exploration(tmp_path, threshold, correction=wrong, **length)
    assert held.alarms == held.runs
    calm = [atoms.info["deviation"] for atoms in held.snapshots if "alarm" not in atoms.info]
    assert max(calm, default=0.0) <= threshold
    assert held.picoseconds / held.runs < free.picoseconds / free.runs


def test_a_walker_goes_on_where_it_stopped(tmp_path):
    calm = exploration(tmp_path)
    stopped = calm.walkers[0].copy()
    stopped.info.update(step=5, cycle=0, first_temperature=300.0, last_temperature=600.0)
    result = exploration(tmp_path, previous=[stopped, calm.walkers[1]], iteration=1)
    assert not result.complete  # the first walker ran a part alone
    assert min(atoms.info["step"] for atoms in result.snapshots if atoms.info["walker"] == 0) == 6


def test_walkers_keep_the_charge_of_their_start(tmp_path):
    ion = crystal()
    ion.info["charge"] = 1.0
    ion.write(tmp_path / "start.extxyz")
    first = exploration(tmp_path)
    stopped = exploration(tmp_path, threshold=1e-9, iteration=1)
    for atoms in [*first.walkers, *stopped.walkers]:
        assert total_charge(atoms) == 1
    second = exploration(tmp_path, previous=first.walkers, iteration=2)
    assert {total_charge(atoms) for atoms in second.snapshots} == {1}


def test_time_that_is_over_leaves_walkers_where_they_are(tmp_path):
    calm = exploration(tmp_path)
    settings = parse_settings(content(tmp_path))
    result = explore(
        ensemble(),
        read_starts(settings.starts),
        settings,
        calm.walkers,
        threshold=1e3,
        iteration=1,
        out_of_time=lambda: True,
    )
    assert not result.complete
    assert result.runs == 0
    assert all(first == second for first, second in zip(result.walkers, calm.walkers, strict=True))


def test_time_that_is_over_within_a_run_leaves_a_state_to_go_on_from(tmp_path):
    settings = parse_settings(content(tmp_path))
    answers = iter([False, False, False, False, True, True])  # before the first run, and after steps 0, 1, 2 and 3
    result = explore(
        ensemble(),
        read_starts(settings.starts),
        settings,
        (),
        threshold=1e3,
        iteration=0,
        out_of_time=lambda: next(answers),
    )
    assert (result.runs, result.complete, result.alarms) == (1, False, 0)
    assert [atoms.info["step"] for atoms in result.walkers] == [3]


def test_frames_are_drawn_at_random_and_chosen_and_held_out(tmp_path):
    snapshots = exploration(tmp_path, exploration__length=0.2).snapshots
    snapshots[-1].info["alarm"] = "deviation"
    settings = parse_settings(content(tmp_path, random_fraction=0.5))
    frames = choose_frames(ensemble(), snapshots, [], settings, 6, np.random.default_rng(0))
    assert [atoms.info["origin"] for atoms in frames] == ["random"] * 3 + ["chosen"] * 3
    assert [atoms.info["held_out"] for atoms in frames] == [True, True, False, False, False, False]
    assert all("alarm" not in atoms.info for atoms in frames[:3])
    assert len({atoms.positions.tobytes() for atoms in frames}) == 6
    assert not any("momenta" in atoms.arrays for atoms in frames)


def test_frames_held_out_come_from_any_walker(tmp_path):
    snapshots = exploration(tmp_path).snapshots
    assert [snapshots[index].info["walker"] for index in (0, -1)] == [0, 1]
    settings = parse_settings(content(tmp_path, random_fraction=1.0))
    held_out = {
        frame.info["walker"]
        for seed in range(8)
        for frame in choose_frames(ensemble(), snapshots, [], settings, 4, np.random.default_rng(seed))
        if frame.info["held_out"]
    }
    assert held_out == {0, 1}


def test_first_frames_are_displaced_and_strained_by_the_amounts_of_the_settings():
    start = crystal() * (2, 2, 2)
    rng = np.random.default_rng(0)
    frames = first_frames([start], FirstFramesSettings(rattle=0.1, strain=0.0), 30, rng)
    sizes = np.array([(atoms.positions - start.positions).std() for atoms in frames]) / shortest_distance(start)
    assert sizes[0] == pytest.approx(0.01, rel=0.2)
    assert 0.08 < sizes.max() < 0.115
    frames = first_frames([start], FirstFramesSettings(rattle=0.0, strain=0.05), 60, rng)
    growth = np.array([atoms.get_volume() / start.get_volume() for atoms in frames])
    assert growth[0] == pytest.approx(1)
    assert 1.2 < growth.max() < 1.16**3
    assert 0.9**3 < growth.min() < 0.95**3
    for atoms in frames:
        np.testing.assert_allclose(atoms.get_scaled_positions(), start.get_scaled_positions(), atol=1e-9)


def test_strains_of_slabs_leave_the_vacuum_and_molecules_have_none():
    slab = bulk("Al", cubic=True)
    slab.pbc = (True, True, False)
    strained = first_frames([slab], FirstFramesSettings(rattle=0.0), 5, np.random.default_rng(0))[-1]
    np.testing.assert_allclose(strained.cell.array[2], slab.cell.array[2], atol=1e-12)
    np.testing.assert_allclose(strained.positions[:, 2], slab.positions[:, 2], atol=1e-12)
    assert not np.allclose(strained.cell.array[:2], slab.cell.array[:2])
    water = molecule("H2O")
    still = first_frames([water], FirstFramesSettings(rattle=0.0), 3, np.random.default_rng(0))[-1]
    np.testing.assert_array_equal(still.positions, water.positions)


def test_starts_that_cannot_be_used(tmp_path):
    near = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.1]])
    near.write(tmp_path / "near.xyz")
    with pytest.raises(ValueError, match=r"two atoms are 0.10 Angstrom apart; is it in Angstrom\?"):
        read_starts([str(tmp_path / "near.xyz")])
    flat = Atoms("Al", pbc=True)
    flat.write(tmp_path / "flat.traj")
    with pytest.raises(ValueError, match="is periodic but its cell vectors are zero or dependent"):
        read_starts([str(tmp_path / "flat.traj")])
    labelled = crystal()
    labelled.calc = EMT()
    labelled.get_forces()
    labelled.write(tmp_path / "labelled.traj")
    assert read_starts([str(tmp_path / "labelled.traj")])[0].calc is None


def test_starts_keep_charge_and_magnetic_moments_alone(tmp_path):
    start = crystal()
    start.info = {"charge": 1, "adsorbate_info": {"cell": [1, 2]}, "energy_of_mine": 3.0}
    start.set_initial_magnetic_moments([1, 2, 3, 4])
    start.set_velocities(np.ones((4, 3)))
    start.set_array("REF_forces", np.zeros((4, 3)))
    start.write(tmp_path / "start.traj")
    (read,) = read_starts([str(tmp_path / "start.traj")])
    assert set(read.info) == {"charge", "lrc_ase_source"}
    assert set(read.arrays) == {"numbers", "positions", "initial_magmoms"}
