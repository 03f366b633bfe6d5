"""The potential in torch-sim: many systems of any sizes at once on one device.

Systems of a batch share one evaluation. Memory grows with the number of atoms times density, by which the autobatchers
of torch-sim deal systems into batches.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch_sim
from ase import Atoms
from torch import Tensor
from torch_sim.models.interface import ModelInterface

from lrc_ase.files.potential_file import Potential, load_potential
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.precision import floating_type
from lrc_ase.structures.graph import Graph, collate
from lrc_ase.structures.neighbors import neighbor_graph

__all__ = ["TorchSimModel"]


class TorchSimModel(ModelInterface):
    """Energies, forces, full stress and latent charges of every system in a state; all neutral.

    Parameters
    ----------
    potential
        Path of a potential file, or a loaded `Potential`.
    device, dtype
        Where the model is, and its precision; states must be there, of any precision.
    skin
        Extra range of the neighbor lists in Angstrom: searched anew when an atom of any system has moved half of it,
        or cells or systems have changed.
    compute_stress
        Whether `forward` returns a stress; of use where all directions are periodic.
    """

    def __init__(
        self,
        potential: str | os.PathLike[str] | Potential,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float64,
        skin: float = 0.5,
        compute_stress: bool = True,
    ) -> None:
        super().__init__()
        if not skin >= 0:
            raise ValueError(f"`skin` must be zero or a positive length in Angstrom, got {skin}")
        if not isinstance(potential, Potential):
            potential = load_potential(potential)
        self._device, self._dtype, self._skin = torch.device(device), floating_type(dtype), skin
        self._compute_stress, self._compute_forces = compute_stress, True
        own = potential.for_evaluation(device, dtype)
        self.model, self._references = own.model, own.references
        self._searched: torch_sim.SimState | None = None
        self._graph: Graph | None = None

    def forward(self, state: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Results of a `SimState`, or of a dictionary with its fields, in the precision of its positions.

        `energy` (n_systems,), `forces` (n_atoms, 3), `stress` (n_systems, 3, 3) in ASE's units and signs, `charges`
        (n_atoms,) where the model has them.
        """
        if not isinstance(state, torch_sim.SimState):
            masses = torch.ones_like(state["positions"][:, 0])
            state = torch_sim.SimState(**({"masses": masses} | dict(state)))
        graph = self._graph_of(state)
        found = evaluate(self.model, graph, stress=self._compute_stress)
        assert found.forces is not None
        references = self._references.new_zeros(graph.n_structures)
        references.index_add_(0, graph.structure, self._references[graph.species])
        results = {"energy": found.energy + references, "forces": found.forces}
        if found.stress is not None:
            results["stress"] = found.stress
        if found.charges is not None:
            results["charges"] = found.charges
        return {name: value.to(state.dtype) for name, value in results.items()}

    def _graph_of(self, state: torch_sim.SimState) -> Graph:
        positions = state.positions.detach().double()
        if self._graph is None or not self._is_valid(state):
            self._graph, self._searched = self._search(state), state.clone()
        return replace(self._graph, positions=positions)

    def _is_valid(self, state: torch_sim.SimState) -> bool:
        last = self._searched
        assert last is not None
        same = last.pbc == state.pbc and torch.equal(last.atomic_numbers, state.atomic_numbers)
        if not (same and torch.equal(last.system_idx, state.system_idx) and torch.equal(last.cell, state.cell)):
            return False
        moved = (state.positions - last.positions).norm(dim=1).max()
        return bool(moved <= 0.5 * self._skin)  # False for NaN, so that the search reports it

    def _search(self, state: torch_sim.SimState) -> Graph:
        """Graphs of all systems with pairs found anew, their meshes held where they still do."""
        settings = self.model.settings
        numbers, positions, cells = (
            value.detach().cpu().numpy() for value in (state.atomic_numbers, state.positions, state.row_vector_cell)
        )
        pbc = np.broadcast_to(np.asarray(state.pbc), 3)
        counts = torch.bincount(state.system_idx, minlength=state.n_systems).tolist()
        held: tuple[Any, ...] = (None,) * state.n_systems
        if self._graph is not None and self._graph.n_structures == state.n_systems and self._graph.mesh_shapes:
            held = self._graph.mesh_shapes
        graphs = []
        for index, last in enumerate(np.cumsum(counts)):
            own = slice(last - counts[index], last)
            atoms = Atoms(numbers[own], positions=positions[own].astype(float), cell=cells[index], pbc=pbc)
            graph = neighbor_graph(atoms, settings.elements, settings.cutoff + self._skin)
            mesh = self.model.mesh_shape_for(cells[index].astype(float), held[index]) if pbc.all() else None
            graphs.append(graph if mesh is None else replace(graph, mesh_shapes=(mesh,)))
        return collate(graphs).to(self._device)
