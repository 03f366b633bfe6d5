"""Cache of compiled kernels on disk: Numba's cache with checksums, whose failures never end a program.

Numba's own cache raises an error if it cannot write, if the disk is full, or if a file was truncated, and it executes
the machine code of damaged files. The replaced classes and methods are internals of Numba;
``tests/test_kernel_cache.py`` shows which of them a new release has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from numba import config
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache

__all__ = ["KernelCacheWarning", "kernel_cache"]

_DIGEST_BYTES = 32


class KernelCacheWarning(UserWarning):
    """Warning that compiled kernels cannot be saved or read, so that a later process compiles them again."""


def kernel_cache(function: Callable[..., Any]) -> Any:
    """Return the cache of one kernel; warn and return an empty cache if no folder is writable."""
    try:
        cache = _KernelCache(function)
    except (RuntimeError, OSError) as error:  # RuntimeError: none of the folders that Numba tries is writable
        _warn_not_kept(error)
        return NullCache()
    if config.CACHE_DIR and not _lies_below(cache.cache_path, config.CACHE_DIR):
        _warn_once(
            f"NUMBA_CACHE_DIR={config.CACHE_DIR} cannot be written: compiled kernels are kept in {cache.cache_path}"
        )
    return cache


class _KernelCache(FunctionCache):
    """Numba's cache of a function, which compiles the kernel again if files cannot be read or written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        # in place of Numba's, with the same arguments; its constructor takes no class of files
        self._cache_file = _CheckedFiles(
            cache_path=self.cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the kernel on disk, or None if there is none or its files are damaged."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # a damaged pickle raises any class; compiling is always a valid answer
            _warn_damaged(self.cache_path, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a compiled kernel; after a failure the program continues with the kernel in memory."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _warn_not_kept(error)


class _CheckedFiles(IndexDataCacheFile):
    """Index and data files that end in a checksum, which Numba's unpickler ignores, as it follows the pickle."""

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[IO[bytes]]:
        with super()._open_for_write(filepath) as file:
            yield file
            # the digest of the file as it was written: Numba pickles into it and keeps no copy
            file.flush()
            with open(file.name, "rb") as written:
                digest = hashlib.sha256(written.read()).digest()
            file.write(digest)

    def _load_index(self) -> dict[Any, str]:
        try:
            _verify_checksum(self._index_path)
            return super()._load_index()
        except FileNotFoundError:
            return {}
        except Exception as error:  # with an empty index `save` writes a new one
            _warn_damaged(self._index_path, error)
            return {}

    def _load_data(self, name: str) -> Any:
        _verify_checksum(self._data_path(name))
        return super()._load_data(name)


def _verify_checksum(path: str) -> None:
    """Raise ValueError unless a file ends in the checksum of the preceding bytes."""
    with open(path, "rb") as file:
        content = file.read()
    # no protection against an attacker, who could write the digest too: against truncation and faults of the disk
    if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
        raise ValueError(f"wrong checksum of {path}")


def _lies_below(path: str, folder: str) -> bool:
    return Path(folder).absolute() in Path(path).absolute().parents


def _warn_not_kept(error: Exception) -> None:
    _warn_once(
        "compiled kernels cannot be kept on disk, so that every process compiles them again (half a minute): set "
        f"NUMBA_CACHE_DIR to a folder that can be written ({_one_line(error)})"
    )


def _warn_damaged(path: str, error: Exception) -> None:
    _warn_once(f"{path}: compiled kernels are damaged and are compiled again ({_one_line(error)})")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _warn_once(message: str) -> None:
    """Issue a warning for the first problem in a process only: other kernels fail for the same reason."""
    # `warnings` would show one for each of some twenty kernels, as their messages differ
    if not _warnings_given:
        _warnings_given.append(message)
        warnings.warn(message, KernelCacheWarning, stacklevel=2)


_warnings_given: list[str] = []
