r"""Whether a cotangent g of the field is a multiple of the weights f, as it is in an energy :math:`\tfrac12\sum f u`.

Channel by channel and structure by structure c is g / f of the atom with the largest weight, or, where processes or a
GPU share the atoms, :math:`\sum g f / \sum f^2`. g is c f where no atom deviates by more than some roundings of the
largest g. Then g need not be convolved: what is known of f tells.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_ase.compiled.compilation import compiled
from lrc_ase.layer.mesh.stencil import Stencil

__all__ = ["proportionality"]

_ROUNDINGS = 16
"""Those of the products that made the cotangent, and those that made c."""


def proportionality(cotangent: Tensor, weights: Tensor, stencil: Stencil) -> tuple[Tensor, list[int]]:
    """Numbers c (n_structures, n_channels), and the channels in which ``cotangent = c weights`` does not hold."""
    n_channels, limits = weights.shape[1], torch.finfo(weights.dtype)
    if weights.is_cpu and stencil.exchange is None:
        f, g = weights.contiguous().numpy(), cotangent.contiguous().numpy()
        found, others = np.empty((stencil.n_structures, n_channels), f.dtype), np.empty(n_channels, np.bool_)
        _kernel(f.dtype)(g, f, stencil.structure.contiguous().numpy(), _ROUNDINGS * limits.eps, found, others)
        return torch.from_numpy(found), others.nonzero()[0].tolist() if others.any() else []
    products = torch.stack([cotangent, weights]).double() * weights
    if stencil.n_structures == 1:  # in pairs, so that roundings do not add up
        sums = products.sum(dim=1, keepdim=True)
    else:
        sums = products.new_zeros(2, stencil.n_structures, n_channels).index_add(1, stencil.structure, products)
    if stencil.exchange is not None:
        sums = stencil.exchange.sum(sums)
    scale = (sums[0] / sums[1].clamp(min=limits.tiny)).to(weights)
    deviations = torch.addcmul(cotangent, scale[stencil.structure], weights, value=-1)
    sizes = torch.stack([deviations, cotangent]).abs()
    largest = sizes.amax(dim=1) if len(weights) > 0 else sizes.sum(dim=1)
    if stencil.exchange is not None:
        largest = stencil.exchange.largest(largest)
    proportional = largest[0] <= _ROUNDINGS * limits.eps * largest[1]
    return scale, (~proportional).nonzero()[:, 0].tolist()


@lru_cache(maxsize=2)
def _kernel(dtype: np.dtype) -> Any:
    def fit(cotangent, weights, structure, tolerance, scale, others):
        """Fill `scale`, and mark in `others` the channels that deviate."""
        n_atoms, n_channels = weights.shape
        heaviest = np.zeros_like(scale)
        scale[:] = 0
        for atom in range(n_atoms):
            own = structure[atom]
            for channel in range(n_channels):
                f = weights[atom, channel]
                if abs(f) > heaviest[own, channel]:
                    heaviest[own, channel] = abs(f)
                    scale[own, channel] = cotangent[atom, channel] / f
        for channel in range(n_channels):
            deviation, largest = scale.dtype.type(0), scale.dtype.type(0)
            for atom in range(n_atoms):
                g = cotangent[atom, channel]
                own = abs(g - scale[structure[atom], channel] * weights[atom, channel])
                if own > deviation or np.isnan(own):  # what is not a number stays
                    deviation = own
                largest = max(largest, abs(g))
            others[channel] = not deviation <= tolerance * largest

    return compiled(fit, "proportionality", dtype.name)
