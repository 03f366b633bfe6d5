"""How kernels for the CPU are compiled by Numba and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba import config, njit

from lrc_ase.compiled.kernel_cache import kernel_cache

__all__ = ["compiled", "inlined", "sources_digest"]


def compiled(function: Callable[..., Any], *variant: object) -> Any:
    """Return a kernel that is compiled at its first call and kept on disk under a name of its own.

    Compiled without the liberties of fastmath: NaN comes out where it went in.

    Numba numbers the cached files of all functions of one name by what it finds on disk, so that two processes that
    compile different variants at the same moment would swap them. With one name for each variant, precision included,
    they can only write the same thing twice.

    It also looks for changes in the kernel's own file alone, and would go on using what it made of functions in others
    after these have changed. So all sources of kernels are part of the name.

    Raises
    ------
    ValueError
        NUMBA_DISABLE_JIT is set.
    """
    if config.DISABLE_JIT:
        raise ValueError("the kernels of lrc_ase do not run as plain Python: unset NUMBA_DISABLE_JIT")
    function.__qualname__ = "_".join(map(str, (*variant, sources_digest(_PACKAGE))))
    kernel = njit(nogil=True, error_model="numpy")(function)
    kernel._cache = kernel_cache(function)  # what `cache=True` does, with Numba's own cache
    return kernel


@lru_cache(maxsize=4)
def sources_digest(folder: Path) -> str:
    """Changes with each module below `folder` that kernels may be made of: all that name Numba or this one."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        text = path.read_bytes()
        if b"numba" in text or b"compilation" in text:
            digest.update(text)
    return digest.hexdigest()[:12]


_PACKAGE = Path(__file__).parents[1]

inlined: Any = njit(forceinline=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of functions that kernels call; LLVM inlines all of them.

A function that LLVM kept apart would be compiled twice: alone, and anew with its kernel, where other products and sums
are fused. The process that compiles runs the first, those that load the kernel from the cache the second, and results
would differ in their last digits.

Numba's own inlining copies the text of the function, which it then analyzes anew at every call: that took about 40% of
the time of a first call. Kernels must find such functions in their module: one that closes over a function is not
cached on disk.
"""
