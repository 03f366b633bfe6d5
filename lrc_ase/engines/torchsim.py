"""The potential in torch-sim: many systems of different sizes in one evaluation on one device.

Memory grows with the number of atoms times density; the autobatchers of torch-sim divide systems into batches by it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch_sim
from ase import Atoms
from torch import Tensor
from torch_sim.models.interface import ModelInterface

from lrc_ase.files.potential_file import Potential, load_potential
from lrc_ase.layer.memory import reuse_small_meshes
from lrc_ase.layer.tables import MultiplierTables
from lrc_ase.models.devices import usable_device
from lrc_ase.models.inference.evaluator import Evaluator
from lrc_ase.models.polarization import NO_CHARGES, PathlessWarning
from lrc_ase.models.precision import floating_type
from lrc_ase.models.torch_state import undisturbed
from lrc_ase.structures.caller_warnings import warn_caller
from lrc_ase.structures.electric_field import as_field
from lrc_ase.structures.graph import Graph, collate
from lrc_ase.structures.images import CellImages
from lrc_ase.structures.neighbors import graph_without_neighbors, is_continuation
from lrc_ase.structures.rows import with_neighbors
from lrc_ase.structures.skin import Skin

__all__ = ["TorchSimModel"]


class TorchSimModel(ModelInterface):
    """Compute energies, forces, full stress and latent charges of every system in a state.

    Total charges come from the attribute `charge` of the state, (n_systems,) in e. States of torch-sim 0.3 lack it, as
    `atoms_to_state` drops ``atoms.info["charge"]``. The argument `charge` then holds for all systems.

    Parameters
    ----------
    potential
        A potential file, the folder of a training run, the name of a shipped potential, or a loaded `Potential`.
    charge
        Total charge of each system in e, for states without charges. By default such systems count as neutral, with a
        warning.
    device, dtype
        Device and precision of the model. States must be on this device, in any precision.
    skin
        Extra range of the neighbor lists in Angstrom. The search is repeated when an atom of any system has moved by
        half of the skin, or when cells or systems have changed.
    electric_field
        Uniform field on all systems in V/Angstrom, (3,); None for no field. Wrapped atoms are followed as by the ASE
        calculator, until systems are added to or removed from the state: energies may then differ by constants.
    compute_stress
        Return the stress from `forward`; meaningful where all directions are periodic.

    Raises
    ------
    ValueError
        The device or precision is not available, the field not three finite numbers below 10 V/Angstrom, or the model
        without latent charges for it to act on. At evaluation: charges are not finite or differ from `charge`, the
        field is along a periodic direction of a charged system, or `lrc_ase.structures.neighbors.neighbor_graph`
        refuses a structure.
    """

    @undisturbed()
    def __init__(
        self,
        potential: str | os.PathLike[str] | Potential,
        *,
        charge: float | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float64,
        skin: float = 0.5,
        electric_field: Sequence[float] | np.ndarray | None = None,
        compute_stress: bool = True,
    ) -> None:
        super().__init__()
        reuse_small_meshes()
        if not isinstance(potential, Potential):
            potential = load_potential(potential)
        self._device, self._dtype, self._skin = usable_device(device), floating_type(dtype), Skin(skin)
        self._compute_stress, self._compute_forces = compute_stress, True
        evaluated = potential.for_evaluation(device, dtype)
        self.model, self._references = evaluated.model, evaluated.references
        self._charge, self._told_of_charges = charge, False
        long_range = self.model.settings.long_range
        self._has_charges = long_range is not None and long_range.electrostatics
        field = None if electric_field is None else as_field(electric_field, "`electric_field`")
        self._field = None if field is None or not field.any() else torch.from_numpy(field).to(self._device)
        if self._field is not None and not self._has_charges:
            raise ValueError(NO_CHARGES)
        self._images, self._paths = CellImages(), PathlessWarning()
        self._systems: list[Atoms] = []
        """Systems of the last search."""
        self._graph: Graph | None = None
        self._tables = MultiplierTables()
        self._evaluate = Evaluator(self.model, stress=compute_stress)

    @undisturbed()
    def forward(self, state: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the results of a `SimState`, or of a dictionary with its fields, in the precision of its positions.

        `energy` (n_systems,), `forces` (n_atoms, 3), `stress` (n_systems, 3, 3) in ASE's units and signs, `charges`
        (n_atoms,) where the model has them.
        """
        if isinstance(state, Atoms | list):
            raise TypeError("expected a SimState, got atoms of ASE: `torch_sim.io.atoms_to_state` makes one of them")
        charges = state.get("charge") if isinstance(state, Mapping) else getattr(state, "charge", None)
        if isinstance(state, Mapping):
            values = {name: value for name, value in state.items() if name != "charge"}
            state = torch_sim.SimState(**({"masses": torch.ones_like(values["positions"][:, 0])} | values))
        graph = self._graph_of(state, self._total_charges(charges, state.n_systems))
        evaluation = self._evaluate.with_stress(graph) if self._compute_stress else self._evaluate(graph)
        assert evaluation.forces is not None
        self._paths.tell(evaluation.pathless_charges, graph)
        references = self._references.new_zeros(graph.n_structures)
        references.index_add_(0, graph.structure, self._references[graph.species])
        results = {"energy": evaluation.energy + references, "forces": evaluation.forces}
        if evaluation.stress is not None:
            results["stress"] = evaluation.stress
        if evaluation.charges is not None:
            results["charges"] = evaluation.charges
        return {name: value.to(state.dtype) for name, value in results.items()}

    def _total_charges(self, carried: Any, n_systems: int) -> Tensor:
        """Return the total charge of each system, (n_systems,): from the state, or else from the constructor."""
        if carried is None:
            if self._charge is None and self._has_charges and not self._told_of_charges:
                warn_caller(
                    "torch-sim's states carry no total charges: all systems count as neutral. Pass "
                    "charge=0.0, or their charge, to TorchSimModel to confirm this",
                )
                self._told_of_charges = True  # not `_charge`, with which a later state that carries charges must agree
            return torch.full((n_systems,), self._charge or 0.0, dtype=torch.float64)
        charges = torch.as_tensor(carried).detach().double().cpu().reshape(-1)
        if len(charges) != n_systems:
            raise ValueError(f"`charge` of a state must hold one number for each of {n_systems} systems, got {carried}")
        if self._charge is not None and not torch.all(charges == self._charge):
            raise ValueError(f"the state has charges {charges.tolist()}, TorchSimModel was built with {self._charge:g}")
        return charges

    def _graph_of(self, state: torch_sim.SimState, charges: Tensor) -> Graph:
        """Return the graph of all systems, with the pairs of the last search while these are valid."""
        positions = state.positions.detach().double()
        pbc = torch.as_tensor(state.pbc, device="cpu").expand(3)
        unmoving = [state.atomic_numbers.long(), state.system_idx, state.cell.detach().double(), pbc, charges]
        if self._graph is None or not self._skin.holds(positions, unmoving):
            self._graph = self._search(_systems_of(state, pbc, charges))
            self._skin.searched(positions, unmoving)
        graph = replace(self._graph, positions=positions)
        if self._field is None:
            return graph
        images = self._images.images(positions, graph.cell, graph.pbc, graph.structure, (graph.species,))
        return replace(graph, field=self._field.expand(graph.n_structures, 3), images=images)

    def _search(self, systems: list[Atoms]) -> Graph:
        """Search pairs and return the graph of all systems; a system that has only moved keeps its mesh."""
        settings = self.model.settings
        held: Sequence[tuple[int, ...] | None] = [None] * len(systems)
        if self._graph is not None and self._graph.mesh_shapes and len(systems) == len(self._systems):
            held = [
                mesh if is_continuation(last, atoms) else None
                for mesh, last, atoms in zip(self._graph.mesh_shapes, self._systems, systems, strict=True)
            ]
        graphs = []
        for atoms, mesh in zip(systems, held, strict=True):
            graph = graph_without_neighbors(atoms, settings.elements)
            shape = self.model.mesh_shape_for(atoms.cell.array, mesh) if atoms.pbc.all() else None
            graphs.append(graph if shape is None else replace(graph, mesh_shapes=(shape,)))
        graph = with_neighbors(collate(graphs).to(self._device), settings.cutoff + self._skin.width)
        self._systems = systems
        return replace(graph, tables=self._tables)


def _systems_of(state: torch_sim.SimState, pbc: Tensor, charges: Tensor) -> list[Atoms]:
    """Return the systems of a state as ASE's atoms."""
    numbers, positions, cells = (
        value.detach().cpu().numpy() for value in (state.atomic_numbers, state.positions, state.row_vector_cell)
    )
    ends = torch.bincount(state.system_idx, minlength=state.n_systems).cumsum(0).tolist()
    return [
        Atoms(
            numbers[first:last],
            positions=positions[first:last].astype(float),
            cell=cell.astype(float),
            pbc=pbc.numpy(),
            info={"charge": charge},
        )
        for first, last, cell, charge in zip([0, *ends[:-1]], ends, cells, charges.tolist(), strict=True)
    ]
