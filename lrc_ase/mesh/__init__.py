"""Atoms to mesh, filter, mesh to atoms: the kernel of the long-range convolution.

`convolution` is the whole of it, made of the differentiable pair spread and gather of `spreading` and of `filtering`,
what happens on the mesh between the two; `table` evaluates the multiplier. `compiled` holds the fast form of the pair
on the CPU, `reference` the one in plain torch that runs everywhere.
"""

from __future__ import annotations

from .convolution import convolve
from .filtering import filtered
from .spreading import gather, spread
from .stencil import Stencil, multi_indices
from .table import MultiplierTables
from .totals import total

__all__ = ["MultiplierTables", "Stencil", "convolve", "filtered", "gather", "multi_indices", "spread", "total"]
