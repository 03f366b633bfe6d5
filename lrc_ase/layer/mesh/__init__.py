"""Atoms to mesh, filter, mesh to atoms: the core of the long-range convolution.

Read `differentiation` first: `convolve` is the whole of it, and `composed` says in three lines what it computes.
`spreading` holds the differentiable pair spread and gather, `filtering` what happens on the mesh between the two,
`table` the multiplier on the mesh, `evaluation` the first and second derivatives. `backend` chooses the kernels for
spreading and gathering: `cpu` (Numba), `triton` (NVIDIA GPUs), or `torch`, which runs everywhere.
"""

from __future__ import annotations

from lrc_ase.layer.mesh.differentiation import FieldAndEnergy, convolve, field_and_energy
from lrc_ase.layer.mesh.filtering import filtered
from lrc_ase.layer.mesh.spreading import gather, spread
from lrc_ase.layer.mesh.stencil import Stencil, multi_indices
from lrc_ase.layer.mesh.totals import total

__all__ = [
    "FieldAndEnergy",
    "Stencil",
    "convolve",
    "field_and_energy",
    "filtered",
    "gather",
    "multi_indices",
    "spread",
    "total",
]
