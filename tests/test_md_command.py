"""``lrc-ase md`` and ``relax`` as a user meets them, with the shipped potential of NaCl."""

from __future__ import annotations

import errno
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from ase.build import bulk
from ase.io import read, write
from typer.testing import CliRunner

from lrc_ase.cli import app
from lrc_ase.cli.md import _Lines
from lrc_ase.files.atomic import replacing
from lrc_ase.simulation import MDSettings
from lrc_ase.simulation import output as simulation_output
from lrc_ase.simulation.dynamics import MDState


@pytest.fixture(autouse=True)
def in_folder_with_a_crystal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.05, seed=0)
    write("start.extxyz", atoms)


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and all output of a command."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    return result.exit_code, result.output


def md(*arguments: object) -> tuple[int, str]:
    """Run a short dynamics of NaCl."""
    return run("md", "nacl", "start.extxyz", "-t", 300, "--log-every", 2, "--restart-every", 2, *arguments)


def test_md_prints_lines_of_at_most_80_columns_into_a_file():
    code, output = md("-n", 40, "-e", "NPT")
    assert code == 0, output
    lines = output.splitlines()
    assert lines[0] == "npt, 8 atoms, 40 steps of 1 fs, 300 K, 0 GPa, isotropic cell"
    assert lines[1].split() == ["step", "ps", "K", "potential,", "eV", "ns/day", "left"]
    steps = [int(line.split()[0]) for line in lines[2:] if re.match(r" +\d+ +\d", line)]
    assert steps == [1, *range(2, 41, 2)]
    assert max(map(len, lines)) <= 80


def test_lines_tell_the_time_left_without_that_of_the_first_step(monkeypatch, capsys):
    """Half an hour for 1000 of 4000 steps; the first step compiles for 100 s."""
    clock = iter([0.0, 100.0, 1900.0])
    monkeypatch.setattr("lrc_ase.cli.md.time", SimpleNamespace(monotonic=lambda: next(clock)))
    lines = _Lines(MDSettings("nve", 4000, timestep=0.5), "heading")
    for step in (1, 1001):
        lines.show(MDState(step, 4000, temperature=300.0, potential=-1.5, ns_per_day=2.0))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows[0] == ["1", "0.001", "300.0", "-1.5000", "2", "-"]
    assert rows[1] == ["1001", "0.501", "300.0", "-1.5000", "2", "1:29:58"]  # 1.8 s for each of 2999 steps


@pytest.mark.parametrize("mode", ["flexible", "Flexible"])
def test_md_takes_the_cell_of_npt(mode):
    code, output = md("-n", 20, "-e", "npt", "--npt-mode", mode, "--barostat-time", 50)
    assert code == 0, output
    assert "flexible cell" in output
    angles = read("md.traj").cell.angles()
    assert abs(angles - 90).max() > 1e-6


def test_md_does_not_resume_as_another_run():
    assert md("-n", 4)[0] == 0
    crystal = read("start.extxyz")
    crystal.info["charge"] = 1
    write("charged.extxyz", crystal)
    for arguments, message in (
        (["md", "nacl", "start.extxyz", "--dtype", "float32"], "existing run used float64, not float32"),
        (["md", "nacl", "charged.extxyz"], "total charge 0 e, the structure 1 e"),
    ):
        code, output = run(*arguments, "-t", 300, "-n", 8, "--resume")
        assert code == 1
        assert message in output
        assert output.strip().count("\n") == 0
    assert md("-n", 8, "--resume")[0] == 0


def test_a_gap_in_the_log_is_told_on_the_terminal():
    assert md("-n", 4)[0] == 0
    log = Path("md.csv")
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    code, output = md("-n", 6, "--resume")
    assert code == 0
    assert "Warning: md.csv ends at step 2, the run goes on from step 4" in output


def test_a_full_disk_names_the_file_and_how_to_go_on(monkeypatch):
    write_frame = simulation_output.TrajectoryFile.write
    frames = []

    def fill_disk(self, atoms, time):
        frames.append(atoms)
        with simulation_output.naming(self.path):
            if len(frames) > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        write_frame(self, atoms, time)

    monkeypatch.setattr(simulation_output.TrajectoryFile, "write", fill_disk)
    code, output = md("-n", 10, "--write-every", 4)
    assert code == 1
    assert "md.traj: No space left on device" in output
    assert "Stopped; md.restart.npz holds step 6: --resume goes on from there." in output
    assert Path("md.png").exists()


def test_ctrl_c_names_the_step_to_go_on_from_and_leaves_a_plot(monkeypatch):
    write_row = simulation_output.ThermodynamicLog.write

    def press_at_step_6(self, step, *row):
        if step == 6:
            raise KeyboardInterrupt
        write_row(self, step, *row)

    with monkeypatch.context() as patch:
        patch.setattr(simulation_output.ThermodynamicLog, "write", press_at_step_6)
        code, output = md("-n", 8)
    assert code == 130
    assert "Stopped; md.restart.npz holds step 4: --resume goes on from there." in output
    assert Path("md.png").exists()
    code, output = md("-n", 8, "--resume")
    assert code == 0
    assert "4 steps of 8 atoms" in output


def test_a_finished_run_says_that_nothing_is_left():
    assert md("-n", 2)[0] == 0
    code, output = md("-n", 2, "--resume")
    assert code == 0
    assert "Nothing to do: the run has made its 2 steps; a larger --steps makes it longer." in output
    assert "ms per step" not in output
    code, output = md("-n", 4, "--resume")
    assert code == 0
    assert "2 steps of 8 atoms" in output


def test_output_that_is_there_is_no_interruption():
    assert md("-n", 2)[0] == 0
    code, output = md("-n", 2)
    assert code == 1
    assert output.startswith("Error: md.traj exists already")


@pytest.mark.parametrize("name", ["out.foo", "out", "out.png", "nowhere/out.cif"])
@pytest.mark.parametrize("command", ["relax", "md", "select"])
def test_outputs_are_refused_before_the_potential_is_read(command, name):
    options = ["-t", 300] if command == "md" else []
    code, output = run(command, "no-such-potential", "start.extxyz", "-o", name, *options)
    assert code == 1
    assert re.search(r"out(\.foo|\.png)?: ASE|the folder nowhere does not exist", output)
    assert output.strip().count("\n") == 0


def test_relax_keeps_the_structure_elsewhere_if_the_disk_fails(monkeypatch):
    def full(path):
        if str(path) == "relaxed.cif":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return replacing(path)

    monkeypatch.setattr(simulation_output, "replacing", full)
    code, output = run("relax", "nacl", "start.extxyz", "--fmax", 1, "-o", "relaxed.cif")
    assert code == 1
    assert "relaxed.cif could not be written" in output
    assert "kept in relaxed.cif.rescued.extxyz" in output
    assert len(read("relaxed.cif.rescued.extxyz")) == 8


def test_relax_that_does_not_converge_says_so_and_keeps_the_structure(monkeypatch):
    with warnings.catch_warnings():
        code, output = run("relax", "nacl", "start.extxyz", "--fmax", 1e-9, "-n", 1, "-o", "relaxed.cif")
    assert code == 1
    assert "asked for 1e-09" in output
    assert len(read("relaxed.cif")) == 8

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(simulation_output, "replacing", full)
    code, output = run("relax", "nacl", "start.extxyz", "--fmax", 1e-9, "-n", 1, "-o", "again.cif")
    assert code == 1
    assert "again.cif could not be written" in output
    assert "asked for 1e-09" in output  # not hidden
