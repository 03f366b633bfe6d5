"""Files that are written whole or not at all.

The content goes to a temporary file in the same folder, is flushed to disk, and is renamed to the final name. A crash
at any moment leaves the old file or the new one.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

__all__ = ["remove_leftovers", "replacing", "write_atomically", "writing"]

_LONGEST_PREFIX = 100
"""Characters of the target's name in the temporary name; file systems allow 255 in all."""
_RANDOM_BYTES = 8


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file for the content of `path`; move it to `path` at the end of the context.

    The temporary file is empty, lies in the same folder and has the same suffix, so that libraries that choose a format
    by the suffix can write to it. If the context ends with an error the temporary file is removed and `path` is left
    as it was.

    A new file gets the permissions that the umask allows; an existing one keeps its permissions. The temporary
    name is random and the file is created exclusively, so that a link planted in a shared folder is never followed.

    Raises
    ------
    OSError
        The file cannot be written, for example because the disk is full; the error names `path`. `path` is a folder, a
        device or a pipe.
    """
    target = Path(path)
    try:
        permissions = _permissions(target)
        temporary = _create(target)
        try:
            if permissions is not None:
                _set_permissions(temporary, permissions | stat.S_IWUSR)
            yield temporary
            _flush(temporary)
            if permissions is not None:
                _set_permissions(temporary, permissions)
            os.replace(temporary, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        # errors of other files, raised by the caller's code within the context, pass unchanged
        if error.errno is None or not _concerns(error, target):
            raise
        raise type(error)(error.errno, error.strerror, str(target)) from error


@contextmanager
def writing(path: str | os.PathLike[str], *, text: bool = False) -> Iterator[IO[Any]]:
    """Open a temporary file that becomes `path` at the end of the context; see `replacing`.

    The file is binary, or UTF-8 text with unchanged line ends.
    """
    with replacing(path) as temporary:
        file: IO[Any] = temporary.open("w", encoding="utf-8", newline="") if text else temporary.open("wb")
        with file:
            yield file


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the file at `path` by `content` in one step; see `replacing`."""
    with writing(path) as file:
        file.write(content)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove temporary files of writes to `path` that were killed; call it only where nobody else writes `path`."""
    target = Path(path)
    prefix, suffix = _temporary_name(target)
    for leftover in target.parent.iterdir():
        middle = leftover.name.removeprefix(prefix).removesuffix(suffix)
        is_ours = leftover.name == f"{prefix}{middle}{suffix}" and len(middle) == 2 * _RANDOM_BYTES
        if is_ours and not set(middle) - set("0123456789abcdef"):
            leftover.unlink(missing_ok=True)


def _permissions(target: Path) -> int | None:
    """Return the permissions of a file, None if it does not exist; raise OSError for a folder or a device."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(target))
    if not stat.S_ISREG(mode):  # a rename would replace a device such as /dev/null by a file
        raise OSError(errno.EINVAL, "is no regular file", str(target))
    return mode & 0o777


def _set_permissions(file: Path, permissions: int) -> None:
    """Set permissions that differ from the present ones."""
    if os.stat(file).st_mode & 0o777 != permissions:  # some file systems refuse any chmod
        os.chmod(file, permissions)


def _temporary_name(target: Path) -> tuple[str, str]:
    """Return beginning and end of temporary names for `target`; random digits stand between them."""
    return f".{target.name[:_LONGEST_PREFIX]}.", target.suffix


def _create(target: Path) -> Path:
    """Create an empty temporary file in the folder of `target`."""
    prefix, suffix = _temporary_name(target)
    temporary = target.with_name(f"{prefix}{secrets.token_hex(_RANDOM_BYTES)}{suffix}")
    # 0o666 without the bits of the umask, as for any new file; `tempfile` would set 0o600
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return temporary


def _flush(file: Path) -> None:
    """Wait until the content of a file is on disk: a rename may reach the disk before the content does."""
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _concerns(error: OSError, target: Path) -> bool:
    """Return True if an error is about `target`, its temporary file, or a file that the error does not name."""
    if error.filename is None:  # a write to an open file, such as on a full disk
        return True
    name = os.path.basename(os.fsdecode(error.filename)) if not isinstance(error.filename, int) else ""
    prefix, suffix = _temporary_name(target)
    return name == target.name or (name.startswith(prefix) and name.endswith(suffix))
