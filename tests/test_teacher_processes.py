"""Processes of a teacher end when they should, whoever ends first."""

from __future__ import annotations

import io
import os
import signal
import threading

import pytest

from lrc_ase.learning import TeacherPool, TeacherSettings
from lrc_ase.learning.teacher_process import TeacherProcess
from lrc_ase.learning.teacher_worker import _Requests


def test_processes_end_where_one_cannot_be_started(tmp_path, monkeypatch):
    settings = TeacherSettings(calculator="ase.calculators.emt:EMT", processes=3)
    started = []

    def start(settings, folder):
        if len(started) == 2:
            raise OSError("no more processes")
        started.append(TeacherProcess(settings, folder))
        return started[-1]

    monkeypatch.setattr("lrc_ase.learning.teacher_pool.TeacherProcess", start)
    with pytest.raises(OSError, match="no more processes"), TeacherPool(settings, tmp_path):
        pass
    assert [process._popen.returncode for process in started] == [-signal.SIGKILL] * 2


def test_a_worker_whose_input_ends_right_after_a_structure_ends_at_once(monkeypatch):
    """The input may end before the worker has taken the structure from its queue."""
    killed = threading.Event()
    monkeypatch.setattr(os, "killpg", lambda group, sent: killed.set())
    requests = _Requests(io.StringIO("a structure\n"))
    assert killed.wait(5)
    assert requests.next() == "a structure\n"
