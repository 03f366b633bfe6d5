"""Frames sampled by dynamics of a teacher: every condition arrives, every label is the teacher's, nothing is lost."""

from __future__ import annotations

import itertools
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from pydantic import ValidationError
from typer.testing import CliRunner

from lrc_ase.cli import app
from lrc_ase.learning import (
    Labelled,
    SampleSettings,
    SampleSummary,
    TeacherError,
    TeacherSettings,
    make_calculator,
    sample,
)
from lrc_ase.learning.sampling import _new_run, _next_segment
from lrc_ase.learning.teacher_dynamics import advance
from lrc_ase.learning.teacher_pool import with_results
from lrc_ase.learning.teacher_worker import label

EMT_TEACHER = TeacherSettings(calculator="ase.calculators.emt:EMT", check=False)


class InThisProcess:
    """Pool that labels in this process: starting one takes a second, which most tests can do without."""

    def __init__(self, settings: TeacherSettings, scratch: Path) -> None:
        self.calculator = make_calculator(settings)

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def label(self, segments):
        for index, each in enumerate(segments):
            moved = advance(self.calculator, each.atoms, **each.conditions())
            yield Labelled(index, with_results(moved, label(self.calculator, moved)), 0.5)


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr("lrc_ase.learning.sampling.TeacherPool", InThisProcess)


def sampled(folder: Path, **changes) -> list[Atoms]:
    """Sample a few frames of aluminium; return those of the file."""
    ase.io.write(folder / "start.extxyz", bulk("Al", cubic=True))
    settings = SampleSettings(**{"teacher": EMT_TEACHER, "count": 6, "length": 3, "spacing": 3} | changes)
    sample([folder / "start.extxyz"], settings, folder / "sampled.extxyz")
    return ase.io.read(folder / "sampled.extxyz", ":")


def test_frames_carry_the_labels_of_the_teacher(tmp_path, in_this_process):
    frames = sampled(tmp_path)
    assert len(frames) == 6
    for atoms in frames:
        copy = atoms.copy()
        copy.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(copy.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), copy.get_forces(), atol=1e-9)
        np.testing.assert_allclose(atoms.get_stress(), copy.get_stress(), atol=1e-9)
        assert "momenta" not in atoms.arrays
        assert 300 <= atoms.info["temperature"] <= 1200


def test_a_run_has_one_cell_and_one_temperature(tmp_path, in_this_process):
    frames = sampled(tmp_path)
    cells = {tuple(np.round(atoms.cell.array.ravel(), 9)) for atoms in frames}
    assert len(cells) == len({atoms.info["temperature"] for atoms in frames}) == 2  # six frames, three of each run
    assert bulk("Al", cubic=True).cell.array.ravel().tolist() not in [list(cell) for cell in cells]


def test_a_file_is_extended(tmp_path, in_this_process):
    first = sampled(tmp_path, count=3)
    both = sampled(tmp_path, count=6)
    for before, after in zip(first, both, strict=False):
        np.testing.assert_array_equal(before.positions, after.positions)
    assert len(both) == 6
    assert both[3].info["temperature"] not in {atoms.info["temperature"] for atoms in first}
    assert len(sampled(tmp_path, count=6)) == 6  # nothing is left to do


