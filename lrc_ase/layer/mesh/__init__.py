"""Atoms to mesh, filter, mesh to atoms: the kernel of the long-range convolution.

`convolution` is the whole of it, made of the differentiable pair spread and gather of `spreading` and of `filtering`,
what happens on the mesh between the two; `table` evaluates the multiplier. `compiled` holds the fast form of the pair
on the CPU, `reference` the one in plain torch that runs everywhere.
"""

from __future__ import annotations

from lrc_ase.layer.mesh.differentiation import convolve
from lrc_ase.layer.mesh.filtering import filtered
from lrc_ase.layer.mesh.spreading import gather, spread
from lrc_ase.layer.mesh.stencil import Stencil, multi_indices
from lrc_ase.layer.mesh.table import MultiplierTables
from lrc_ase.layer.mesh.totals import total

__all__ = ["MultiplierTables", "Stencil", "convolve", "filtered", "gather", "multi_indices", "spread", "total"]
