"""Walkers: conditions, alarms, explosions, what they keep, and the frames that are chosen from it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from learn_runs import content, crystal, ensemble

from lrc_ase.learning.exploration import ATTEMPTS, choose_frames, explore, levels, time_step
from lrc_ase.learning.settings import ExplorationSettings, FirstFramesSettings, parse_settings
from lrc_ase.learning.starts import first_frames, read_starts, shortest_distance
from lrc_ase.learning.walker import Plan, force_deviation, rescale_cell, run_walker

PLAN = Plan(
    first_temperature=300.0,
    last_temperature=900.0,
    pressure=None,
    steps=40,
    timestep=2.0,
    friction=0.01,
    snapshots=5,
    threshold=0.1,
    relative_threshold=0.0,
    start_volume=66.4,
)


class Springs(Calculator):
    """Independent springs to the first positions; the deviation of the forces is that of a function of the step."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, deviation=lambda step: 0.01, *, stiffness=5.0, domain=lambda step: ()):
        super().__init__()
        self.deviation, self.stiffness, self.domain = deviation, stiffness, domain
        self.center, self.step = None, -1

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.center is None:
            self.center = atoms.positions.copy()
        self.step += 1
        shift = atoms.positions - self.center
        self.results = {
            "energy": 0.5 * self.stiffness * float((shift**2).sum()),
            "forces": -self.stiffness * shift,
            "stress": np.zeros(6),
        }

    def get_forces_std(self):
        return np.full((len(self.atoms), 3), self.deviation(self.step))

    @property
    def extrapolation(self):
        return self.domain(self.step)


def walk(calculator, plan=PLAN, **options):
    atoms = crystal()
    atoms.calc = calculator
    return run_walker(atoms, plan, np.random.default_rng(0), **options)


def test_deviation_of_a_frame_is_that_of_its_worst_atom():
    assert force_deviation(np.array([[0.1, 0.1, 0.1], [0.3, 0.0, 0.0]])) == pytest.approx(0.3 / np.sqrt(3))


def test_temperature_rises_in_the_first_half_and_is_held():
    assert [PLAN.temperature(step) for step in (0, 10, 20, 30, 40)] == [300, 600, 900, 900, 900]


def test_a_calm_walk_has_its_whole_length_and_all_snapshots():
    result = walk(Springs())
    assert result.steps == 40
    assert not result.alarm
    assert 5 <= len(result.snapshots) < 10
    assert result.last is result.snapshots[-1]
    assert result.last.info["step"] == 40
    assert result.last.info["temperature"] == 900


def test_an_alarm_stops_the_walk_and_keeps_its_frame():
    result = walk(Springs(lambda step: 0.2 if step == 7 else 0.05))
    assert result.steps == 7
    assert result.alarm == "deviation 0.200 above 0.100 eV/Angstrom"
    assert not result.exploded
    assert result.snapshots[-1].info["alarm"] == "deviation"
    assert result.snapshots[-1].info["deviation"] == pytest.approx(0.2)
    assert result.last.info["step"] < 7


def test_hot_structures_bear_larger_deviations():
    """A structure with a root mean square force F does not stop below a part of F."""
    plan = replace(PLAN, threshold=1e-3, relative_threshold=0.25)
    atoms = crystal()
    calculator = Springs(lambda step: 0.2)
    calculator.center = atoms.positions + 0.2  # F = 1 eV/Angstrom at first
    atoms.calc = calculator
    result = run_walker(atoms, plan, np.random.default_rng(0))
    assert result.steps > 0
    forces = 5.0 * (result.snapshots[-1].positions - calculator.center)
    limit = 0.25 * np.sqrt(np.mean(forces**2))
    assert limit < 0.2
    assert result.alarm == f"deviation 0.200 above {limit:.3f} eV/Angstrom"


def test_leaving_the_domain_is_an_alarm():
    result = walk(Springs(domain=lambda step: ("atoms 1 and 2 are near",) if step == 3 else ()))
    assert (result.steps, result.alarm) == (3, "atoms 1 and 2 are near")
    assert result.snapshots[-1].info["alarm"] == "domain"


