"""Dielectric constant of charges on springs, by fluctuation and in fields: 1 + N q^2 / (k V epsilon_0)."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from test_current import ChargesOnSprings, springs
from test_wires_cli import options_of
from typer.testing import CliRunner

from lrc_ase.cli import app
from lrc_ase.simulation import CurrentRecord, MDSettings, dielectric_constant, run_md
from lrc_ase.simulation.current import CurrentLog
from lrc_ase.simulation.dielectric import dipole_moments

EPSILON_0 = 5.52634936e-3  # e/(V Angstrom), from 8.8541878e-12 F/m and 1.602176634e-19 C
STIFFNESS, VOLUME = 10.0, 1000.0  # eV/Angstrom^2, Angstrom^3
N_CHARGES = 200
EXACT = 1 + N_CHARGES / (STIFFNESS * VOLUME * EPSILON_0)  # 4.62


class InAField(ChargesOnSprings):
    """Charges on springs that the field of `Atoms.info` pulls."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        """Add the force +qE."""
        super().calculate(atoms, properties, system_changes)
        charges = (-1.0) ** np.arange(len(self.atoms))
        self.results["forces"] = self.results["forces"] + charges[:, None] * self.atoms.info["external_field"]


def in_a_field(strength: float) -> Atoms:
    atoms = springs(N_CHARGES)
    atoms.calc = InAField(atoms.get_positions())
    atoms.info["external_field"] = [0.0, strength, 0.0]
    return atoms


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs with a thermostat: two without a field, two in opposite fields, one from another start."""
    folder = tmp_path_factory.mktemp("runs")
    common = {"temperature": 300.0, "friction": 0.02, "timestep": 2.0, "restart_every": 10**6, "log_every": 10**6}
    for seed in (1, 2):
        settings = MDSettings("nvt", 4000, seed=seed, current_every=2, write_every=4000, **common)
        run_md(springs(N_CHARGES), settings, folder / f"{seed}.traj")
    for name, strength in (("plus", 0.2), ("minus", -0.2)):
        run_md(
            in_a_field(strength), MDSettings("nvt", 1000, current_every=1, write_every=1000, **common),
            folder / f"{name}.traj",
        )  # fmt: skip
    moved = in_a_field(-0.2)
    moved.positions[0] += 0.1
    run_md(moved, MDSettings("nvt", 10, current_every=1, **common), folder / "moved.traj")
    return folder


@pytest.fixture
def call(runs, tmp_path, monkeypatch):
    """Return a function that runs the command in the folder of the runs and returns its output."""
    monkeypatch.chdir(runs)

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["dielectric", *arguments, "-o", str(tmp_path / "d")])
        assert result.exit_code == code, result.output
        return result.output

    return run


def value_and_error(output: str) -> tuple[float, float]:
    value, error = re.search(r"dielectric constant by [a-z ]+: ([\d.]+) \+- ([\d.]+)", output).groups()
    return float(value), float(error)


def test_moment_is_the_integral_of_the_current():
    times = np.arange(1001) * 0.5  # fs
    current = np.stack([np.cos(0.05 * times), 0.01 * times, np.ones_like(times)], axis=1)
    moments = dipole_moments(CurrentRecord(0.5, current, 300.0, VOLUME))
    expected = np.stack([np.sin(0.05 * times) / 0.05, 0.005 * times**2, times], axis=1)
    np.testing.assert_allclose(moments, expected, rtol=0, atol=2e-3)


def test_moments_of_the_calculator_count_where_they_follow_the_current():
    times = np.arange(1001) * 0.5
    moments = np.sin(0.05 * times)[:, None] * np.ones(3)
    current = 0.05 * np.cos(0.05 * times)[:, None] * np.ones(3)
    followed = CurrentRecord(0.5, 1.1 * current, 300.0, VOLUME, moments=moments + 7.0)
    np.testing.assert_allclose(dipole_moments(followed), moments, atol=1e-12)
    jumping = CurrentRecord(0.5, current, 300.0, VOLUME, moments=np.where(times > 100, 5.0, 0.0)[:, None] + moments)
    np.testing.assert_allclose(dipole_moments(jumping), moments, atol=1e-3)


