"""Edges of the learning loop: time that is over early, frames held out of several starts, frames that are left out."""

from __future__ import annotations

import ase.io
import pytest
from learn_runs import content, crystal

from lrc_ase.learning.active_learning import learn
from lrc_ase.learning.loop import Loop
from lrc_ase.learning.settings import parse_settings
from lrc_ase.learning.training_steps import configuration_of
from lrc_ase.report.learning_report import report_learning


def test_time_that_is_over_before_an_exploration_ends_the_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(Loop, "_out_of_time", lambda self: bool(self.state.records and self.state.record.train_seconds))
    summary = learn(content(tmp_path, budget={"minutes": 600.0, "teacher_calls": 8}), tmp_path / "run")
    assert [record.labelled for record in summary.records] == [4, 0]
    assert summary.records[0].runs == 0
    assert summary.end == "no new frame could be labelled"
    assert "  final training: 3 frames, " in (tmp_path / "run/log.txt").read_text()
    assert report_learning(tmp_path / "run").exists()
    monkeypatch.undo()
    assert learn(None, tmp_path / "run", resume=True).teacher_calls == 8


def test_time_that_is_over_before_the_first_label(tmp_path):
    with pytest.raises(ValueError, match="none of the 4 first frames: the time of the budget was over"):
        learn(content(tmp_path, budget={"minutes": 1e-9}), tmp_path / "run")


def test_first_frames_held_out_come_from_every_start(tmp_path, monkeypatch):
    """Copies of two starts stand in turn; a stride of two would hold out those of one alone."""
    starts = [tmp_path / "small.extxyz", tmp_path / "large.extxyz"]
    for atoms, path in zip((crystal(), crystal() * (1, 1, 2)), starts, strict=True):
        ase.io.write(path, atoms)
    settings = content(tmp_path, starts=[str(path) for path in starts], first__count=32, training__held_out=4)
    settings["budget"] = {"teacher_calls": 32}
    monkeypatch.setattr(Loop, "_label", lambda loop: loop._write(phase="done"))
    with pytest.raises(ValueError, match="potential"):  # there is none, as nothing was labelled
        learn(settings, tmp_path / "run")
    frames = ase.io.read(tmp_path / "run/iteration-00/requested.extxyz", ":")
    held_out = [len(atoms) for atoms in frames if atoms.info["held_out"]]
    assert len(held_out) == 8
    assert set(held_out) == {4, 8}


def test_keys_of_the_user_win_over_defaults_of_the_loop(tmp_path):
    ase.io.write(tmp_path / "train.extxyz", crystal())
    ase.io.write(tmp_path / "held-out.extxyz", crystal())
    for keys in ({"stages.validate_every": 7, "leave_out": 0.3}, {"stages[0].validate_every": 7, "leave_out": 0.3}):
        settings = parse_settings(content(tmp_path, training__settings=keys))
        configuration = configuration_of(settings, tmp_path, epochs=100, members=2, start=None)
        assert (configuration.stages[0].validate_every, configuration.leave_out) == (7, 0.3)
    usual = configuration_of(parse_settings(content(tmp_path)), tmp_path, epochs=100, members=2, start=None)
    assert (usual.stages[0].validate_every, usual.leave_out) == (5, 0.1)


def test_frames_that_are_not_trained_on_are_said_at_each_training(tmp_path, monkeypatch):
    monkeypatch.setattr("lrc_ase.learning.training_steps.LARGEST_FORCE", 1.0)
    settings = content(tmp_path, first={"count": 8, "rattle": 0.1}, budget={"iterations": 1})
    learn(settings, tmp_path / "run")
    n_trainings = len(list((tmp_path / "run").glob("**/train.extxyz")))
    assert (tmp_path / "run/log.txt").read_text().count("labelled frames are not trained on") == n_trainings > 1


def test_the_report_bears_an_exploration_without_snapshots(tmp_path, monkeypatch):
    """The time is over after the first step of the first walker, before a snapshot is kept."""
    answers = iter([False, *[True] * 100])
    monkeypatch.setattr(Loop, "_explore", _with_time(answers, Loop._explore))
    summary = learn(content(tmp_path, budget={"minutes": 5.0, "teacher_calls": 8}), tmp_path / "run")
    assert summary.records[0].runs == 1
    assert (tmp_path / "run/iteration-00/explored.extxyz").stat().st_size == 0
    assert "What was explored?" not in report_learning(tmp_path / "run").read_text()


def _with_time(answers, explore):
    """Return the phase `explore` with answers to the question whether the time is over."""

    def explored(loop):
        loop._out_of_time = lambda: next(answers)
        explore(loop)
        del loop._out_of_time

    return explored
