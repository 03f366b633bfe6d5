"""Walkers: conditions, alarms, explosions, and what they keep."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from learn_runs import crystal

from lrc_ase.learning.walker import Plan, force_deviation, rescale_cell, run_walker

PLAN = Plan(
    first_temperature=300.0,
    last_temperature=900.0,
    pressure=None,
    steps=40,
    timestep=2.0,
    friction=0.01,
    snapshots=5,
    check_every=1,
    threshold=0.1,
    relative_threshold=0.0,
    correction=1.0,
    start_volume=66.4,
)


class Springs(Calculator):
    """Independent springs to the first positions; the deviation of the forces is that of a function of the step."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, deviation=lambda step: 0.01, *, stiffness=5.0, domain=lambda step: ()):
        super().__init__()
        self.deviation, self.stiffness, self.domain = deviation, stiffness, domain
        self.center, self.step, self.looks = None, -1, 0

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

    def get_forces_std(self, atoms=None):
        self.looks += 1
        return np.full((len(self.atoms if atoms is None else atoms), 3), self.deviation(self.step))

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


def test_a_walk_that_is_out_of_time_ends_and_can_go_on():
    calculator = Springs()
    result = walk(calculator, replace(PLAN, check_every=4), out_of_time=lambda: calculator.step > 20)
    assert result.steps == 24
    assert not result.finished
    assert not result.alarm
    assert result.last.info["step"] == 24
    assert walk(Springs()).finished


def test_an_alarm_stops_the_walk_and_keeps_its_frame():
    result = walk(Springs(lambda step: 0.2 if step == 7 else 0.05))
    assert result.steps == 7
    assert result.alarm == "deviation 0.200 above 0.100 eV/Angstrom"
    assert not result.exploded
    assert result.snapshots[-1].info["alarm"] == "deviation"
    assert result.snapshots[-1].info["deviation"] == pytest.approx(0.2)
    assert result.last.info["step"] < 7


@pytest.mark.parametrize(("correction", "step"), [(1.0, 11), (4.0, 3)])
def test_deviations_that_were_too_small_before_stop_a_walk_earlier(correction, step):
    """The true error is four times the deviation, which grows by 0.01 per step: 0.1 is passed at step 3."""
    result = walk(Springs(lambda step: 0.01 * step), replace(PLAN, correction=correction))
    assert result.steps == step
    assert result.snapshots[-1].info["deviation"] == pytest.approx(0.01 * step * correction)


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


def test_the_ensemble_looks_at_a_walker_now_and_then():
    """A member moves the atoms; the ensemble sees steps 0, 8, 16 and so on, and the last one."""

    class Ensemble(Springs):
        def get_forces_std(self, atoms=None):
            seen.append(atoms.positions.copy())
            return super().get_forces_std(atoms)

    seen, member = [], Springs()
    result = walk(member, replace(PLAN, steps=42, check_every=8, snapshots=100), ensemble=Ensemble())
    assert member.looks == 0
    assert [atoms.info["step"] for atoms in result.snapshots] == [8, 16, 24, 32, 40, 42]
    assert len(seen) == 7
    np.testing.assert_array_equal(seen[-1], result.snapshots[-1].positions)
    # a member that leaves the training domain is looked at in between
    result = walk(
        Springs(domain=lambda step: ("near",) if step == 3 else ()), replace(PLAN, check_every=8), ensemble=Springs()
    )
    assert (result.steps, result.alarm) == (3, "near")


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


def test_the_last_sane_frame_is_kept_once():
    result = walk(Springs(lambda step: np.nan if step == 8 else 0.01))
    assert result.exploded
    assert len({id(frame) for frame in result.snapshots}) == len(result.snapshots) == 7
    assert [frame.info["step"] for frame in result.snapshots] == list(range(1, 8))
    assert result.last.info["step"] == 6  # not the frame that exploded


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
