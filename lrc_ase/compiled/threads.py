"""Run kernels that release the interpreter lock on several threads, if possible on those of torch's OpenMP.

The threads of OpenMP spin for some milliseconds after each operation of torch and occupy the processors meanwhile.
Kernels therefore run on these threads. If the OpenMP of torch is not compatible with GNU's, a pool of threads runs the
kernels.

A forked process inherits an OpenMP without threads: the next operation of torch on several threads would wait for them
forever. Once a process has computed on several threads, its forks therefore compute on one thread.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch

__all__ = ["even_ranges", "run_over_atoms", "run_over_ranges"]

_ATOMS_PER_THREAD = 8
"""Fewest atoms per thread: for fewer, waking the thread costs more time than it saves."""


def run_over_atoms(kernel: Callable[..., Any], arguments: tuple[Any, ...], n_atoms: int, n_threads: int) -> list[Any]:
    """Return the results of ``kernel(*arguments, first, last)`` for even ranges of atoms, one for each thread."""
    if n_threads == 1:  # the usual case in dynamics of small structures, without further calls
        return [kernel(*arguments, 0, n_atoms)]
    _keep_forks_single_threaded()
    n_threads = max(min(n_threads, n_atoms // _ATOMS_PER_THREAD), 1)
    return run_over_ranges(kernel, arguments, even_ranges(n_atoms, n_threads), n_threads)


def run_over_ranges(
    kernel: Callable[..., Any], arguments: tuple[Any, ...], ranges: Sequence[tuple[int, ...]], n_threads: int
) -> list[Any]:
    """Return the results of ``kernel(*arguments, *range)`` for each range.

    No two ranges may write to the same memory. Each thread, including the caller's, takes the next range as soon as it
    is free, as one call to a thread costs as much as a small kernel. An exception of a kernel is raised here after all
    threads have finished.

    >>> run_over_ranges(lambda *numbers: numbers, ("a",), even_ranges(10, 3), n_threads=2)
    [('a', 0, 3), ('a', 3, 6), ('a', 6, 10)]
    """
    if n_threads > 1:
        _keep_forks_single_threaded()
    if n_threads == 1 or len(ranges) == 1:
        return [kernel(*arguments, *numbers) for numbers in ranges]
    n_threads = min(n_threads, len(ranges))
    waiting, results = deque(enumerate(ranges)), [None] * len(ranges)
    errors: list[BaseException] = []

    def work() -> Iterator[None]:
        # A signal (Ctrl-C) that arrives as a function begins is raised before the first line, outside its `try`, and
        # OpenMP, which called the function, drops it. A generator that has been started goes on inside its `try`.
        try:
            yield
            while not errors:
                try:
                    index, numbers = waiting.popleft()
                except IndexError:  # all ranges are taken
                    break
                results[index] = kernel(*arguments, *numbers)
        except GeneratorExit:  # OpenMP had fewer threads to give
            return
        except BaseException as error:  # an interrupt too: OpenMP would drop it
            errors.append(error)
        yield

    workers = [work() for _ in range(n_threads)]
    for worker in workers:
        next(worker)
    next_worker = map(next, workers).__next__  # runs no line of Python outside a worker
    team = _team(os.getpid())
    if team is None:
        pool = _pool(n_threads - 1, os.getpid())
        helpers = [pool.submit(next_worker) for _ in range(n_threads - 1)]
        next_worker()
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    else:
        team(_Work(next_worker), None, n_threads, 0)
    if errors:
        raise errors[0]
    return results


def even_ranges(n_atoms: int, n_ranges: int) -> list[tuple[int, int]]:
    """Return the first atom of each range and the atom after the last one.

    >>> even_ranges(10, 3)
    [(0, 3), (3, 6), (6, 10)]
    """
    return [(n_atoms * index // n_ranges, n_atoms * (index + 1) // n_ranges) for index in range(n_ranges)]


_Work: Any = ctypes.CFUNCTYPE(None)  # the pointer to data that OpenMP hands over stays in its register
_first_process = os.getpid()


@lru_cache(maxsize=1)
def _keep_forks_single_threaded() -> None:
    """Restrict forks of this process, and forks of these, to one thread, in operations of torch too."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@lru_cache(maxsize=4)
def _team(process: int) -> Any:
    """Return GOMP_parallel(work, data, n_threads, flags) of the OpenMP that torch has loaded, or None."""
    if sys.platform != "linux" or process != _first_process or not torch.backends.openmp.is_available():
        return None
    team = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if team is not None:
        team.argtypes, team.restype = [_Work, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return team


@lru_cache(maxsize=4)
def _pool(n_threads: int, process: int) -> ThreadPoolExecutor:
    """Return the pool of a process: threads do not survive a fork."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="lrc-ase")
