"""`lrc-ase learn`: options arrive in settings, lines on the terminal, exit statuses, the report."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from learn_runs import EMT, content
from test_learn_by_hand import answer
from typer.testing import CliRunner

from lrc_ase.cli import app
from lrc_ase.cli.learn_progress import LearnProgress, row
from lrc_ase.files.potential_file import load_potential
from lrc_ase.learning.active_learning import learn
from lrc_ase.learning.settings import LearnSettings, load_settings, parse_settings
from lrc_ase.learning.state import FreshErrors, IterationRecord, LearnFolder, LearnState
from lrc_ase.report.learning_report import report_learning
from lrc_ase.training.interruption import TrainingInterrupted

OPTIONS: dict[str, tuple[list[str], str, Any]] = {
    "--teacher": ([EMT], "teacher.calculator", EMT),
    "--teacher-options": (["asap_cutoff=true", "a=1"], "teacher.options", {"asap_cutoff": True, "a": 1}),
    "--processes": (["2"], "teacher.processes", 2),
    "--teacher-threads": (["2"], "teacher.threads", 2),
    "--timeout": (["60"], "teacher.timeout", 60.0),
    "--known": (["known.xyz"], "known", ("known.xyz",)),
    "--temperature": (["300", "1200.5"], "exploration.temperatures", (300.0, 1200.5)),
    "--pressure": (["1.5"], "exploration.pressure", 1.5),
    "--length": (["3"], "exploration.length", 3.0),
    "--timestep": (["1"], "exploration.timestep", 1.0),
    "--walkers": (["7"], "exploration.walkers", 7),
    "--model": (["accurate"], "training.settings", {"model.preset": "accurate"}),
    "--short-range": ([], "training.settings", {"model.long_range": None}),
    "--ensemble": (["3"], "training.ensemble", 3),
    "--final-members": (["2"], "training.final_members", 2),
    "--set": (["model.cutoff=6"], "training.settings", {"model.cutoff": 6}),
    "--teacher-calls": (["50"], "budget.teacher_calls", 50),
    "--minutes": (["5"], "budget.minutes", 5.0),
    "--target-error": (["12"], "budget.target_error", 12.0),
    "--frames": (["9"], "frames_per_iteration", 9),
    "--seed": (["4"], "seed", 4),
    "--threads": (["2"], "n_threads", 2),
}
OTHERWISE = {"--output", "--labels", "--template", "--resume", "--quiet", "--debug", "--help"}


class Stop(Exception):
    """Ends a command once the settings are known."""


def run(*words: str):
    return CliRunner().invoke(app, ["learn", *words])


@pytest.fixture
def called(tmp_path, monkeypatch):
    """Return a function that calls the command and returns the arguments of `learn`."""
    seen: list[tuple[Any, dict[str, Any]]] = []

    def stand_in(settings: Any, output: Any, **keywords: Any) -> None:
        seen.append((settings, {"output": output, **keywords}))
        raise Stop

    monkeypatch.setattr(importlib.import_module("lrc_ase.cli.learn"), "learn_potential", stand_in)
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[Any, dict[str, Any]]:
        seen.clear()
        result = run(*words, "--debug")
        assert isinstance(result.exception, Stop), result.output
        return seen[0]

    return call


def value_at(settings: LearnSettings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return tuple(Path(path).name for path in value) if key in ("known", "starts") else value


def test_every_option_has_a_case():
    group = typer.main.get_command(app)
    context = typer.Context(group)
    _, resolved, _ = group.resolve_command(context, ["learn"])
    options = {name for option in resolved.get_params(context) for name in option.opts if name.startswith("--")}
    assert options == set(OPTIONS) | OTHERWISE


@pytest.mark.parametrize("option", OPTIONS)
def test_option_arrives_in_its_setting(called, option, tmp_path):
    words, key, value = OPTIONS[option]
    teacher = ["--teacher", "other.module:Class"]
    without, _ = called("start.cif", *teacher)
    changed, _ = called("start.cif", *([] if option == "--teacher" else teacher), option, *words)
    assert value_at(without, key) != value
    assert value_at(changed, key) == value
    # on top of a YAML file
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump({"starts": "a.cif", "teacher": "other.module:Class"}))
    changed, _ = called("learn.yaml", option, *words)
    assert value_at(changed, key) == value
    assert value_at(changed, "starts") == ("a.cif",)


def test_lists_of_words_end_where_others_begin(called):
    settings, _ = called(
        "--temperature",
        "300",
        "9e2",
        "a.cif",
        "--teacher",
        EMT,
        "--teacher-options",
        "x=1",
        "y=2",
        "b.cif",
        "--seed",
        "3",
    )
    assert value_at(settings, "starts") == ("a.cif", "b.cif")
    assert settings.exploration.temperatures == (300.0, 900.0)
    assert settings.teacher.options == {"x": 1, "y": 2}


def test_keys_of_a_file_and_of_the_command_line_add_up(called, tmp_path):
    file = {"starts": "a.cif", "teacher": EMT, "training": {"settings": {"model.cutoff": 6}}}
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump(file))
    settings, _ = called("learn.yaml", "--set", "model.hidden=[8]")
    assert settings.training.settings == {"model.cutoff": 6, "model.hidden": [8]}


def test_ways_to_begin_and_to_go_on_arrive(called, tmp_path):
    _, keywords = called("a.cif", "--teacher", "none", "-o", "run")
    assert (str(keywords["output"]), keywords["resume"], list(keywords["labels"])) == ("run", False, [])
    (tmp_path / "run").mkdir()
    settings, keywords = called("run", "--resume", "--labels", "labelled.xyz")
    assert settings is None
    assert (str(keywords["output"]), keywords["resume"], keywords["labels"]) == ("run", True, ["labelled.xyz"])
    (tmp_path / "run/learn.yaml").write_text(yaml.safe_dump({"starts": "/a.cif", "teacher": EMT, "seed": 5}))
    settings, _ = called("run", "--resume", "--teacher-calls", "99")
    assert (settings.budget.teacher_calls, settings.seed) == (99, 5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name structures to start from, or a YAML file"),
        (["a.cif"], "name the reference method: --teacher GFN2-xTB, MODULE:CLASS"),
        (["a.cif", "--teacher", "none", "--processes", "2"], "--teacher none has no options, got teacher.processes"),
        (["a.cif", "b.cif", "--resume"], "with --resume only the run folder can be named, got a.cif b.cif"),
        (["--resume", "-o", "absent"], "absent holds no run of `lrc-ase learn` to resume"),
        (["--resume", "-o", "absent", "--seed", "3"], "absent holds no run of `lrc-ase learn` to resume"),
        (["absent.yaml"], "cannot read the settings absent.yaml"),
        (["list.yaml", "--seed", "3"], "list.yaml: expected keys such as 'starts' and 'teacher', got list"),
        (["five.yaml", "--minutes", "3"], "five.yaml: expected keys below 'budget', got int"),
        (["a.cif", "--teacher", "tblite"], "teacher.calculator: .*expected 'module:Class'"),
        (["a.cif", "--teacher", EMT, "--set", "model.cutof=5"], "unknown key 'model.cutof'"),
        (["a.cif", "--teacher", EMT, "--teacher-options", "x"], "a teacher's option needs NAME=VALUE"),
        (["absent.cif", "--teacher", EMT], "absent.cif"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("[a.cif]")
    Path("five.yaml").write_text("{starts: a.cif, teacher: null, budget: 5}")
    result = run(*words)
    assert result.exit_code == 1
    (line,) = result.output.strip().splitlines()
    assert line.startswith("Error: ")
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"calculator": "nowhere_at_all:Best"}, "there is no module 'nowhere_at_all'"),
        ({"calculator": "ase.calculators.test:FreeElectrons"}, "computes no forces"),
        (
            {"calculator": "ase.calculators.emt:EMT", "check": False, "retries": 0},
            "labelled none of the 4 first frames: .*No EMT-potential for Na",
        ),
    ],
)
def test_teachers_that_cannot_teach_end_the_run_in_one_line(teacher, message, tmp_path):
    from ase.build import bulk

    bulk("NaCl", "rocksalt", a=5.6, cubic=True).write(tmp_path / "start.extxyz")
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump(content(tmp_path, teacher=teacher)))
    result = run(str(tmp_path / "learn.yaml"), "-o", str(tmp_path / "run"), "--quiet")
    assert result.exit_code == 1
    assert re.search(message, result.output.strip().splitlines()[-1])


def test_template_is_printed():
    result = run("--template")
    assert result.exit_code == 0
    assert "temperatures: [300.0]" in result.output


def test_a_run_prints_a_table_of_80_columns_and_writes_a_report(tmp_path):
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump(content(tmp_path)))
    result = run(str(tmp_path / "learn.yaml"), "-o", str(tmp_path / "run"))
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    heading = next(index for index, line in enumerate(lines) if line.lstrip().startswith("iter "))
    rows = [line.split() for line in lines[heading + 1 : heading + 4]]
    assert [each[:2] for each in rows] == [["0", "4"], ["1", "8"], ["2", "10"]]
    assert max(map(len, lines[heading - 1 : heading + 4])) <= 80
    assert "NOT converged: the budget of 10 teacher calls is used up" in lines
    assert any(line.startswith("10 teacher calls, ") for line in lines)
    assert load_potential(tmp_path / "run/potential.safetensors").settings.elements == ("Al",)
    page = (tmp_path / "run/report.html").read_text()
    for text in ("did NOT converge", "Error on fresh labels", "Explored conditions", "Where did the time go", "Al-Al"):
        assert text in page
    assert page.count("data:image/png;base64") == 6
    again = run(str(tmp_path / "run"), "--resume", "--quiet")
    assert (again.exit_code, again.output) == (0, "")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), TrainingInterrupted("go on with --resume")])
def test_an_interrupted_run_says_how_it_goes_on(interruption, tmp_path, monkeypatch):
    """Ctrl-C in a training names the run, not the folder of the training."""

    def stand_in(*arguments, **options):
        raise interruption

    monkeypatch.setattr(importlib.import_module("lrc_ase.cli.learn"), "learn_potential", stand_in)
    result = run("start.cif", "--teacher", EMT, "-o", str(tmp_path / "run"), "--quiet")
    assert result.exit_code == 130
    folder = tmp_path / "run"
    assert result.output.strip().splitlines() == [
        f"Stopped; all labels are in {folder / 'labels.extxyz'}: `lrc-ase learn {folder} --resume` goes on."
    ]


def test_the_time_left_knows_the_budget_that_follows_from_the_size(tmp_path):
    """Cells of 4 atoms have a budget of 800 calls: after 200 in a minute, 3 minutes are left."""
    settings = parse_settings(content(tmp_path, budget={}))
    progress = LearnProgress(LearnFolder(tmp_path), settings, quiet=True)
    assert progress._minutes_left(LearnState(calls=200, seconds=60.0)) == pytest.approx(3.0)


def test_frames_to_label_end_with_a_status_of_their_own(tmp_path):
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump(content(tmp_path, teacher=None)))
    result = run(str(tmp_path / "learn.yaml"), "-o", str(tmp_path / "run"), "--quiet")
    assert result.exit_code == 3
    assert "4 frames wait for labels in" in result.output
    file = answer(tmp_path / "run/to-label-0.extxyz", tmp_path / "labelled.traj")
    result = run(str(tmp_path / "run"), "--resume", "--labels", file, "--quiet")
    assert result.exit_code == 3
    assert "to-label-1.extxyz" in result.output
    assert "not finished" in (tmp_path / "run/report.html").read_text()


def test_rows_show_what_is_known():
    fresh = FreshErrors(n_frames=4, forces_rmse=12.34, forces_predicted=10.0)
    record = IterationRecord(iteration=3, labelled=8, fresh={"all": fresh}, runs=4, alarms=1, explosions=1, hottest=900)
    state = LearnState(iteration=3, calls=40, seconds=90.0, records=(record,))
    assert row(record, state, 2.0).split() == ["3", "40", "12.3", "10.0", "-", "2/4", "0", "900", "1.5", "2.0"]
    assert row(IterationRecord(iteration=0), LearnState(), None).split()[2:6] == ["-"] * 4


def test_a_report_of_a_run_without_labels_says_so(tmp_path):
    from lrc_ase.learning.labelling import LabelsNeeded

    with pytest.raises(LabelsNeeded):
        learn(content(tmp_path, teacher=None), tmp_path / "run")
    page = report_learning(tmp_path / "run").read_text()
    assert "The run is not finished: iteration 0, label." in page
    assert load_settings(LearnFolder(tmp_path / "run").settings).teacher is None
