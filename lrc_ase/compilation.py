"""How kernels for the CPU are compiled by Numba, kept on disk and run on several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from numba import njit

__all__ = ["called", "compiled", "even_ranges", "inlined", "run_over_atoms", "run_over_ranges"]


def compiled(function: Callable[..., Any], *variant: object) -> Any:
    """Compile a kernel under a name of its own, without the liberties of fastmath: NaN comes out where it went in.

    Numba numbers the cached files of all functions of one name by what it finds on disk, so that two processes that
    compile different variants at the same moment would swap them. With one name for each variant, precision included,
    they can only write the same thing twice.
    """
    function.__qualname__ = "_".join(map(str, variant))
    return njit(cache=True, nogil=True, error_model="numpy")(function)


called: Any = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of functions that kernels alone call: ways in from Python and C would take their time to compile."""

inlined: Any = njit(forceinline=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of functions that kernels call with constants.

LLVM inlines them. Numba's own inlining copies the text of the function, which it then analyzes anew at every call: that
took about 40% of the time of a first call. Kernels must find such functions in their module: one that closes over a
function is not cached on disk.
"""


def run_over_atoms(kernel: Callable[..., Any], arguments: tuple, n_atoms: int, n_threads: int) -> list[Any]:
    """Results of ``kernel(*arguments, first, last)`` for even ranges of atoms, one for each thread."""
    n_threads = max(min(n_threads, n_atoms // _ATOMS_PER_THREAD), 1)
    return run_over_ranges(kernel, arguments, even_ranges(n_atoms, n_threads), n_threads)


def run_over_ranges(
    kernel: Callable[..., Any], arguments: tuple, ranges: Sequence[tuple[int, ...]], n_threads: int
) -> list[Any]:
    """Results of ``kernel(*arguments, *range)`` for each range; no two of them may write to the same place.

    Kernels release the interpreter lock. Each thread, the caller's too, takes the next range as soon as it is free: one
    call to a pool per thread, since each call costs as much as a small kernel.

    >>> run_over_ranges(lambda *given: given, ("a",), even_ranges(10, 3), n_threads=2)
    [('a', 0, 3), ('a', 3, 6), ('a', 6, 10)]
    """
    if n_threads == 1 or len(ranges) == 1:
        return [kernel(*arguments, *own) for own in ranges]
    left, results = deque(enumerate(ranges)), [None] * len(ranges)

    def work() -> None:
        while left:
            try:
                index, own = left.popleft()
            except IndexError:  # another thread was faster
                return
            results[index] = kernel(*arguments, *own)

    pool = _pool(n_threads - 1, os.getpid())
    helpers = [pool.submit(work) for _ in range(min(n_threads, len(ranges)) - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()
    return results


def even_ranges(n_atoms: int, n_ranges: int) -> list[tuple[int, int]]:
    """First atom and the one after the last of each range.

    >>> even_ranges(10, 3)
    [(0, 3), (3, 6), (6, 10)]
    """
    return [(n_atoms * index // n_ranges, n_atoms * (index + 1) // n_ranges) for index in range(n_ranges)]


_ATOMS_PER_THREAD = 8
"""Fewer atoms than this for each thread cost more in waking it than it saves."""


@lru_cache(maxsize=4)
def _pool(n_threads: int, process: int) -> ThreadPoolExecutor:
    """One pool per process: threads do not survive a fork."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="lrc-ase")
