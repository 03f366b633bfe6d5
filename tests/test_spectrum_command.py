"""``lrc-ase spectrum``: options act, files say what they hold, and what is missing is told."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from matplotlib.axes import Axes
from test_current import springs
from test_wires_cli import options_of
from typer.testing import CliRunner

from lrc_ase.cli import app
from lrc_ase.simulation import MDSettings, run_md


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two runs of charges on springs, with current and velocities, and one with neither."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        settings = MDSettings("nve", 2400, temperature=300.0, seed=seed, write_every=4, current_every=4)
        run_md(springs(10), settings, folder / f"{seed}.traj")
    run_md(springs(10), MDSettings("nve", 200, temperature=300.0), folder / "bare.traj")
    return folder


@pytest.fixture
def call(runs, tmp_path, monkeypatch):
    """Return a function that runs the command in the folder of the runs and returns its output."""
    monkeypatch.chdir(runs)

    def run(*arguments: str, code: int = 0) -> str:
        output = ["-o", str(tmp_path / "s")] if "-o" not in arguments and "--output" not in arguments else []
        result = CliRunner().invoke(app, ["spectrum", *arguments, *output])
        assert result.exit_code == code, result.output
        return result.output

    return run


def table(path: Path) -> dict[str, np.ndarray]:
    """Read the columns of a CSV file."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


WIDE = ("--resolution", "80")


def test_tables_and_plot_are_written_and_named(call, tmp_path):
    output = call("1.traj", "2.traj", *WIDE)
    assert "infrared: 4.8 ps every 4 fs, " in output
    assert "1000 Angstrom^3" in output
    assert "hann window of 80 cm^-1, harmonic quantum correction, errors of 4 blocks" in output
    assert "density of states: 10 atoms, 1202 frames every 4 fs" in output
    assert max(map(len, output.splitlines())) <= max(80, len(str(tmp_path)) + 20)
    (line,) = re.findall(r"^ +(\d+) +\d+ +[\d.]+ \+- ", output, flags=re.MULTILINE)
    assert abs(int(line) - 412) < 15
    infrared, states = table(tmp_path / "s.infrared.csv"), table(tmp_path / "s.vdos.csv")
    assert list(infrared) == ["wavenumber_cm-1", "alpha_n_cm-1", "error_alpha_n_cm-1"]
    assert list(states) == ["wavenumber_cm-1", "states_per_cm-1", "error", "states_O"]
    assert abs(infrared["wavenumber_cm-1"][infrared["alpha_n_cm-1"].argmax()] - 412) < 20
    assert infrared["wavenumber_cm-1"].max() > 4000
    assert (tmp_path / "s.spectrum.png").read_bytes()[:4] == b"\x89PNG"


def highest(path: Path) -> float:
    return table(path)["alpha_n_cm-1"].max()


CASES = {
    "--resolution": ["--resolution", "120"],
    "--window": ["--window", "boxcar"],
    "--quantum-correction": ["--quantum-correction", "none"],
    "--blocks": ["--blocks", "3"],
    "--skip": ["--skip", "1.0"],
    "--temperature": ["--temperature", "400"],
    "--eps-inf": ["--eps-inf", "1.5"],
}
OTHERWISE = {"--interval", "--max", "--output", "--overwrite", "--debug", "--help"}


def test_every_option_has_a_case():
    assert options_of("spectrum") == set(CASES) | OTHERWISE


WORDS = ["1.traj", *WIDE, "--blocks", "2", "-o"]


