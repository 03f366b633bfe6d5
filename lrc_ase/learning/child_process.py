"""Child processes that run a module of this package: their command, their end, and what they said last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["command_of", "end_of_log", "end_with_children"]


def command_of(module: str) -> list[str]:
    """Return the command that calls `main` of a module.

    Modules are found as in this process, and nothing of its main script is executed.
    """
    path = [os.path.abspath(entry) for entry in sys.path]  # "" stands for the working folder
    program = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main()"
    return [sys.executable, "-c", program, json.dumps(path)]


def end_with_children(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, with all its children, whatever they do, and close its input."""
    with suppress(ProcessLookupError, PermissionError):  # the latter for a group of zombies on macOS
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def end_of_log(log: Path, length: int) -> str:
    """Return about the last `length` characters of a log in one line; a log may be larger than the memory."""
    with log.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 4 * length, 0))
        return " ".join(file.read(4 * length).decode("utf-8", errors="replace").split())[-length:]
