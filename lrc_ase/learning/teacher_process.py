"""Handle of one worker process of a teacher: its start, one structure at a time, time limit and end."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ase.io.jsonio import decode

from lrc_ase.learning.child_process import command_of, end_of_log, end_with_children
from lrc_ase.learning.teacher import TeacherError, TeacherSettings

__all__ = ["TeacherProcess", "wait_for_answers"]

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_LONGEST_START = 900.0
"""Seconds for imports and for building the calculator, downloads of weights included."""
_FAREWELL = 3.0
"""Seconds for a process without work to end by itself."""
_READ = 1 << 20
_SHOWN_OUTPUT = 300
"""Characters at the end of the output of a crashed process that a message shows."""


class TeacherProcess:
    """A worker process with the working folder `folder`, in a session of its own, so that its children end with it."""

    def __init__(self, settings: TeacherSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.task: Any = None
        """Task that the process works at; None if it is free."""
        self._user_folder = os.getcwd()
        self._runs = False
        self.start()

    def start(self) -> None:
        """Start the process if it does not run; do not wait until it is ready."""
        if self._runs:
            return
        self._runs = True
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        threads = dict.fromkeys(_THREAD_VARIABLES, str(self.settings.threads))
        self._popen = subprocess.Popen(
            command_of("lrc_ase.learning.teacher_worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self._user_folder,
            env={**os.environ, **threads, **self.settings.environment},
            start_new_session=True,
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._input, self.output = self._popen.stdin, self._popen.stdout
        os.set_blocking(self.output.fileno(), False)
        self._buffer = bytearray()
        self._ended = self._ready = False
        self._begin(_LONGEST_START)
        start = {"settings": self.settings.model_dump(), "scratch": str(self.folder), "log": str(self._log)}
        self._send(json.dumps(start))

    @property
    def _log(self) -> Path:
        return self.folder / "output.log"

    def wait_until_ready(self) -> None:
        """Wait until the process has built the teacher; TeacherError if it cannot."""
        if self._ready:
            return
        wait_for_answers([self])
        answer = self._take_answer()
        if "error" in answer:
            raise TeacherError(answer["error"])
        if "failure" in answer:
            raise TeacherError(f"teacher {self.settings.calculator}: while it was built, {answer['failure']}")
        self._ready = True

    def begin(self, task: Any, request: str, n_calculations: int = 1) -> None:
        """Send the structure of `task`, a line of JSON; the time limit holds for each of its calculations."""
        if self._runs and self._ready and self._popen.poll() is not None:  # it has ended while it was idle
            self.kill()
        self.start()
        self.wait_until_ready()
        self.task = task
        self._begin(None if self.settings.timeout is None else n_calculations * self.settings.timeout)
        self._send(request)

    def end(self) -> dict[str, Any]:
        """Return the answer about the structure; replace the process if it has crashed or exceeded its time."""
        self.task = None
        answer = self._take_answer()
        if answer.pop("is_lost", False):
            self.kill()
            self.start()
        return answer

    def close(self) -> None:
        """End the process with all its children; one without work may clean up first."""
        if self._runs and self._ready and self.task is None:
            with suppress(BrokenPipeError):
                self._input.close()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(_FAREWELL)
        self.kill()

    def kill(self) -> None:
        """End the process with all its children, whatever they do; the next structure starts another one."""
        self.task = None
        if not self._runs:
            return
        self._runs = False
        end_with_children(self._popen)
        self.output.close()

    @property
    def has_answered(self) -> bool:
        """Return True if there is an answer, or the process has ended."""
        return self._ended or self._buffer.endswith(b"\n")

    @property
    def remaining(self) -> float:
        """Return the seconds until the time limit."""
        if self._buffer:  # the answer is arriving: the calculation has ended
            return float("inf")
        return self._deadline - time.monotonic()

    def receive(self) -> None:
        """Read what the process has written."""
        piece = self.output.read(_READ)
        if piece == b"":
            self._ended = True
        elif piece is not None:
            self._buffer += piece

    def _begin(self, limit: float | None) -> None:
        self._began = time.monotonic()
        self._deadline = float("inf") if limit is None else self._began + limit

    def _send(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the process has ended, as its output will show
            self._input.write(line.encode() + b"\n")
            self._input.flush()

    def _take_answer(self) -> dict[str, Any]:
        """Return an answer, or the reason why there is none."""
        line = bytes(self._buffer)
        self._buffer.clear()
        if line.endswith(b"\n"):
            answer: dict[str, Any] = decode(line.decode())
            return answer
        seconds = time.monotonic() - self._began
        reason = self._crash() if self._ended else f"there was no result after {seconds:.3g} s (the time limit)"
        return {"failure": reason, "seconds": seconds, "is_lost": True}

    def _crash(self) -> str:
        """Describe the end of a process."""
        try:
            status = self._popen.wait(_FAREWELL)
        except subprocess.TimeoutExpired:  # its output is closed but it lives
            return "the process of the teacher closed its output"
        how = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        shown = ""
        with suppress(OSError):
            shown = end_of_log(self._log, _SHOWN_OUTPUT)
        return f"the process of the teacher ended with {how}" + (f" after: {shown}" if shown else "")


def wait_for_answers(processes: Sequence[TeacherProcess]) -> list[TeacherProcess]:
    """Wait until at least one process has answered, ended, or exceeded its time; return all of those."""
    with selectors.DefaultSelector() as selector:
        for process in processes:
            if not process.has_answered:
                selector.register(process.output, selectors.EVENT_READ, process)
        while not (answered := [process for process in processes if process.has_answered]):
            remaining = min(process.remaining for process in processes)
            events = selector.select(None if remaining == float("inf") else max(remaining, 0.0))
            for key, _ in events:
                key.data.receive()
            if not events and (late := [process for process in processes if process.remaining <= 0]):
                return late
        return answered
