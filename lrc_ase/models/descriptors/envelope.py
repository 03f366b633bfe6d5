"""Smooth cutoff of contributions of neighbors."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["distances_and_envelope"]


def distances_and_envelope(vectors: Tensor, mask: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    r"""Compute vectors, nonzero distances and the envelope :math:`1 - 28 x^6 + 48 x^7 - 21 x^8`, x = r / cutoff.

    The polynomial, its slope and its curvature vanish at the cutoff. Beyond the cutoff and where `mask` is False the
    envelope is exactly zero. A vector of the length of the cutoff replaces padded vectors, so that callers may divide
    by all distances.

    `vectors` (..., n_neighbors, d), `mask` (..., n_neighbors) -> (..., n_neighbors, d), and twice (..., n_neighbors).
    """
    # before the norm: its derivative at a zero vector is NaN, which a later mask would not remove
    at_cutoff = torch.zeros_like(vectors[..., :1, :])
    at_cutoff[..., 0] = cutoff
    vectors = torch.where(mask[..., None], vectors, at_cutoff)
    distances = torch.linalg.norm(vectors, dim=-1)
    x = (distances / cutoff).clamp(max=1.0)
    # the polynomial as a product, exact to rounding near its triple zero
    envelope = (1 - x) ** 3 * (1 + x * (3 + x * (6 + x * (10 + x * (15 + 21 * x)))))
    return vectors, distances, torch.where(mask & (x < 1), envelope, torch.zeros_like(envelope))
