"""How kernels for the CPU are compiled by Numba, kept on disk and run on several threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit

__all__ = ["compiled", "run_over_atoms"]


def compiled(function: Callable[..., Any], *variant: object) -> Any:
    """Compile a kernel under a name of its own, without the liberties of fastmath: NaN comes out where it went in.

    Numba numbers the cached files of all functions of one name by what it finds on disk, so that two processes that
    compile different variants at the same moment would swap them. With one name for each variant, precision included,
    they can only write the same thing twice.
    """
    function.__qualname__ = "_".join(map(str, variant))
    return njit(cache=True, nogil=True)(function)


def run_over_atoms(kernel: Callable[..., Any], arguments: tuple, n_atoms: int, n_threads: int) -> list[Any]:
    """Results of ``kernel(*arguments, first, last)`` for ranges of atoms; each writes to its own atoms only.

    Threads other than the caller's come from a pool; kernels release the interpreter lock.
    """
    n_threads = min(n_threads, n_atoms // _ATOMS_PER_THREAD)
    if n_threads <= 1:
        return [kernel(*arguments, 0, n_atoms)]
    own, *others = pairwise(np.linspace(0, n_atoms, n_threads + 1).astype(int).tolist())
    pool = _pool(n_threads - 1, os.getpid())
    futures = [pool.submit(kernel, *arguments, first, last) for first, last in others]
    return [kernel(*arguments, *own), *(future.result() for future in futures)]


_ATOMS_PER_THREAD = 8
"""Fewer atoms than this for each thread cost more in waking it than it saves."""


@lru_cache(maxsize=4)
def _pool(n_threads: int, process: int) -> ThreadPoolExecutor:
    """One pool per process: threads do not survive a fork."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="lrc-ase")