def test_fluctuation_gives_the_constant_of_springs(call, tmp_path):
    output = call("1.traj", "2.traj", "--skip", "1")
    value, error = value_and_error(output)
    assert "by fluctuation" in output
    assert "2 runs, 14.01 ps, " in output
    assert "errors of 10 blocks" in output
    assert 0.05 < error < 0.8
    assert value == pytest.approx(EXACT, abs=4 * error)
    with open(tmp_path / "d.dielectric.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["running_estimate"]) == pytest.approx(value, rel=1e-3)
    assert float(rows[-1]["time_ps"]) == pytest.approx(8.0, abs=0.01)
    assert (tmp_path / "d.dielectric.png").read_bytes()[:4] == b"\x89PNG"


def test_field_gives_the_constant_of_springs(call):
    output = call("plus.traj", "minus.traj", "--skip", "0.5")
    value, error = value_and_error(output)
    assert "by finite field" in output
    # 200 e^2 0.2 V/Angstrom / (10 eV/Angstrom^2) = 4 e Angstrom: thermal noise of the mean is some 0.1 of it
    assert error < 0.4
    assert value == pytest.approx(EXACT, abs=4 * error)


def record(moment: float, field: float = 0.0, *, volume: float | None = VOLUME, n_samples: int = 401) -> CurrentRecord:
    """Return the current of a dipole moment along y that rises to a plateau, with noise."""
    times = np.arange(n_samples) * 1.0
    current = np.zeros((n_samples, 3))
    current[:, 1] = moment / 10 * np.exp(-times / 10)
    current[0, 1] = current[-1, 1] = 0.0
    return CurrentRecord(1.0, current, 300.0, volume, np.array([0.0, field, 0.0]))


def test_response_is_the_slope_over_three_fields():
    moments = {0.1: 2.0, 0.0: 0.5, -0.1: -1.0}  # slope 15 e Angstrom^2/V
    records = [record(moment, field) for field, moment in moments.items()]
    plateau = dipole_moments(records[0])[-1, 1] / 2.0
    constant = dielectric_constant(records, skip=0.3)
    assert constant.value == pytest.approx(1 + 15 * plateau / (VOLUME * EPSILON_0), rel=1e-4)
    assert constant.running[-1] == pytest.approx(constant.value)


def test_a_constant_field_across_does_not_change_the_response():
    across = np.array([0.2, 0.0, 0.1])
    plain = [record(moment, field) for field, moment in {0.1: 2.0, -0.1: -1.0}.items()]
    tilted = [replace(each, field=each.field + across) for each in plain]
    expected = dielectric_constant(plain, skip=0.3).value
    assert dielectric_constant(tilted, skip=0.3).value == pytest.approx(expected, rel=1e-12)


def test_electronic_permittivity_multiplies_and_temperature_divides():
    noise = [CurrentRecord(1.0, np.random.default_rng(0).normal(size=(1000, 3)), 300.0, VOLUME)]
    plain = dielectric_constant(noise)
    assert dielectric_constant(noise, eps_inf=1.8).value == pytest.approx(1.8 * plain.value)
    assert dielectric_constant(noise, eps_inf=1.8).error == pytest.approx(1.8 * plain.error)
    assert dielectric_constant(noise, temperature=600.0).value - 1 == pytest.approx((plain.value - 1) / 2)
    assert np.isnan(dielectric_constant(noise, n_blocks=1).error)


def test_values_and_errors_are_those_of_the_blocks():
    """Two runs of different length and temperature, whose sums are written out here."""
    rng, fields = np.random.default_rng(1), (0.1, -0.2)
    runs = [
        CurrentRecord(2.0, rng.normal(size=(size, 3)), temperature, VOLUME, np.array([0.0, field, 0.0]))
        for size, temperature, field in zip((90, 50), (280.0, 340.0), fields, strict=True)
    ]
    # integrals by the trapezoidal rule from the 10 samples that are left out on
    moments = [np.cumsum(each.current[1:] + each.current[:-1], axis=0)[9:] for each in runs]
    blocks = [np.split(each, 4) for each in moments]

    without_field = [replace(each, field=np.zeros(3)) for each in runs]
    constant = dielectric_constant(without_field, n_blocks=4, skip=0.02)
    unit = 3 * EPSILON_0 * VOLUME * 8.617333e-5 * 310
    squares = [
        ((block - each.mean(axis=0)) ** 2).sum(axis=1).mean() / unit
        for each, parts in zip(moments, blocks, strict=True)
        for block in parts
    ]
    assert constant.value == pytest.approx(1 + np.mean(squares), rel=1e-6)
    assert constant.error == pytest.approx(np.std(squares) / np.sqrt(7), rel=1e-6)
    assert (constant.n_blocks, constant.temperature) == (8, 310.0)
    assert constant.length == pytest.approx(0.002 * (80 + 40))
    assert len(constant.times) == 39
    assert constant.times[[0, -1]] == pytest.approx([0.02 + 0.002 * 2, 0.02 + 0.002 * 40])

    constant = dielectric_constant(runs, n_blocks=4, skip=0.02)
    unit = 0.3 * EPSILON_0 * VOLUME
    means = [[block[:, 1].mean() / unit for block in parts] for parts in blocks]
    assert constant.value == pytest.approx(1 + np.mean(means[0]) - np.mean(means[1]), rel=1e-6)
    assert constant.error == pytest.approx(np.hypot(*[np.std(each) / np.sqrt(3) for each in means]), rel=1e-6)


def record_of(moments: np.ndarray) -> CurrentRecord:
    """Return the record of a dipole moment along x whose current is its derivative."""
    moments = np.outer(moments, (1.0, 0.0, 0.0))
    return CurrentRecord(1.0, np.gradient(moments, axis=0), 300.0, VOLUME, moments=moments)


@pytest.mark.parametrize(("correlation_time", "settled"), [(5.0, True), (20.0, True), (2000.0, False)])
def test_blocks_shorter_than_the_correlation_time_do_not_settle(correlation_time, settled):
    """An Ornstein-Uhlenbeck process of 1000 steps in 5 blocks, whose estimate may stand still by chance."""
    rng = np.random.default_rng(0)
    decay = np.exp(-1 / correlation_time)
    for _ in range(5):
        steps = rng.normal(size=1000) * np.sqrt(1 - decay**2)
        moments = np.empty(1000)
        moments[0] = rng.normal()
        for index in range(1, 1000):
            moments[index] = decay * moments[index - 1] + steps[index]
        constant = dielectric_constant([record_of(moments)])
        assert (constant.slow_share < 0.5) is settled
        assert constant.settled or not settled


def test_estimate_that_still_grows_is_told(call, tmp_path):
    """A moment that grows evenly has two blocks of one variance, and a quarter of it at half of the time."""
    assert "has not settled" not in call("1.traj", "2.traj", "--skip", "1")
    header = ",".join(CurrentLog.columns) + "\n"
    rows = [f"{step},{step / 1000},0.01,0,0,300,1000,0,0,0,nan,nan,nan\n" for step in range(101)]
    (tmp_path / "grows.current.csv").write_text(header + "".join(rows))
    output = call(str(tmp_path / "grows.traj"), "--blocks", "2", "--overwrite")
    value = float(re.search(r"fluctuation: ([\d.]+) ", output).group(1))
    half = float(
        re.search(r"It has not settled: ([\d.]+) from half of the time, and 7\d% of the .* too small", output).group(1)
    )
    assert half - 1 == pytest.approx((value - 1) / 4, rel=0.1)
    assert dielectric_constant([record_of(np.arange(101.0))], n_blocks=2).slow_share == pytest.approx(0.75, abs=0.01)
    settled = dielectric_constant([CurrentRecord(1.0, np.zeros((50, 3)), 300.0, VOLUME)])
    assert settled.settled
    assert settled.half_way == 1.0


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([], {}, "`records` must hold at least one run, got none"),
        ([record(1.0, volume=None)], {}, "needs a volume: runs with three periodic directions"),
        ([record(1.0)], {"eps_inf": 0.5}, "`eps_inf` must be at least 1, got 0.5"),
        ([record(1.0)], {"n_blocks": 0}, "`n_blocks` must be at least 1, got 0"),
        ([record(1.0)], {"temperature": 0.0}, "the temperature of fluctuations must be positive, got 0 K"),
        ([record(1.0)], {"temperature": -300.0}, "the temperature of fluctuations must be positive, got -300 K"),
        ([record(1.0)], {"skip": 0.395}, "6 samples of a run are left after the first 0.395 ps, expected 10"),
        ([record(1.0, 0.1)], {}, r"all runs have one field, \[0.0, 0.1, 0.0\] V/Angstrom: add a run without"),
        (
            [record(1.0), record(1.0, 0.1), CurrentRecord(1.0, np.zeros((401, 3)), 300.0, VOLUME, np.ones(3))],
            {},
            "the fields must lie along one line",
        ),
    ],
)
def test_runs_that_give_no_constant_are_refused(records, options, message):
    with pytest.raises(ValueError, match=message):
        dielectric_constant(records, **options)


def test_runs_in_fields_from_different_starts_are_refused(call):
    output = call("plus.traj", "moved.traj", code=1)
    assert re.search("Error: plus.traj and moved.traj begin at different positions: runs in fields", output)


CASES = {
    "--eps-inf": ["--eps-inf", "2"],
    "--skip": ["--skip", "4"],
    "--blocks": ["--blocks", "2"],
    "--temperature": ["--temperature", "400"],
}


def test_every_option_has_a_case():
    assert options_of("dielectric") == set(CASES) | {"--output", "--overwrite", "--debug", "--help"}


@pytest.mark.parametrize("option", CASES)
def test_option_changes_the_constant(call, option):
    before = call("1.traj").splitlines()[0]
    assert re.search(r"exists already", call("1.traj", code=1))
    after = call("1.traj", *CASES[option], "--overwrite").splitlines()[0]
    assert before != after
