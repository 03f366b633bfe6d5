"""The backend of the CPU: kernels compiled by Numba, three dimensions, derivatives up to the second."""

from __future__ import annotations

import torch
from torch import Tensor

from lrc_ase.layer.mesh.cpu.sorting import SortedAtoms, sort_atoms
from lrc_ase.layer.mesh.cpu.stencils import MAX_LEVEL, gather_compiled, spread_compiled
from lrc_ase.layer.mesh.stencil import Sites, Stencil, multi_indices

__all__ = ["MAX_LEVEL", "CpuBackend"]


class CpuBackend:
    """Pass torch's memory to the compiled kernels, on as many threads as torch may use."""

    def sort(self, fractional: Tensor, stencil: Stencil) -> SortedAtoms:
        # NumPy arrays of the same memory, as Numba does not know tensors
        arrays = fractional.contiguous().numpy(), stencil.structure.contiguous().numpy()
        return sort_atoms(*arrays, stencil.mesh_shape, stencil.n_structures, stencil.window, torch.get_num_threads())

    def spread(self, weights: Tensor, sites: Sites, level: int, mesh: Tensor) -> None:
        numbers, atoms = weights.contiguous().numpy(), sites.sorted_by(self)
        spread_compiled(numbers, atoms, sites.stencil.window, level, mesh.numpy(), torch.get_num_threads())

    def gather(self, mesh: Tensor, sites: Sites, level: int) -> Tensor:
        # empty, not zeros: the kernel writes every element
        gathered = mesh.new_empty(len(sites.fractional), len(multi_indices(3, level)), mesh.shape[1])
        arrays = mesh.numpy(), sites.sorted_by(self)
        gather_compiled(*arrays, sites.stencil.window, level, gathered.numpy(), torch.get_num_threads())
        return gathered