def test_frames_of_two_teachers_do_not_mix(tmp_path, in_this_process):
    sampled(tmp_path, count=2)
    other = EMT_TEACHER.model_copy(update={"options": {"asap_cutoff": True}})
    with pytest.raises(ValueError, match=r"another teacher \(ase.calculators.emt:EMT\), expected .*asap_cutoff=True"):
        sampled(tmp_path, count=4, teacher=other)
    assert len(sampled(tmp_path, count=2)) == 2
    labelled = bulk("Al", cubic=True)
    labelled.calc = EMT()
    labelled.get_forces()
    ase.io.write(tmp_path / "sampled.extxyz", labelled)
    with pytest.raises(ValueError, match=r"another teacher \(unknown\)"):
        sampled(tmp_path, count=4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_runs_start_from_each_composition_and_charge(tmp_path, in_this_process, seed):
    charged = bulk("Cu", cubic=True)
    charged.info["charge"] = 1
    starts = [*[bulk("Al", cubic=True)] * 30, bulk("Cu", cubic=True), charged, molecule("H2O")]
    ase.io.write(tmp_path / "starts.extxyz", starts)
    settings = SampleSettings(teacher=EMT_TEACHER, count=24, length=1, spacing=1, seed=seed)
    sample([tmp_path / "starts.extxyz"], settings, tmp_path / "sampled.extxyz")
    kinds = [
        (atoms.get_chemical_formula(), atoms.info.get("charge", 0))
        for atoms in ase.io.read(tmp_path / "sampled.extxyz", ":")
    ]
    assert sorted(kinds[:4]) == [("Al4", 0), ("Cu4", 0), ("Cu4", 1), ("H2O", 0)]
    assert kinds[4:].count(("Al4", 0)) >= 14  # of 20; 30 of 33 structures are of aluminium


def test_runs_are_shorter_where_compositions_are_many(tmp_path, in_this_process):
    starts = [Atoms(f"Al{n}Cu", np.eye(3)[[0] * (n + 1)] * np.arange(n + 1)[:, None] * 2.6) for n in range(1, 4)]
    ase.io.write(tmp_path / "starts.extxyz", [*starts, Atoms("Al")])  # the single atom does not move
    for count, length in [(30, 10), (45, 15), (300, 60)]:
        output = tmp_path / f"{count}.extxyz"
        sample([tmp_path / "starts.extxyz"], SampleSettings(teacher=EMT_TEACHER, count=count, spacing=1), output)
        frames = ase.io.read(output, ":")
        runs = [list(run) for _, run in itertools.groupby(frames, lambda atoms: atoms.info["temperature"])]
        assert [len(run) for run in runs] == [length] * (count // length)
        assert all(len(atoms) > 1 for atoms in frames)
    ase.io.write(tmp_path / "atom.extxyz", Atoms("Al"))
    with pytest.raises(ValueError, match="no structure to start from has two atoms"):
        sample([tmp_path / "atom.extxyz"], SampleSettings(teacher=EMT_TEACHER), tmp_path / "none.extxyz")


@pytest.mark.parametrize(("sizes", "count"), [((2, 4), 4000), ((20, 40), 2000), ((64, 200), 1000)])
def test_large_frames_are_fewer_by_default(tmp_path, in_this_process, sizes, count):
    starts = [Atoms("Al" * n, np.eye(3)[[0] * n] * np.arange(n)[:, None] * 2.6) for n in sizes]
    ase.io.write(tmp_path / "starts.extxyz", starts)
    told = []
    settings = SampleSettings(teacher=EMT_TEACHER, minutes=1e-9)
    summary = sample(
        [tmp_path / "starts.extxyz"], settings, tmp_path / "sampled.extxyz", report=lambda *counts: told.append(counts)
    )
    assert summary.n_wanted == count
    assert told == [(0, count)]


CHANGES = {
    "teacher": TeacherSettings(calculator="ase.calculators.emt:EMT", options={"asap_cutoff": True}, check=False),
    "count": 4,
    "temperatures": (50.0, 60.0),
    "length": 2,
    "spacing": 2,
    "timestep": 1.0,
    "friction": 0.2,
    "strain": 0.0,
    "minutes": 1e-9,
    "seed": 1,
}


@pytest.mark.parametrize("name", SampleSettings.model_fields)
def test_each_setting_changes_the_frames(tmp_path, in_this_process, name):
    usual, other = tmp_path / "usual", tmp_path / "other"
    usual.mkdir()
    other.mkdir()
    if name == "minutes":  # the time is over before the first frame
        ase.io.write(other / "start.extxyz", bulk("Al", cubic=True))
        settings = SampleSettings(teacher=EMT_TEACHER, minutes=CHANGES[name])
        summary = sample([other / "start.extxyz"], settings, other / "sampled.extxyz")
        assert not summary.is_complete
        assert summary.n_frames == 0
        return
    before, after = sampled(usual), sampled(other, **{name: CHANGES[name]})
    differs = len(before) != len(after) or any(
        np.abs(first.positions - second.positions).max() > 1e-6
        or abs(first.get_potential_energy() - second.get_potential_energy()) > 1e-6
        for first, second in zip(before, after, strict=True)
    )
    assert differs


def test_the_step_follows_the_lightest_atom():
    rng = np.random.default_rng(0)
    settings = SampleSettings(teacher=EMT_TEACHER)
    for atoms, femtoseconds in [(molecule("H2O"), 1.004), (molecule("CO2"), 3.466), (bulk("Au"), 4.0)]:
        assert _next_segment(_new_run([atoms], settings, 60, rng), settings, rng).timestep == pytest.approx(
            femtoseconds, abs=1e-3
        )


def test_the_vacuum_of_a_slab_is_not_strained():
    slab = fcc111("Al", (1, 1, 3), vacuum=8.0)
    run = _new_run([slab], SampleSettings(teacher=EMT_TEACHER), 60, np.random.default_rng(0))
    np.testing.assert_allclose(run.atoms.cell.array[2], slab.cell.array[2], atol=1e-9)
    assert np.abs(run.atoms.cell.array[:2] - slab.cell.array[:2]).max() > 1e-3


BRITTLE = """
from ase.calculators.emt import EMT

class Brittle(EMT):
    def calculate(self, atoms=None, properties=None, system_changes=None):
        if {condition}:
            raise RuntimeError("no SCF")
        super().calculate(atoms, ["energy"], system_changes)

def calculator():
    return Brittle()
"""


def test_a_run_that_fails_gives_way_to_another(tmp_path):
    ase.io.write(tmp_path / "start.extxyz", bulk("Al", cubic=True))
    # the cell has 66.4 Angstrom^3 before it is strained
    condition = "atoms.get_volume() < 69"
    (tmp_path / "teacher.py").write_text(BRITTLE.format(condition=condition), encoding="utf-8")
    teacher = TeacherSettings(calculator=str(tmp_path / "teacher.py"), check=False, retries=0)
    settings = SampleSettings(teacher=teacher, count=6, length=1, spacing=1)
    summary = sample([tmp_path / "start.extxyz"], settings, tmp_path / "sampled.extxyz")
    assert summary.n_frames == 6
    assert summary.failures
    assert all("no SCF" in reason for reason in summary.failures)
    assert all(atoms.get_volume() > 69 for atoms in ase.io.read(tmp_path / "sampled.extxyz", ":"))


@pytest.mark.parametrize(("n_before", "condition"), [(0, "True"), (3, "os.path.exists('../../broken')")])
def test_a_teacher_that_always_fails_ends_the_sampling(tmp_path, n_before, condition):
    ase.io.write(tmp_path / "start.extxyz", bulk("Al", cubic=True))
    broken = tmp_path / "broken"
    condition = condition.replace("../../broken", str(broken))
    (tmp_path / "teacher.py").write_text("import os\n" + BRITTLE.format(condition=condition), encoding="utf-8")
    teacher = TeacherSettings(calculator=str(tmp_path / "teacher.py"), check=False, retries=0)

    def break_teacher(done, total):
        if done == n_before:
            broken.touch()

    with pytest.raises(
        TeacherError, match=rf"failed 10 times in a row, the last time with .*no SCF; .*{n_before} frames"
    ):
        sample(
            [tmp_path / "start.extxyz"],
            SampleSettings(teacher=teacher, spacing=1, count=20),
            tmp_path / "sampled.extxyz",
            report=break_teacher,
        )


@pytest.mark.parametrize(
    "values", [{"count": 0}, {"temperatures": (0.0, 300.0)}, {"temperatures": (900.0, 300.0)}, {"spacing": 0}]
)
def test_settings_are_checked(values):
    with pytest.raises(ValidationError):
        SampleSettings(teacher=EMT_TEACHER, **values)


OPTIONS = {
    "--count 7": ("count", 7),
    "--temperature 400 500": ("temperatures", (400.0, 500.0)),
    "-t 450": ("temperatures", (450.0, 450.0)),
    "--spacing 5": ("spacing", 5),
    "--minutes 2": ("minutes", 2.0),
    "--seed 9": ("seed", 9),
    "--processes 2": ("teacher.processes", 2),
    "--teacher-threads 3": ("teacher.threads", 3),
    "--teacher-options asap_cutoff=true": ("teacher.options", {"asap_cutoff": True}),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_the_command_arrive(tmp_path, monkeypatch, option):
    taken = []

    def record(files, settings, output, *, report):
        taken.append((files, settings, output))
        return SampleSummary(n_frames=1)

    monkeypatch.setattr("lrc_ase.cli.sampling.sample", record)
    arguments = ["sample", "start.cif", "--teacher", "ase.calculators.emt:EMT", "-o", str(tmp_path / "out.extxyz")]
    result = CliRunner().invoke(app, [*arguments, *option.split()])
    assert result.exit_code == 0, result.output
    [(files, value, output)] = taken
    assert files == ["start.cif"]
    assert output == tmp_path / "out.extxyz"
    name, expected = OPTIONS[option]
    for part in name.split("."):
        value = getattr(value, part)
    assert value == expected


def test_the_command_writes_frames_and_says_what_is_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("start.extxyz", bulk("Al", cubic=True))
    arguments = ["sample", "start.extxyz", "--teacher", "ase.calculators.emt:EMT", "-n", "3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "3 frames in sampled.extxyz" in result.output
    assert "lrc-ase train sampled.extxyz -o pretrained" in result.output
    assert len(ase.io.read("sampled.extxyz", ":")) == 3
    late = CliRunner().invoke(app, [*arguments, "-n", "5", "--minutes", "1e-9"])
    assert "the time is over after 3 of 5 frames\n" in late.output
    assert "the same command goes on" in late.output
    assert "goes on" not in result.output
    failed = CliRunner().invoke(app, [*arguments, "-o", "frames.traj"])
    assert failed.exit_code != 0
    assert "--output must end in .extxyz" in failed.output
