r"""Whether a cotangent g of the field is a multiple of the weights f, as it is in an energy :math:`\tfrac12\sum f u`.

By least squares over the atoms of each structure, channel by channel, :math:`c = \sum g f / \sum f^2`; g is c f where
no atom deviates by more than some roundings of the largest g. Then g need not be convolved: what is known of f tells.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compilation import compiled
from .stencil import Stencil

__all__ = ["proportionality"]

_ROUNDINGS = 16
"""Those of the products that made the cotangent, and of the sums that made c."""


def proportionality(cotangent: Tensor, weights: Tensor, stencil: Stencil) -> tuple[Tensor, list[int]]:
    """Numbers c (n_structures, n_channels), and the channels in which ``cotangent = c weights`` does not hold."""
    n_channels, limits = weights.shape[1], torch.finfo(weights.dtype)
    if weights.device.type == "cpu" and stencil.exchange is None:
        f, g, structure = (own.contiguous().numpy() for own in (weights, cotangent, stencil.structure))
        found, others = np.empty((stencil.n_structures, n_channels), f.dtype), np.empty(n_channels, np.bool_)
        _kernel(f.dtype.name)(g, f, structure, f.dtype.type(limits.tiny), _ROUNDINGS * limits.eps, found, others)
        return torch.from_numpy(found), np.flatnonzero(others).tolist()
    sums = weights.new_zeros(2, stencil.n_structures, n_channels)
    sums.index_add_(1, stencil.structure, torch.stack([cotangent, weights]) * weights)
    if stencil.exchange is not None:
        sums = stencil.exchange.sum(sums)
    scale = sums[0] / sums[1].clamp(min=limits.tiny)
    deviations = torch.addcmul(cotangent, scale[stencil.structure], weights, value=-1)
    sizes = torch.stack([deviations, cotangent]).abs()
    largest = sizes.amax(dim=1) if len(weights) > 0 else sizes.sum(dim=1)
    if stencil.exchange is not None:
        largest = stencil.exchange.largest(largest)
    proportional = largest[0] <= _ROUNDINGS * limits.eps * largest[1]
    return scale, (~proportional).nonzero()[:, 0].tolist()


@lru_cache(maxsize=2)
def _kernel(precision: str) -> Any:
    def fit(cotangent, weights, structure, tiny, tolerance, scale, others):
        """Fill `scale`, and mark in `others` the channels that deviate."""
        n_atoms, n_channels = weights.shape
        squares = np.zeros_like(scale)
        scale[:] = 0
        for atom in range(n_atoms):
            own = structure[atom]
            for channel in range(n_channels):
                f = weights[atom, channel]
                scale[own, channel] += cotangent[atom, channel] * f
                squares[own, channel] += f * f
        for own in range(len(scale)):
            for channel in range(n_channels):
                scale[own, channel] /= max(squares[own, channel], tiny)
        for channel in range(n_channels):
            deviation, largest = squares.dtype.type(0), squares.dtype.type(0)
            for atom in range(n_atoms):
                g = cotangent[atom, channel]
                own = abs(g - scale[structure[atom], channel] * weights[atom, channel])
                if own > deviation or np.isnan(own):  # what is not a number stays
                    deviation = own
                largest = max(largest, abs(g))
            others[channel] = not deviation <= tolerance * largest

    return compiled(fit, "proportionality", precision)
