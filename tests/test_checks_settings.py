"""Settings of the checks reach the runs, and results survive their way through JSON."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from lrc_ase.checks import SUITES, Candidate, CheckResult, CheckSettings, Curve, Figure, Quantity, Subject, check, runs
from lrc_ase.checks.subject import kind_of
from lrc_ase.simulation import thermalize
from lrc_ase.simulation.output import ThermodynamicLog
from lrc_ase.structures.charge import total_charge


@pytest.fixture
def ran(monkeypatch):
    """Runs that were asked for: atoms and settings by the name of the trajectory, each made of one frame."""
    asked = {}

    def instead(atoms, settings, trajectory, *, report, **options):
        thermalize(atoms, 300.0, np.random.default_rng(0))
        asked[trajectory.stem] = (atoms, settings)
        total = atoms.get_total_energy() + np.array([7.0, 7.0, 0.5, 1.5])
        table = "".join(f"{step},0,0,0,{energy},0,0,0,0\n" for step, energy in enumerate(total))
        trajectory.with_suffix(".csv").write_text(",".join(ThermodynamicLog.columns) + "\n" + table)
        atoms.write(trajectory)

    monkeypatch.setattr(runs, "run_md", instead)
    return asked


CASES = {
    "temperature": (700.0, "production", lambda atoms, md: md["equilibration"][1].temperature),
    "timestep": (0.25, "production", lambda atoms, md: md["production"][1].timestep),
    "equilibration": (0.5, "production", lambda atoms, md: md["equilibration"][1].steps * 1e-3),
    "production": (0.6, "production", lambda atoms, md: md["production"][1].steps * 1e-3),
    "density_run": (0.7, "constant_pressure", lambda atoms, md: md["constant-pressure"][1].steps * 1e-3),
    "hot_run": (0.8, "hot", lambda atoms, md: md["hot"][1].steps * 1e-3),
    "seed": (5, "hot", lambda atoms, md: md["hot"][1].seed),
    "smallest_cell": (7.0, "hot", lambda atoms, md: {32: 7.0}.get(len(md["hot"][0]))),
    "quick": (True, "hot", lambda atoms, md: md["hot"][1].steps == 4000),
}


def test_every_setting_has_a_case():
    assert {each.name for each in fields(CheckSettings)} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_setting_reaches_its_run(name, ran, tmp_path):
    value, run, read = CASES[name]
    for settings, expected in ((CheckSettings(**{name: value}), True), (CheckSettings(), False)):
        ran.clear()
        atoms = bulk("Cu", "fcc", a=3.61, cubic=True)
        getattr(runs, run)(Subject(Candidate.of(EMT()), atoms, "crystal", tmp_path / str(expected), settings))
        assert (read(atoms, ran) == pytest.approx(value)) == expected


def test_a_run_at_constant_energy_has_the_mean_energy_of_the_thermostat(ran, tmp_path):
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True)
    start = runs.equilibrated(Subject(Candidate.of(EMT()), atoms, "crystal", tmp_path, CheckSettings()))
    last, _ = ran["equilibration"]
    # the second half of the table of `ran` lies 1 eV above its end
    assert start.get_total_energy() == pytest.approx(last.get_total_energy() + 1.0)
    assert np.abs(start.get_momenta().sum(axis=0)).max() < 1e-10


@pytest.mark.parametrize("name", ["charge", "total_charge"])
def test_a_repeated_crystal_has_its_charge_as_often(name, ran, tmp_path):
    pytest.importorskip("spglib")
    primitive = bulk("Cu", "fcc", a=3.61)
    primitive.info[name] = 0.25
    settings = CheckSettings(smallest_cell=7.0, equilibration=0.1, production=0.1)
    runs.production(Subject(Candidate.of(EMT()), primitive, "crystal", tmp_path, settings))
    for atoms, _ in ran.values():
        assert total_charge(atoms) == pytest.approx(0.25 * len(atoms) / len(primitive))
        assert len(atoms) == 32


def test_temperature_and_kind_come_from_the_structure(tmp_path):
    atoms = molecule("H2O")
    subject = Subject(Candidate.of(EMT()), atoms, "molecule", tmp_path, CheckSettings())
    assert (subject.temperature, subject.timestep) == (300.0, 0.5)
    atoms.info["temperature"] = 450.0
    assert subject.temperature == 450.0
    assert kind_of(atoms, EMT()) == "molecule"
    crystal = bulk("Cu", cubic=True)
    assert kind_of(crystal, EMT()) == "crystal"
    crystal.rattle(0.3, seed=1)
    assert kind_of(crystal, EMT()) == "liquid"
    crystal.info["kind"] = "crystal"
    assert kind_of(crystal, EMT()) == "crystal"
    crystal.info["kind"] = "glass"
    with pytest.raises(ValueError, match=r"must be crystal, liquid or molecule, got 'glass'"):
        kind_of(crystal, EMT())


def test_suites_hold_the_checks_of_their_kind():
    assert "diffusion" in SUITES["liquid"]
    assert "diffusion" not in SUITES["crystal"]
    assert "phonons" in SUITES["crystal"]
    assert "normal modes" in SUITES["molecule"]
    assert set(SUITES["all"]) == {name for kind in ("liquid", "crystal", "molecule") for name in SUITES[kind]}


@pytest.mark.parametrize(
    ("systems", "options", "message"),
    [
        ([], {}, "`systems` must hold at least one structure, got none"),
        ({"empty": molecule("H2O")[:0]}, {}, "the system 'empty' holds no atoms"),
        ({"a/b": molecule("H2O")}, {}, "the name of a system must be that of a folder"),
        (molecule("H2O"), {"suite": "glass"}, "`suite` must be one of liquid, crystal, molecule, all, got 'glass'"),
        (molecule("H2O"), {"only": ["drift"]}, "no check is named 'drift'; there are: dimers"),
        (
            molecule("H2O"),
            {"only": ["dimers"], "labels": [molecule("H2O")]},
            "`labels` serve the check 'labelled errors', which `only` leaves out",
        ),
        (
            molecule("H2O"),
            {"only": ["phonons"], "suite": "liquid"},
            "the suite 'liquid' has none of the checks phonons",
        ),
    ],
)
def test_a_mistake_is_named(systems, options, message):
    with pytest.raises(ValueError, match=message):
        check(EMT(), systems, **options)


def test_every_system_gets_a_name_of_its_own():
    frames = [molecule("H2O") for _ in range(4)]
    for atoms, name in zip(frames, ("a-2", "a", "a", "b"), strict=True):
        atoms.info["name"] = name
    report = check(EMT(), frames, only=["finite differences"])
    assert [system.name for system in report.systems] == ["a-2", "a", "a-3", "b"]


@pytest.mark.parametrize("name", ["temperature", "timestep", "production"])
def test_a_setting_without_meaning_is_refused(name):
    with pytest.raises(ValueError, match=rf"`{name}` must be positive, got -1"):
        CheckSettings(**{name: -1.0})


def test_a_quantity_fails_beyond_its_limit_by_two_standard_errors():
    assert Quantity("a", 1.0, at_most=1.0).is_within
    assert not Quantity("a", 1.01, at_most=1.0).is_within
    assert Quantity("a", 1.01, error=0.01, at_most=1.0).is_within
    assert not Quantity("a", 1.03, error=0.01, at_most=1.0).is_within
    assert not Quantity("a", -0.1, at_least=0.0).is_within
    assert not Quantity("a", math.nan, at_most=1.0).is_within
    assert Quantity("a", math.nan).is_within


def test_verdicts_follow_from_quantities():
    free, good, bad = Quantity("a", 1.0), Quantity("b", 1.0, "eV", at_most=2.0), Quantity("c", 3.0, "eV", at_most=2.0)
    assert CheckResult.judged("n", "S.", [free]).verdict == "informative"
    assert CheckResult.judged("n", "S.", [free, good]).verdict == "passed"
    failed = CheckResult.judged("n", "S.", [good, bad])
    assert (failed.verdict, failed.sentence) == ("failed", "c is 3 eV, limit at most 2. S.")


def test_results_survive_json():
    figure = Figure("f", "x", "y", (Curve.of("c", [1, 2, 3], [1, math.nan, 3]),), y_range=(0.0, 2.0), log_x=True)
    outcome = CheckResult("n", "failed", "S.", (Quantity("q", math.nan, "eV", error=0.1),), (figure,), 2.0)
    again = CheckResult.from_json(json.loads(json.dumps(outcome.to_json(), allow_nan=False)))
    assert math.isnan(again.quantities[0].value)
    assert math.isnan(again.figures[0].curves[0].y[1])
    assert again.to_json() == outcome.to_json()


def test_a_plot_holds_the_range_of_the_reference_too():
    candidate = Figure("f", "x", "y", (Curve.of("c", [1, 2], [0, 1]),), y_range=(-1.0, 20.0))
    reference = Figure("f", "x", "y", (Curve.of("c", [1, 2], [-4, 1]),), y_range=(-5.0, 10.0))
    outcome, other = (CheckResult.judged("n", "S.", [], [figure]) for figure in (candidate, reference))
    (beside,) = outcome.beside(other).figures
    assert beside.y_range == (-5.0, 20.0)
    assert [curve.name for curve in beside.curves] == ["c", "c, reference"]


def test_an_error_of_the_calculator_is_a_failure_with_its_text():
    class Refusing(EMT):
        def calculate(self, *args, **options):
            if len(self.atoms or args[0]) == 2:
                raise RuntimeError("two atoms are too few")
            super().calculate(*args, **options)

    (system,) = check(Refusing(), bulk("Cu", cubic=True), only=["dimers"]).systems
    assert system.results[0].verdict == "failed"
    assert system.results[0].sentence == "RuntimeError: Two atoms are too few."


def test_runs_of_another_check_are_never_read(tmp_path):
    stale = tmp_path / "runs" / "Cu4"
    stale.mkdir(parents=True)
    (stale / "start.extxyz").write_text("of another structure")
    check(EMT(), bulk("Cu", cubic=True), only=["finite differences"], folder=tmp_path, resume=True)
    assert (stale / "start.extxyz").exists()
    check(EMT(), bulk("Cu", cubic=True), only=["finite differences"], folder=tmp_path)
    assert not stale.exists()
