"""Radial functions of the vectors to neighbors, which fade at the cutoff."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lrc_ase.structures.graph import Graph

__all__ = ["POWERS", "RadialFunctions", "radial_functions"]

POWERS = (4, 8, 16, 32)
r"""Exponents p of the radial functions :math:`(1 - r^2/r_c^2)^p`, which need no square root and no exponential.
They fall to half at 0.40, 0.29, 0.21 and 0.15 cutoffs."""


class RadialFunctions(NamedTuple):
    """Radial functions of all edges."""

    values: Tensor
    """(n_powers, n_local, n_neighbors), zero for padding."""
    squares: Tensor
    """Squared distances, (n_local, n_neighbors), Angstrom^2."""


def radial_functions(vectors: Tensor, graph: Graph, cutoff: float) -> RadialFunctions:
    """Evaluate the radial functions for vectors (n_local, n_neighbors, 3) to the neighbors of `graph`."""
    x, y, z = vectors.unbind(dim=-1)  # sums over an axis of three are slow
    squares = torch.addcmul(torch.addcmul(x * x, y, y), z, z)
    fading = (1 - squares / cutoff**2).clamp(min=0.0) * graph.neighbor_mask
    powers = [fading.square().square()]
    for _ in POWERS[1:]:
        powers.append(powers[-1].square())
    return RadialFunctions(torch.stack(powers), squares)
