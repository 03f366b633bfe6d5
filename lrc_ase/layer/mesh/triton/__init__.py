"""The backend of NVIDIA GPUs: kernels in Triton, three dimensions, derivatives up to the second."""

from __future__ import annotations

import torch
from torch import Tensor

from lrc_ase.layer.constants import constant
from lrc_ase.layer.mesh.stencil import Sites, Stencil, multi_indices
from lrc_ase.layer.mesh.triton.launch import gather_triton, spread_triton, triton_available

__all__ = ["TritonBackend", "triton_available"]


class TritonBackend:
    """Launch the kernels on the current stream; each call sorts atoms by bins again."""

    def sort(self, fractional: Tensor, stencil: Stencil) -> Tensor:
        """Return coordinates in units of the mesh, (n_atoms, 3) in [0, n], in float64."""
        # float32 would lose the place between two points of a large mesh; three numbers per atom cost little
        wrapped = fractional.double()
        # the layer refuses coordinates that are not finite; none of them may ever become an address
        wrapped = torch.nan_to_num(wrapped - torch.floor(wrapped))
        return wrapped * constant(tuple, stencil.mesh_shape, like=wrapped)

    def spread(self, weights: Tensor, sites: Sites, level: int, mesh: Tensor) -> None:
        stencil = sites.stencil
        spread_triton(weights, sites.sorted_by(self), stencil.structure, stencil.window, level, mesh)

    def gather(self, mesh: Tensor, sites: Sites, level: int) -> Tensor:
        stencil, n_orders = sites.stencil, len(multi_indices(3, level))
        # empty, not zeros: the kernel writes every element
        gathered = mesh.new_empty(len(sites.fractional), n_orders, mesh.shape[1])
        gather_triton(mesh, sites.sorted_by(self), stencil.structure, stencil.window, level, gathered)
        return gathered
