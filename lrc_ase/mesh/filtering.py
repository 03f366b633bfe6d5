"""From density to potential on the mesh: FFT, multiplier over the windows' transforms, inverse FFT."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..lattice import half_mesh_indices
from ..windows import Window

__all__ = ["deconvolution", "paired_waves"]


@lru_cache(maxsize=64)
def paired_waves(mesh_shape: tuple[int, ...]) -> Tensor:
    """0 at the Nyquist waves of even axes, whose opposites the mesh does not hold, 1 elsewhere; (*half mesh)."""
    indices = half_mesh_indices(mesh_shape)
    return (2 * indices.abs() < torch.tensor(mesh_shape)).all(dim=-1).to(torch.float64)


@lru_cache(maxsize=64)
def deconvolution(window: Window, mesh_shape: tuple[int, ...]) -> Tensor:
    """Inverse square of the window's transform, for spreading and gathering, (*half mesh)."""
    indices = half_mesh_indices(mesh_shape).numpy()
    product = np.ones(indices.shape[:-1])
    for axis, n_mesh in enumerate(mesh_shape):
        transform = window.fourier_transform(2 * np.pi * np.arange(-(n_mesh // 2), n_mesh // 2 + 1) / n_mesh)
        product /= transform[indices[..., axis] + n_mesh // 2] ** 2
    return torch.from_numpy(product)
