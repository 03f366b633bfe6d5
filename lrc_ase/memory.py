"""How much memory a mesh needs, and how much there is."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch

__all__ = ["available_memory", "check_mesh_memory"]

_MESHES_HELD = 4
"""Arrays of the size of the mesh alive at once: density, its spectrum, the multiplier's table, the potential."""


def available_memory(device: torch.device) -> int:
    """Bytes that a new array on `device` may take; on the CPU what the system can free, else all it has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_mesh_memory(
    mesh_shape: Sequence[int], n_structures: int, n_channels: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Raise a `ValueError` where the meshes of a convolution would not fit into memory."""
    n_points = math.prod(mesh_shape)
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
