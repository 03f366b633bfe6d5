"""Compilation of kernels for the CPU by Numba, with a cache on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit

from lrc_ase.compiled.kernel_cache import kernel_cache

__all__ = ["PRECISIONS", "compiled", "inlined", "sources_digest"]

PRECISIONS = {np.dtype(name): name for name in ("float32", "float64")}
"""Names of precisions: NumPy composes the name of a type anew each time, which takes as long as a small kernel."""


def compiled(function: Callable[..., Any], *variant: object) -> Any:
    """Return a kernel that Numba compiles at its first call and caches on disk under a unique name.

    Kernels are compiled without fastmath: a NaN in the input stays a NaN in the output.

    Numba numbers the cached files of all functions of one name in the order in which they appear on disk. Two processes
    that compile different variants at the same time could therefore swap them. With a separate name for each variant,
    precision included, they can only write the same content twice.

    Numba also checks only the file of the kernel for changes. It would continue to use outdated code of functions from
    other files. A digest of all sources of kernels is therefore part of the name.

    Raises
    ------
    ValueError
        NUMBA_DISABLE_JIT is set.
    """
    if config.DISABLE_JIT:
        raise ValueError("the kernels of lrc_ase do not run as plain Python: unset NUMBA_DISABLE_JIT")
    # Numba makes the file names of its cache from the qualified name
    function.__qualname__ = "_".join(map(str, (*variant, sources_digest(_PACKAGE))))
    # "numpy": division by zero gives inf or NaN; Numba's default would test every division and raise
    kernel = njit(nogil=True, error_model="numpy")(function)
    kernel._cache = kernel_cache(function)  # as `cache=True` does, with a checked cache
    return kernel


@lru_cache(maxsize=4)
def sources_digest(folder: Path) -> str:
    """Return a digest of all modules below `folder` that may define kernels: they name Numba or import this module.

    The training loop only times compilations; a change there must not compile every kernel anew.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        text = path.read_bytes()
        if b"numba" in text or b"compiled.compilation import" in text:
            digest.update(text)
    return digest.hexdigest()[:12]


_PACKAGE = Path(__file__).parents[1]

inlined: Any = njit(forceinline=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of functions that kernels call; LLVM inlines all of them.

A function that is not inlined would be compiled twice: alone, and once more with its kernel, where other products and
sums are fused. The process that compiles runs the first version, processes that load the kernel from the cache run the
second one, and results would differ in their last digits.

LLVM inlines instead of Numba, whose inlining copies the source of the function and analyzes it again at every call.
Kernels must refer to such functions as globals of their module: Numba does not cache a kernel that closes over a
function.
"""
