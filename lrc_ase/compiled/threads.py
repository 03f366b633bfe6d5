"""Kernels that release the interpreter lock, run on several threads: those of torch's OpenMP where that can be asked.

OpenMP's threads go on turning for some milliseconds after each operation of torch, waiting for the next one, and take
the processors from any others. As they are awake, ours is their next one. Where torch has another OpenMP than GNU's or
one compatible with it, and in forked processes, whose OpenMP is lost, a pool of our own does the work.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch

__all__ = ["even_ranges", "run_over_atoms", "run_over_ranges"]

_ATOMS_PER_THREAD = 8
"""Fewer atoms than this for each thread cost more in waking it than it saves."""


def run_over_atoms(kernel: Callable[..., Any], arguments: tuple, n_atoms: int, n_threads: int) -> list[Any]:
    """Results of ``kernel(*arguments, first, last)`` for even ranges of atoms, one for each thread."""
    n_threads = max(min(n_threads, n_atoms // _ATOMS_PER_THREAD), 1)
    return run_over_ranges(kernel, arguments, even_ranges(n_atoms, n_threads), n_threads)


def run_over_ranges(
    kernel: Callable[..., Any], arguments: tuple, ranges: Sequence[tuple[int, ...]], n_threads: int
) -> list[Any]:
    """Results of ``kernel(*arguments, *range)`` for each range; no two of them may write to the same place.

    Each thread, the caller's too, takes the next range as soon as it is free: one call to a thread costs as much as a
    small kernel. What a kernel raises is raised here, when all threads have ended.

    >>> run_over_ranges(lambda *given: given, ("a",), even_ranges(10, 3), n_threads=2)
    [('a', 0, 3), ('a', 3, 6), ('a', 6, 10)]
    """
    if n_threads == 1 or len(ranges) == 1:
        return [kernel(*arguments, *own) for own in ranges]
    n_threads = min(n_threads, len(ranges))
    left, results = deque(enumerate(ranges)), [None] * len(ranges)
    errors: list[BaseException] = []

    def work(*_: object) -> None:
        try:
            while not errors:
                try:
                    index, own = left.popleft()
                except IndexError:  # all are taken
                    return
                results[index] = kernel(*arguments, *own)
        except BaseException as error:  # an interrupt too: OpenMP would drop it
            errors.append(error)

    team = _team(os.getpid())
    if team is None:
        pool = _pool(n_threads - 1, os.getpid())
        helpers = [pool.submit(work) for _ in range(n_threads - 1)]
        work()
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    else:
        team(_Work(work), None, n_threads, 0)
    if errors:
        raise errors[0]
    return results


def even_ranges(n_atoms: int, n_ranges: int) -> list[tuple[int, int]]:
    """First atom and the one after the last of each range.

    >>> even_ranges(10, 3)
    [(0, 3), (3, 6), (6, 10)]
    """
    return [(n_atoms * index // n_ranges, n_atoms * (index + 1) // n_ranges) for index in range(n_ranges)]


_Work: Any = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_first_process = os.getpid()


@lru_cache(maxsize=4)
def _team(process: int) -> Any:
    """GOMP_parallel(work, data, n_threads, flags) of the OpenMP that torch has loaded for all, or None."""
    if sys.platform != "linux" or process != _first_process or not torch.backends.openmp.is_available():
        return None
    team = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if team is not None:
        team.argtypes, team.restype = [_Work, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return team


@lru_cache(maxsize=4)
def _pool(n_threads: int, process: int) -> ThreadPoolExecutor:
    """One pool per process: threads do not survive a fork."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="lrc-ase")
