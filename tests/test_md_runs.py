"""Files of a molecular-dynamics run: checked before the work, locked while it goes on, compared when it is resumed."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io.trajectory import TrajectoryWriter

from lrc_ase.files.lock import InUseError
from lrc_ase.simulation import MDSettings, dynamics, output, run_md, tables


def copper() -> Atoms:
    """Four atoms with a calculator that says of itself what `LRCCalculator` says."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.02, seed=0)
    atoms.calc = EMT()
    atoms.calc.fingerprint = {"precision": "float64", "potential": "abc"}
    return atoms


def settings(steps: int = 10, **changes) -> MDSettings:
    return MDSettings("nvt", steps, **{"temperature": 300.0, "log_every": 5, "restart_every": 5, **changes})


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_second_run_is_refused_while_one_goes_on(tmp_path):
    seen = []

    def try_again(state):
        if state.step != 7:
            return
        for options in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(
                InUseError, match=rf"the run .*md\.traj is in use by process {os.getpid()} on"
            ) as refused:
                run_md(copper(), settings(20), tmp_path / "md.traj", **options)
            seen.append(refused)

    run_md(copper(), settings(20), tmp_path / "md.traj", report=try_again)
    assert len(seen) == 3
    assert [int(row["step"]) for row in rows(tmp_path / "md.csv")] == [0, 5, 10, 15, 20]
    assert not (tmp_path / "md.lock").exists()


HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_md_runs import copper, settings
from lrc_ase.simulation import run_md
def wait(state):
    if state.step == 6:
        print("going", flush=True)
        sys.stdin.readline()
