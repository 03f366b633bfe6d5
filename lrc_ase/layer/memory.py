"""Memory: what a mesh needs, what there is, and who keeps what is freed."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

__all__ = ["available_memory", "check_mesh_memory", "keep_freed_memory", "reuse_small_meshes"]

_MESHES_HELD = 4
"""Arrays of the size of the mesh alive at once: density, its spectrum, the multiplier's table, the potential."""


def available_memory(device: torch.device) -> int:
    """Return the bytes that a new array on `device` may take; in main memory what the system can free, else all."""
    ask_device = getattr(torch.get_device_module(device), "mem_get_info", None)  # accelerators know, the CPU does not
    if ask_device is not None:
        free: int = ask_device(device)[0]
        return free
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    # no such table, as on macOS: the memory of the machine is the best bound there is
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_mesh_memory(
    mesh_shape: Sequence[int], n_structures: int, n_channels: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Raise a `ValueError` where the meshes of a convolution would not fit into memory."""
    n_points = math.prod(mesh_shape)
    # an estimate that catches a wrong unit or accuracy before the machine swaps, not an account of every array
    needed = _MESHES_HELD * n_points * n_structures * n_channels * dtype.itemsize
    if needed < _ALWAYS_FITS:
        return
    available = available_memory(device)
    if needed > available:
        raise ValueError(
            f"the mesh {tuple(mesh_shape)} with {n_channels} channels and {n_structures} structures needs about "
            f"{needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are available: ask for a lower `accuracy` "
            "(a larger number), a larger `smearing`, fewer channels, a smaller batch, or float32"
        )


_ALWAYS_FITS = 2**26
"""Bytes below which nobody asks the system."""


@cache
def reuse_small_meshes() -> None:
    """Let glibc keep up to 64 MiB of freed memory in this process, for the arrays of the next step.

    glibc returns large arrays to the system when they are freed, and asks for fresh, zeroed pages in every step. From
    which size on follows from the largest array that was freed so far, up to 32 MiB; twice that stays with the
    process. Freeing one such array, of which no page is ever touched, sets both. Limits that the user chose (mallopt,
    environment) stay as they are, and other C libraries do not care.
    """
    # allocated and freed in the same line
    np.empty(_LARGEST_LIMIT, np.uint8)


_LARGEST_LIMIT = 2**25 - 2**16
"""Bytes of the largest array that moves the limits of glibc: 32 MiB less a margin for its header and alignment."""


def keep_freed_memory() -> bool:
    """Let this process keep all memory that it frees, until it ends; False where the C library cannot be told.

    `reuse_small_meshes` keeps enough for some thousand atoms. Larger systems wait for fresh, zeroed pages in every
    step of dynamics or training: a third of the time, and more on virtual machines.
    The command line calls this; a script does so if its process has nothing better to do with the memory.
    """
    if sys.platform != "linux":
        return False
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    if tell is None:
        return False
    # arrays come from the heap and not by mmap, whose pages return to the system at once; the heap never shrinks
    return all(tell(option, value) == 1 for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)))


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Options of glibc's mallopt: bytes free at the top that are given back (-1: never), arrays with pages of their own."""
