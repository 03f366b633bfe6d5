"""The choice between the backends: the one place of the layer that looks at devices."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from lrc_ase.layer.mesh.cpu import MAX_LEVEL, CpuBackend
from lrc_ase.layer.mesh.stencil import Backend, Stencil
from lrc_ase.layer.mesh.torch import TorchBackend
from lrc_ase.layer.mesh.triton import TritonBackend, triton_available
from lrc_ase.layer.windows import Window

__all__ = ["backend_for"]

_WIDEST_WINDOW = 16
"""Points per direction up to which kernels are compiled: a line of the stencil fills two vectors of eight doubles."""

_CPU, _TORCH, _TRITON = CpuBackend(), TorchBackend(), TritonBackend()


def backend_for(tensor: Tensor, stencil: Stencil, level: int) -> Backend:
    """Return the fastest backend for meshes on the device of `tensor` and derivatives up to `level`.

    Compiled kernels serve three dimensions, and derivatives up to the second. Lines, planes and higher derivatives go
    by plain torch, which runs everywhere.
    """
    return _choose(tensor.device.type, stencil.window, stencil.mesh_shape, level)


@lru_cache(maxsize=256)
def _choose(device: str, window: Window, mesh_shape: tuple[int, ...], level: int) -> Backend:
    if len(mesh_shape) == 3 and level <= MAX_LEVEL and window.n_points <= _WIDEST_WINDOW:
        # a window wider than the mesh would meet a point twice in one line, which the kernels of the CPU do not expect
        if device == "cpu" and min(mesh_shape) >= window.n_points:
            return _CPU
        if device == "cuda" and triton_available():
            return _TRITON
    return _TORCH
