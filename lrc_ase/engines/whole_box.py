"""A box that one process of LAMMPS holds alone, evaluated without ghosts by the step of the ASE calculator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms
from torch import Tensor

from lrc_ase.models.derivatives import Results
from lrc_ase.models.inference.evaluator import Evaluator
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.neighbors import NeighborList, complete_cell

__all__ = ["WholeBox"]


class WholeBox:
    """Energies, forces and stress of all atoms of a box.

    LAMMPS wraps atoms and sorts them anew now and then. Unwrapped positions in the order of the atoms' tags move
    smoothly instead, so that neighbors and mesh last as long as in ASE.

    Parameters
    ----------
    skin
        Extra range of the list of neighbors, Angstrom.
    charge
        Total charge, e.
    field
        Electric field, (1, 3), V/Angstrom; None for none.
    """

    def __init__(self, model: ShortRangeModel, *, skin: float, charge: float, field: Tensor | None) -> None:
        settings = model.settings
        self._neighbors = NeighborList(
            settings.elements, settings.cutoff, skin=skin, mesh_shape_for=model.mesh_shape_for
        )
        self._evaluate = Evaluator(model)
        self._charge, self._field = charge, field

    @property
    def n_searches(self) -> int:
        """Return the number of neighbor searches so far."""
        return self._neighbors.n_searches

    def __call__(
        self, numbers: np.ndarray, unwrapped: np.ndarray, cell: np.ndarray, pbc: Sequence[bool], *, stress: bool
    ) -> tuple[Graph, Results]:
        """Evaluate atoms of atomic `numbers` (n_atoms,) at unwrapped positions (n_atoms, 3)."""
        # lengths of the box in open directions say nothing, and may change
        cell = complete_cell(cell, pbc)
        # by keyword: ASE goes through `symbols` one by one
        atoms = Atoms(numbers=numbers, positions=unwrapped, cell=cell, pbc=pbc, info={"charge": self._charge})
        graph = self._neighbors.graph(atoms)
        if self._field is not None:
            graph = replace(graph, field=self._field)  # positions are unwrapped already: no images
        return graph, self._evaluate.with_stress(graph) if stress else self._evaluate(graph)
