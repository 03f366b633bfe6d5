"""Lock files, which keep two processes from writing the same run folder or trajectory."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

__all__ = ["InUseError", "exclusive_use"]

_LARGEST_RECORD = 1024
"""Number of bytes of a lock file that are read for a message."""
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of file systems without locks, such as NFS without its lock daemon."""


class InUseError(ValueError):
    """Error of a lock that another process holds; the message names that process."""


@contextmanager
def exclusive_use(lock_file: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Hold `lock_file` for the duration of the context; the kernel releases it however the process ends.

    The file contains process number and host of the process that holds it, and is removed at the end. `what` names
    the locked output in messages.

    Raises
    ------
    InUseError
        Another process, or another run in this process, holds the lock.
    OSError
        The file cannot be created.

    Warns
    -----
    UserWarning
        The file system has no locks. Nothing is locked then.
    """
    path = Path(lock_file)
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InUseError(
            f"{what} is in use by {_holder(path)}: wait until that process ends, stop it, or name another output"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        warnings.warn(
            f"{what} cannot be locked ({error.strerror}): do not start a second process that writes there",
            stacklevel=1,  # this module: the command line shows only warnings of this package
        )
        yield
        return
    try:
        if not isinstance(lock, filelock.SoftFileLock):  # a soft lock keeps its state, the same two lines, in the file
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        if not isinstance(lock, filelock.SoftFileLock):
            # removed before release: a process that has opened it meanwhile finds the name gone and tries again
            with suppress(FileNotFoundError):
                path.unlink()
        lock.release()


def _holder(path: Path) -> str:
    """Return process and host from a lock file, or "another process" if the file names none."""
    try:
        with path.open("rb") as file:
            lines = file.read(_LARGEST_RECORD).decode("utf-8", errors="replace").split()
    except OSError:
        lines = []
    if len(lines) < 2 or not lines[0].isdigit():
        return "another process"
    host = "".join(letter for letter in lines[1] if letter.isprintable())
    return f"process {lines[0]} on {host[:64]}"
