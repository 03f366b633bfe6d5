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

__all__ = ["scratch"]

_KEPT_BYTES = 256 * 2**20
"""Largest piece of memory that is kept."""
_kept = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised tensor; on the CPU the one that this thread got under the same name, so never let it escape."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    last: tuple[np.ndarray, Tensor] | None = getattr(_kept, name, None)
    mode = torch.is_inference_mode_enabled()  # its tensors may not be written to outside of it
    if last is not None and (last[1].shape, last[1].dtype, last[1].is_inference()) == (shape, dtype, mode):
        return last[1]
    n_bytes = math.prod(shape) * dtype.itemsize
    flat = np.empty(n_bytes, np.uint8) if last is None or len(last[0]) < n_bytes else last[0]
    tensor = torch.from_numpy(flat[:n_bytes]).view(dtype).reshape(shape)
    if n_bytes <= _KEPT_BYTES:
        setattr(_kept, name, (flat, tensor))
    return tensor