def test_a_walk_that_stops_at_once_has_no_state_to_go_on_from():
    result = walk(Springs(lambda step: 1.0))
    assert (result.steps, result.last, len(result.snapshots)) == (0, None, 1)


@pytest.mark.parametrize(
    ("calculator", "plan", "reason"),
    [
        (Springs(stiffness=-5e3), PLAN, "the temperature reached"),
        (Springs(lambda step: np.nan if step > 4 else 0.01), PLAN, "not finite"),
        (Springs(), replace(PLAN, pressure=0.0, start_volume=10.0), r"the volume changed by a factor of 6\.64"),
    ],
)
def test_explosions_end_a_walk_with_the_last_sane_frame(calculator, plan, reason):
    result = walk(calculator, plan)
    assert result.exploded
    assert re.search(reason, result.alarm)
    assert result.snapshots[-1].info["alarm"] == "before an explosion"
    assert np.abs(result.snapshots[-1].positions - crystal().positions).max() < 2.0


def test_a_calculator_that_fails_is_an_explosion():
    class Failing(Springs):
        def calculate(self, *arguments):
            super().calculate(*arguments)
            if self.step == 5:
                raise ValueError("no neighbors")

    result = walk(Failing())
    assert result.exploded
    assert result.alarm == "the calculator failed: no neighbors"


def test_the_barostat_samples_the_volume_of_an_ideal_gas():
    """Without forces, <V> = (N + 1) kT / P and std(V) / <V> = 1 / sqrt(N + 1) for rescaled momenta of N atoms."""

    class Nothing(Springs):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            Calculator.calculate(self, atoms, properties, system_changes)
            self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}

    n_atoms, temperature, pressure = 20, 2000.0, 2.0
    expected = (n_atoms + 1) * units.kB * temperature / (pressure * units.GPa)
    atoms = Atoms(f"Al{n_atoms}", cell=np.eye(3) * expected ** (1 / 3), pbc=True)
    atoms.calc = Nothing()
    plan = replace(PLAN, first_temperature=temperature, last_temperature=temperature, pressure=pressure, timestep=10.0)
    rng = np.random.default_rng(1)
    scale = np.sqrt(atoms.get_masses()[:, None] * units.kB * temperature)
    volumes = []
    for step in range(6000):
        atoms.set_momenta(scale * rng.standard_normal((n_atoms, 3)))
        rescale_cell(atoms, plan, step, rng)
        volumes.append(atoms.get_volume())
    volumes = np.array(volumes[500:])
    assert volumes.mean() == pytest.approx(expected, rel=0.05)
    assert volumes.std() / volumes.mean() == pytest.approx(1 / np.sqrt(n_atoms + 1), rel=0.15)


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


def exploration(tmp_path, threshold=1e3, previous=(), iteration=0, **changes):
    settings = parse_settings(content(tmp_path, **changes))
    starts = read_starts(settings.starts)
    return explore(ensemble(), starts, settings, previous, threshold=threshold, iteration=iteration)


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


def test_walkers_that_stop_at_once_are_tried_again_and_end(tmp_path):
    result = exploration(tmp_path, 1e-9, frames_per_iteration=100, exploration__relative_threshold=0.0)
    assert result.runs == 2 * ATTEMPTS
    assert result.alarms == result.runs
    assert not result.complete
    assert [atoms.info["step"] for atoms in result.walkers] == [0, 0]


def test_a_walker_goes_on_where_it_stopped(tmp_path):
    calm = exploration(tmp_path)
    stopped = calm.walkers[0].copy()
    stopped.info.update(step=5, cycle=0, first_temperature=300.0, last_temperature=600.0)
    result = exploration(tmp_path, previous=[stopped, calm.walkers[1]], iteration=1)
    assert not result.complete  # the first walker ran a part alone
    assert min(atoms.info["step"] for atoms in result.snapshots if atoms.info["walker"] == 0) == 6


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
