"""Runs that checks declare are those that they make, and their length is announced."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

from lrc_ase.checks import CHECKS, CheckSettings, check
from lrc_ase.checks.plan import DynamicsPlan
from lrc_ase.cli.check import _plan_text
from lrc_ase.simulation.output import ThermodynamicLog

SHORT = CheckSettings(
    quick=True, equilibration=0.04, production=0.08, density_run=0.02, hot_run=0.01, smallest_cell=4.0
)


class Slow(EMT):
    """Copper whose forces take at least 20 ms."""

    def calculate(self, *arguments):
        time.sleep(0.02)
        super().calculate(*arguments)


class Failing(EMT):
    """Calculator that gives nothing."""

    def calculate(self, *arguments):
        raise CalculationFailed("no energy")


def plans_of(calculator, only, folder=None, **options) -> list[DynamicsPlan]:
    plans: list[DynamicsPlan] = []
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True)
    options = {"suite": "liquid", "only": only, "settings": SHORT, "folder": folder} | options
    check(calculator, atoms, announce=plans.append, **options)
    return plans


@pytest.mark.parametrize("name", [name for name, each in CHECKS.items() if each.runs])
def test_a_check_makes_the_runs_that_it_declares(name, tmp_path):
    atoms = {"copper": bulk("Cu", "fcc", a=3.61, cubic=True)}
    check(EMT(), atoms, suite="liquid", only=[name], single=EMT(), settings=SHORT, folder=tmp_path)
    assert {path.stem for path in tmp_path.glob("runs/copper/*.traj")} == set(CHECKS[name].runs)


def test_the_plan_of_a_crystal_counts_the_atoms_of_the_repeated_cell():
    (plan,) = plans_of(EMT(), ["stability"], suite="crystal")
    assert (plan.n_steps, plan.n_atoms) == (10, 32)  # 3.6 Angstrom, repeated to 4


def test_the_plan_counts_the_steps_of_all_runs_once_and_times_one():
    """40 + 80 + 40 + 10 fs, at 1 fs; stability and conservation share no run, spectrum and conservation do."""
    (plan,) = plans_of(Slow(), ["energy conservation", "vibrational spectrum", "stability"], single=Slow())
    assert (plan.n_steps, plan.n_atoms) == (170, 4)
    assert 0.02 < plan.seconds_per_step < 0.2
    assert plan.seconds == pytest.approx(170 * plan.seconds_per_step)


def test_finished_steps_are_not_counted_again(tmp_path):
    (plan,) = plans_of(EMT(), ["stability"], tmp_path)
    assert plan.n_steps == 10
    log = tmp_path / "runs" / "Cu4" / "hot.csv"
    assert ThermodynamicLog.read(log)["time_ps"][-1] == pytest.approx(0.01)
    (plan,) = plans_of(EMT(), ["stability", "density"], tmp_path, resume=True)
    assert plan.n_steps == 20


def test_nothing_is_announced_without_runs_or_for_a_calculator_that_fails():
    assert plans_of(EMT(), ["finite differences"]) == []
    assert plans_of(Failing(), ["stability"]) == []


@pytest.mark.parametrize(
    ("seconds", "quick", "text"),
    [
        (8000.0, False, "500 steps of 8 atoms ahead, about 2 h 13 min; --quick runs far less"),
        (8000.0, True, "500 steps of 8 atoms ahead, about 2 h 13 min"),
        (540.0, False, "500 steps of 8 atoms ahead, about 9 min"),
        (2.0, False, "500 steps of 8 atoms ahead, about 1 min"),
    ],
)
def test_the_line_of_the_plan(seconds, quick, text):
    assert _plan_text(DynamicsPlan(500, 8, seconds / 500), quick) == text
    assert np.isclose(DynamicsPlan(500, 8, seconds / 500).seconds, seconds)