@pytest.fixture(scope="module")
def before(runs) -> dict[str, np.ndarray]:
    """Return the infrared spectrum without the option of a case."""
    arguments = ["spectrum", str(runs / WORDS[0]), *WORDS[1:], str(runs / "before")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return table(runs / "before.infrared.csv")


@pytest.mark.parametrize("option", CASES)
def test_option_changes_the_spectrum(call, tmp_path, option, before):
    call(*WORDS, str(tmp_path / "after"), *CASES[option])
    after = table(tmp_path / "after.infrared.csv")
    column = "error_alpha_n_cm-1" if option == "--blocks" else "alpha_n_cm-1"
    assert abs(after[column].max() / before[column].max() - 1) > 1e-3


def test_interval_of_another_program_and_end_of_the_tables(call, runs, tmp_path):
    frames = read(runs / "1.traj", index=":")
    for frame in frames:
        frame.info.clear()
        frame.calc = None
    write(tmp_path / "other.extxyz", frames)
    assert "Error: neither a polarization current" in call(str(tmp_path / "other.extxyz"), code=1)
    output = call(str(tmp_path / "other.extxyz"), *WIDE, "--interval", "8", "--blocks", "2", "--max", "1000")
    assert "every 8 fs" in output
    assert not (tmp_path / "s.infrared.csv").exists()
    states = table(tmp_path / "s.vdos.csv")
    assert abs(states["wavenumber_cm-1"][states["states_per_cm-1"].argmax()] - 206) < 20
    assert states["wavenumber_cm-1"].max() <= 1000


@pytest.mark.parametrize(("options", "end"), [([], 1000.0), (["--max", "700"], 700.0)])
def test_the_plot_ends_behind_the_signal_or_where_it_is_told(call, monkeypatch, options, end):
    """The line of the springs lies at 412 cm^-1, with its wings of 80 cm^-1."""
    ends = []
    plain = Axes.set_xlim

    def record(axis, *limits, **keywords):
        ends.extend(limits[1:] if limits[1:] != (1.0,) else ())  # that of a new axis
        return plain(axis, *limits, **keywords)

    monkeypatch.setattr(Axes, "set_xlim", record)
    call("1.traj", *WIDE, "--blocks", "2", *options)
    assert set(ends) == {end}


def test_files_are_not_replaced_unless_asked(call, tmp_path):
    call("1.traj", *WIDE, "--blocks", "2")
    before = highest(tmp_path / "s.infrared.csv")
    assert re.search(r"Error: .*s\.infrared\.csv exists already", call("2.traj", *WIDE, "--blocks", "2", code=1))
    call("2.traj", *WIDE, "--blocks", "2", "--overwrite")
    assert highest(tmp_path / "s.infrared.csv") != before


def test_files_lie_beside_the_first_run(call, runs):
    call("2.traj", "1.traj", *WIDE, "--output", "2")
    assert {path.name for path in runs.glob("2.*")} >= {"2.infrared.csv", "2.vdos.csv", "2.spectrum.png"}
    for name in ("2.infrared.csv", "2.vdos.csv", "2.spectrum.png"):
        (runs / name).unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bare.traj"], "velocities: the frames of bare.traj are 100 fs apart: --write-every 2 to 4 fs"),
        (["1.traj", "bare.traj"], "bare.current.csv does not exist, 1.current.csv does"),
        (["none.traj"], "velocities: .*none.traj"),
        (["1.traj", "--window", "kaiser"], "--window must be one of hann"),
        (["1.traj", "--quantum-correction", "kubo"], "--quantum-correction must be one of harmonic"),
        (["1.traj", "--blocks", "5"], "needs segments of 2.41 ps, the shortest of 5 blocks has 0.48 ps"),
    ],
)
def test_mistakes_are_told_in_one_line(call, arguments, message):
    output = call(*arguments, code=1)
    assert re.search(message, output)
    assert len(output.strip().splitlines()) == 1


def test_reason_for_no_density_of_states_is_told_beside_a_spectrum(call, runs, tmp_path):
    for name in ("1.traj", "1.current.csv"):
        (tmp_path / name).write_bytes((runs / name).read_bytes())
    write(tmp_path / "1.traj", [frame for frame in read(runs / "1.traj", index="::25")])
    output = call(str(tmp_path / "1.traj"), *WIDE, "--blocks", "2")
    assert re.search(r"no density of states: the frames of .*1\.traj are 100 fs apart", output)
    assert not (tmp_path / "s.vdos.csv").exists()
    assert (tmp_path / "s.spectrum.png").exists()


def test_runs_whose_frames_do_not_fit_together_have_a_spectrum_of_their_currents(call, runs, tmp_path):
    for name in ("2.traj", "2.current.csv"):
        (tmp_path / name).write_bytes((runs / name).read_bytes())
    frames = read(runs / "2.traj", index="::2")
    write(tmp_path / "2.traj", frames)
    output = call("1.traj", str(tmp_path / "2.traj"), *WIDE)
    assert "no density of states: the runs must hold the same atoms, at the same interval" in output
    assert (tmp_path / "s.spectrum.png").exists()
