"""Locks of run folders and trajectories: one writer at a time, and the message says who it is."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys

import filelock
import pytest

from lrc_ase.files.lock import InUseError, exclusive_use

HOLDER = """
import sys, time
from lrc_ase.files.lock import exclusive_use
with exclusive_use(sys.argv[1], "the run"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock file."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_holds_the_lock(tmp_path, holder):
    expected = f"the run is in use by process {holder.pid} on {socket.gethostname()}: wait until"
    with pytest.raises(InUseError, match=expected), exclusive_use(tmp_path / "lock", "the run"):
        pass
    # and the refusal leaves the record for the next one
    with pytest.raises(InUseError, match=expected), exclusive_use(tmp_path / "lock", "the run"):
        pass


def test_a_killed_holder_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "lock").exists()
    with exclusive_use(tmp_path / "lock", "the run"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n{socket.gethostname()}\n"
    assert not (tmp_path / "lock").exists()


def test_the_same_process_is_refused_too_and_may_take_turns(tmp_path):
    for _ in range(2):
        with (
            exclusive_use(tmp_path / "lock", "the run"),
            pytest.raises(InUseError, match=f"process {os.getpid()} on"),
            exclusive_use(tmp_path / "lock", "the run"),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("record", [b"", b"\xff\xfe", b"twelve host", b"12"])
def test_a_record_that_cannot_be_read_is_another_process(tmp_path, record):
    with filelock.FileLock(tmp_path / "lock"):
        (tmp_path / "lock").write_bytes(record)
        with pytest.raises(InUseError, match="in use by another process: wait"), exclusive_use(tmp_path / "lock", "x"):
            pass


def test_a_record_cannot_write_to_the_terminal(tmp_path):
    with filelock.FileLock(tmp_path / "lock"):
        (tmp_path / "lock").write_text("12 \x1b[2Jhost" + 2000 * "x")
        with pytest.raises(InUseError) as caught, exclusive_use(tmp_path / "lock", "x"):
            pass
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "_acquire", refuse)
    with (
        pytest.warns(UserWarning, match=r"cannot be locked \(No locks available\)"),
        exclusive_use(tmp_path / "l", "x"),
    ):
        pass


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), exclusive_use(tmp_path / "file" / "lock", "x"):
        pass