run_md(copper(), settings(10), sys.argv[1], report=wait)
"""


def test_a_run_of_another_process_is_refused_and_goes_on_when_that_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "md.extxyz"), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "going\n"
            for options in ({"resume": True}, {"overwrite": True}):
                with pytest.raises(InUseError, match=f"in use by process {holder.pid} "):
                    run_md(copper(), settings(), tmp_path / "md.extxyz", **options)
        finally:
            holder.kill()
    summary = run_md(copper(), settings(), tmp_path / "md.extxyz", resume=True)
    assert (summary.first_step, summary.steps) == (5, 10)
    assert [int(row["step"]) for row in rows(tmp_path / "md.csv")] == [0, 5, 10]


def charged(atoms):
    atoms.info["charge"] = 1


def heavier(atoms):
    atoms.set_masses(atoms.get_masses() * 2)


def fixed(atoms):
    atoms.set_constraint(FixAtoms([0]))


def test_speed_is_that_of_the_steps_since_the_start_or_the_restart(tmp_path, monkeypatch):
    """The clock advances by 2 s at every reading: 5 fs per 2 s are 0.216 ns a day."""
    seconds = itertools.count(step=2)
    monkeypatch.setattr(dynamics, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    for steps, resume in ((4, False), (10, True)):
        reports = []
        summary = run_md(
            copper(), settings(steps, timestep=5.0), tmp_path / "md.traj", resume=resume, report=reports.append
        )
        assert [state.ns_per_day for state in reports] == pytest.approx([0.216] * len(reports))
        # the last look comes one interval after that of the last step
        assert summary.ms_per_step == pytest.approx(2000 * (len(reports) + 1) / len(reports))
    assert len(reports) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (charged, "total charge 0 e, the structure 1 e"),
        (heavier, "other masses"),
        (fixed, "other constraints"),
        (lambda atoms: atoms.calc.fingerprint.update(potential="xyz"), "existing run used another potential"),
        (
            lambda atoms: atoms.calc.fingerprint.update(precision="float32"),
            "existing run used float64, not float32: .*--dtype float64",
        ),
    ],
    ids=["charge", "masses", "constraints", "potential", "precision"],
)
def test_a_run_is_not_resumed_as_another(tmp_path, change, message):
    run_md(copper(), settings(), tmp_path / "md.traj")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    atoms = copper()
    change(atoms)
    with pytest.raises(ValueError, match=f"{message}.*or start a new run from its last frame"):
        run_md(atoms, settings(20), tmp_path / "md.traj", resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert run_md(copper(), settings(20), tmp_path / "md.traj", resume=True).first_step == 10


def rewrite_settings(path: Path, *dropped: str) -> None:
    """Take entries out of a restart file, as if an older version had written it."""
    with np.load(path) as archive:
        arrays = dict(archive)
    description = json.loads(str(arrays["description"]))
    for name in dropped:
        del description["settings"][name]
    arrays["description"] = np.array(json.dumps(description))
    np.savez(path, **arrays)


def test_a_run_of_an_older_version_is_resumed(tmp_path):
    run_md(copper(), settings(), tmp_path / "md.traj")
    entries = "npt_mode", "charge", "masses", "constraints", "potential", "precision"
    rewrite_settings(tmp_path / "md.restart.npz", *entries)
    lines = (tmp_path / "md.csv").read_text().splitlines()
    (tmp_path / "md.csv").write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
    assert run_md(copper(), settings(20), tmp_path / "md.traj", resume=True).first_step == 10
    assert [row["conserved_eV"] for row in rows(tmp_path / "md.csv")] == ["nan"] * 5
    assert [int(row["step"]) for row in rows(tmp_path / "md.csv")] == [0, 5, 10, 15, 20]


def test_without_a_restart_file_messages_do_not_send_in_circles(tmp_path):
    with pytest.raises(FileNotFoundError, match="start the run without --resume"):
        run_md(copper(), settings(), tmp_path / "md.traj", resume=True)
    run_md(copper(), settings(), tmp_path / "md.traj")
    with pytest.raises(FileExistsError, match="--resume goes on with that run, --overwrite replaces it"):
        run_md(copper(), settings(), tmp_path / "md.traj")
    (tmp_path / "md.restart.npz").unlink()
    hint = r"no restart file md\.restart\.npz, so that --resume cannot go on .* 'md\.traj@-1', --overwrite replaces it"
    with pytest.raises(FileNotFoundError, match=hint):
        run_md(copper(), settings(), tmp_path / "md.traj", resume=True)
    with pytest.raises(FileExistsError, match=hint):
        run_md(copper(), settings(), tmp_path / "md.traj")


@pytest.mark.parametrize(
    ("keep", "message"),
    [(0, "has no rows, the run goes on from step 10"), (2, "ends at step 5, the run goes on from step 10")],
)
def test_rows_lost_from_the_log_are_told(tmp_path, keep, message):
    run_md(copper(), settings(), tmp_path / "md.traj")
    log = tmp_path / "md.csv"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[: 1 + keep])) if keep else log.unlink()
    with pytest.warns(UserWarning, match=message):
        run_md(copper(), settings(20), tmp_path / "md.traj", resume=True)


def test_a_whole_log_is_continued_without_a_word(tmp_path):
    run_md(copper(), settings(13), tmp_path / "md.traj")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_md(copper(), settings(20, log_every=3), tmp_path / "md.traj", resume=True)
        run_md(copper(), settings(30), tmp_path / "md.traj", resume=True)


def test_a_foreign_row_of_the_log_is_named(tmp_path):
    run_md(copper(), settings(), tmp_path / "md.traj")
    log = tmp_path / "md.csv"
    log.write_text(log.read_text().replace("\n5,", "\nfive,"))
    with pytest.raises(ValueError, match=r"md\.csv, line 3: expected 9 numbers, got 'five,"):
        run_md(copper(), settings(20), tmp_path / "md.traj", resume=True)


@pytest.mark.parametrize("name", ["md.traj", "md.extxyz"])
def test_a_trajectory_that_is_gone_is_named(tmp_path, name):
    run_md(copper(), settings(), tmp_path / name)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing, but the restart file counts 2 frames in it"):
        run_md(copper(), settings(20), tmp_path / name, resume=True)


def no_space(*_, **__):
    """Fail as a write to a full disk does, without a name."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["md.extxyz", "md.traj"])
def test_a_full_disk_is_told_with_the_name_of_the_trajectory(tmp_path, monkeypatch, name):
    monkeypatch.setattr(output.ase.io, "write", no_space)
    monkeypatch.setattr(TrajectoryWriter, "write", no_space)
    monkeypatch.setattr(dynamics, "check_trajectory_output", lambda path, atoms: None)
    with pytest.raises(OSError, match=rf"No space left on device: .*{name}"):
        run_md(copper(), settings(), tmp_path / name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_with_the_name_of_the_log(tmp_path, monkeypatch):
    def open_full(path, mode="r", **options):
        return open("/dev/full" if Path(path).name == "md.csv" and mode == "a" else path, mode, **options)

    monkeypatch.setattr(tables, "open", open_full, raising=False)
    with pytest.raises(OSError, match=r"No space left on device: .*md\.csv"):
        run_md(copper(), settings(), tmp_path / "md.traj")
