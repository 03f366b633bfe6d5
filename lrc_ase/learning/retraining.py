"""Retraining of a potential in a process of its own, from its weights, on frames in files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrc_ase.files.atomic import write_atomically
from lrc_ase.learning.child_process import command_of, end_of_log, end_with_children
from lrc_ase.training.options import option_keys

__all__ = ["Retraining", "RetrainingError", "check_options"]

_RESULT = "retrained.json"
"""File in the folder of a training that names its potential; it appears when the training has ended."""
_SHOWN_OUTPUT = 500
"""Characters at the end of the output of a failed training that a message shows."""


class RetrainingError(RuntimeError):
    """Error of a retraining that ended without a potential."""


class Retraining:
    """A training in a process of its own, which ends with this process.

    Parameters
    ----------
    frames
        Files of labelled frames.
    folder
        Folder of the run, which must not exist.
    start
        Potential whose weights training starts from: a file, a run folder or the name of a shipped one.
    options
        Options of `lrc_ase.training.train`, such as ``{"epochs": 20, "n_threads": 1}``.
    """

    def __init__(self, frames: Sequence[str], folder: Path, start: str, options: Mapping[str, Any]) -> None:
        self.folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        job = {"frames": list(frames), "folder": str(folder), "start": start, "options": dict(options)}
        self._log = folder.with_name(f"{folder.name}.log")
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                command_of("lrc_ase.learning.retraining"),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):
            self._popen.stdin.write(json.dumps(job, default=os.fspath).encode() + b"\n")
            self._popen.stdin.flush()

    @property
    def has_ended(self) -> bool:
        """Return True if the training has ended, well or not."""
        return self._popen.poll() is not None

    def wait(self) -> Path:
        """Wait for the end of the training; return the file of its potential.

        Raises
        ------
        RetrainingError
            The training failed; the message shows the end of its output.
        """
        try:
            status = self._popen.wait()
        finally:  # also after Ctrl-C
            self.close()
        result = self.folder / _RESULT
        if status != 0 or not result.exists():
            output = end_of_log(self._log, _SHOWN_OUTPUT) or "no output"
            raise RetrainingError(f"the training in {self.folder} failed (exit status {status}): {output}")
        return Path(json.loads(result.read_text(encoding="utf-8")))

    def close(self) -> None:
        """End the training, finished or not."""
        end_with_children(self._popen)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise TypeError for options that `train` lacks, that a retraining sets itself, or that JSON cannot hold."""
    for name in ("start", "resume"):
        if name in options:
            raise TypeError(f"a retraining sets '{name}' itself: leave it out of `training`")
    option_keys({name: value for name, value in options.items() if name != "settings"})
    try:
        json.dumps(dict(options), default=os.fspath)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"options of a retraining must be numbers, texts, lists or paths of plain Python: {error}"
        ) from None


def main() -> None:
    """Train as the first line of the input says; end when the input does."""
    file = os.fdopen(os.dup(0), encoding="utf-8")
    job = json.loads(file.readline())

    def end_with_parent() -> None:
        file.read()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end_with_parent, daemon=True).start()
    from lrc_ase.training import train  # here: the thread watches the parent while PyTorch loads

    potential = train(job["frames"], job["folder"], start=job["start"], quiet=True, **job["options"])
    write_atomically(Path(job["folder"], _RESULT), json.dumps(str(Path(potential).resolve())).encode())
