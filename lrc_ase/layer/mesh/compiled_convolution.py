"""Spreading, filtering and gathering on the CPU in one go: what the compiled kernels need is handed on as arrays.

For a few hundred atoms the kernels take less time than it takes to call torch between them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrc_ase.layer.mesh.compiled import gather_compiled, spread_compiled
from lrc_ase.layer.mesh.compiled_filter import can_filter
from lrc_ase.layer.mesh.filtering import filter_arrays, padded_scratch
from lrc_ase.layer.mesh.spreading import backend, sorted_atoms
from lrc_ase.layer.mesh.stencil import Stencil, multi_indices

__all__ = ["can_convolve", "convolve_compiled"]


def can_convolve(table: Tensor, stencil: Stencil) -> bool:
    """Whether the compiled kernels know all of it, channel by channel."""
    compiled = backend(table.device.type, stencil.window, stencil.mesh_shape, 0) == "compiled"
    return compiled and table.ndim == 5 and can_filter(stencil.mesh_shape)


def convolve_compiled(
    orders: Tensor, fractional: Tensor, table: Tensor, stencil: Stencil, level: int, *, keep_spectrum: bool
) -> tuple[Tensor, Tensor | None]:
    """Potential of `orders` (n_atoms, n_orders, n_channels) at the atoms, and the density's spectrum if kept.

    The potential comes with all its derivatives up to `level`, (n_atoms, n_orders, n_channels).
    """
    weights, n_threads, window = orders.contiguous().numpy(), torch.get_num_threads(), stencil.window
    n_atoms, n_orders, n_channels = weights.shape
    atoms = sorted_atoms(fractional, stencil)
    mesh = padded_scratch("mesh", (stencil.n_structures, n_channels), stencil.mesh_shape, weights.dtype)
    spread_compiled(weights, atoms, window, int(n_orders > 1), mesh, n_threads)
    if stencil.exchange is not None:
        mesh = stencil.exchange.sum(torch.from_numpy(mesh)).numpy()
    spectrum = filter_arrays(mesh, stencil.mesh_shape, table.contiguous().numpy(), keep_spectrum=keep_spectrum)
    gathered = np.empty((n_atoms, len(multi_indices(3, level)), n_channels), weights.dtype)
    gather_compiled(mesh, atoms, window, level, gathered, n_threads)
    return torch.from_numpy(gathered), None if spectrum is None else torch.from_numpy(spectrum)
