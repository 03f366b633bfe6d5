"""Active learning without a teacher: frames are written, labelled elsewhere, and taken back."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from learn_runs import assert_equal_runs, content, labels_of

from lrc_ase.learning.active_learning import learn
from lrc_ase.learning.labelling import LabelsNeeded
from lrc_ase.learning.loop import Loop


def answer(request, target, *, drop_names=False, wrap=False, digits=None, shift=0.0, keep=slice(None)):
    """Label frames as a user would, with some of the habits of other programs."""
    frames = ase.io.read(request, ":")[keep]
    for atoms in frames:
        if drop_names:
            atoms.info = {}
        if wrap:
            atoms.wrap()
        if digits is not None:
            atoms.positions = np.round(atoms.positions, digits)
        atoms.positions += shift
        atoms.calc = EMT()
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    ase.io.write(target, frames)
    return str(target)


def waiting(run, **options):
    with pytest.raises(LabelsNeeded) as caught:
        learn(options.pop("settings", None), run, **options)
    return str(caught.value)


def test_labels_by_hand_give_the_run_that_a_teacher_gives(tmp_path):
    run = tmp_path / "run"
    message = waiting(run, settings=content(tmp_path, teacher=None))
    assert message.startswith(f"4 frames wait for labels in {run}/to-label-0.extxyz")
    assert f"lrc-ase learn {run} --resume --labels labelled.extxyz" in message
    # asked again, it says the same
    assert waiting(run, resume=True) == message
    for number in range(2):
        file = answer(run / f"to-label-{number}.extxyz", tmp_path / f"labelled-{number}.traj")
        assert f"to-label-{number + 1}.extxyz" in waiting(run, resume=True, labels=[file])
    file = answer(run / "to-label-2.extxyz", tmp_path / "labelled-2.traj")
    summary = learn(None, run, resume=True, labels=[file])
    assert summary.teacher_calls == 10
    learn(content(tmp_path), tmp_path / "taught")
    assert_equal_runs(run, tmp_path / "taught")


def test_frames_are_recognised_without_names_wrapped_and_rounded(tmp_path):
    run = tmp_path / "run"
    waiting(run, settings=content(tmp_path, teacher=None))
    asked = ase.io.read(run / "to-label-0.extxyz", ":")
    file = answer(run / "to-label-0.extxyz", tmp_path / "labelled.extxyz", drop_names=True, wrap=True, digits=5)
    waiting(run, resume=True, labels=[file])
    stored = labels_of(run)
    assert len(stored) == 4
    for atoms, request in zip(stored, asked, strict=True):
        np.testing.assert_array_equal(atoms.positions, request.positions)
        assert atoms.info["learn_frame"] == request.info["learn_frame"]


def test_frames_without_a_label_are_left_out_and_said(tmp_path):
    run = tmp_path / "run"
    waiting(run, settings=content(tmp_path, teacher=None))
    file = answer(run / "to-label-0.extxyz", tmp_path / "labelled.traj", keep=slice(3))
    waiting(run, resume=True, labels=[file])
    assert len(labels_of(run)) == 3
    assert f"no label for 0-03: not in {file}" in (run / "log.txt").read_text()


def test_labels_that_were_not_asked_for(tmp_path):
    run = tmp_path / "run"
    waiting(run, settings=content(tmp_path, teacher=None))
    request = run / "to-label-0.extxyz"
    moved = answer(request, tmp_path / "moved.traj", shift=0.01)
    with pytest.raises(ValueError, match="the frame 0-00 does not have the atoms, positions and cell that were asked"):
        learn(None, run, resume=True, labels=[moved])
    other = answer(request, tmp_path / "other.traj", shift=0.01, drop_names=True)
    with pytest.raises(ValueError, match=r"none of the 4 frames in .* is one of the 4 that were asked for in"):
        learn(None, run, resume=True, labels=[other])
    bare = ase.io.read(request, ":")
    ase.io.write(tmp_path / "bare.traj", bare)
    with pytest.raises(ValueError, match="no energy"):
        learn(None, run, resume=True, labels=[str(tmp_path / "bare.traj")])
    assert not (run / "labels.extxyz").exists()


def test_a_command_may_be_repeated_after_its_labels_were_taken(tmp_path, monkeypatch):
    run = tmp_path / "run"
    waiting(run, settings=content(tmp_path, teacher=None))
    file = answer(run / "to-label-0.extxyz", tmp_path / "labelled.traj")

    def interrupt(loop):
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        learn(None, run, resume=True, labels=[file])
    monkeypatch.undo()
    assert "to-label-1.extxyz" in waiting(run, resume=True, labels=[file])
    assert f"{file}: not read, the run does not wait for labels now" in (run / "log.txt").read_text()
