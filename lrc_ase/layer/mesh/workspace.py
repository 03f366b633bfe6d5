"""Memory for meshes, kept between calls.

Fresh memory of a mesh's size costs more than the transforms done in it: the system hands it out page by page, cleared.
Moderate sizes are kept by each thread, as they come back in every step of a simulation. Large ones are asked from
NumPy, which lets the system use large pages.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from torch import Tensor

__all__ = ["scratch", "scratch_array"]

_KEPT_BYTES = 256 * 2**20
"""Largest piece of memory that is kept."""
_kept = threading.local()
_NUMPY_TYPES: dict[torch.dtype, np.dtype] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised tensor; on the CPU a `scratch_array`, so never let it escape."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(scratch_array(name, shape, _NUMPY_TYPES[dtype]))


def scratch_array(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialised array, the one that this thread got under the same name: never let it escape."""
    last: tuple[np.ndarray, np.ndarray] | None = getattr(_kept, name, None)
    if last is not None and last[1].shape == shape and last[1].dtype == dtype:
        return last[1]
    n_bytes = math.prod(shape) * dtype.itemsize
    flat = _aligned(n_bytes) if last is None or len(last[0]) < n_bytes else last[0]
    array = flat[:n_bytes].view(dtype).reshape(shape)
    if n_bytes <= _KEPT_BYTES:
        setattr(_kept, name, (flat, array))
    return array


def _aligned(n_bytes: int) -> np.ndarray:
    """Memory that begins on a border of 64 bytes, as whole vectors like it."""
    flat = np.empty(n_bytes + 63, np.uint8)
    begin = -flat.ctypes.data % 64
    return flat[begin : begin + n_bytes]
