"""The ASE calculator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, InputError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from .derivatives import evaluate
from .neighbors import NeighborList
from .potential_file import Potential, load_potential

__all__ = ["LRCCalculator"]


class LRCCalculator(Calculator):
    """Energies, forces, stress and latent charges of a trained potential, in ASE's units and signs.

    One evaluation fills everything: `energy`, `free_energy` (the same), `energies` (per atom, sum to `energy`),
    `forces`, `stress` (Voigt; where all three directions are periodic), `charges` (where the model has them).
    The total charge of a structure is ``atoms.info["charge"]``, 0 when absent.

    Parameters
    ----------
    potential
        Path of a potential file, or a loaded `Potential`.
    device
        Torch device.
    dtype
        Precision of the model; float64 conserves energy in long runs, float32 is faster.
    skin
        Extra range of the neighbor list in Angstrom; the list is searched anew when an atom has moved half of it.

    Raises
    ------
    ase.calculators.calculator.InputError
        At evaluation, for atoms that the model cannot take: none at all, positions that are not finite, a zero or
        singular cell in a periodic direction, an element the model does not know, two atoms at the same place.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "charges"]  # noqa: RUF012

    def __init__(
        self,
        potential: str | os.PathLike[str] | Potential,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        skin: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(potential, Potential):
            potential = load_potential(potential, device=device, dtype=dtype)
        self.potential = potential
        # a model of our own, so that a potential shared with others keeps its precision and device
        self.model = deepcopy(potential.model).to(device=device, dtype=dtype).requires_grad_(False)
        self.neighbor_list = NeighborList(
            self.model.settings.elements,
            self.model.settings.cutoff,
            skin=skin,
            device=device,
            mesh_shape_for=self.model.mesh_shape_for,
        )
        self._references = potential.references.to(device=device, dtype=torch.float64)

    def reset(self) -> None:
        """Forget results, neighbors and mesh, so that the next evaluation depends on the structure alone.

        `lrc_ase.simulation.run_md` calls this at every restart file: it makes a resumed run equal to the last bit.
        """
        super().reset()
        self.neighbor_list.forget()

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last evaluation; ASE's own list leaves out the total charge."""
        changes = super().check_state(atoms, tol)
        if self.atoms is not None and self.atoms.info.get("charge", 0.0) != atoms.info.get("charge", 0.0):
            changes.append("initial_charges")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        try:
            graph = self.neighbor_list.graph(self.atoms)
            results = evaluate(self.model, graph, stress=bool(self.atoms.pbc.all()))
        except ValueError as error:
            raise InputError(str(error)) from error
        assert results.forces is not None
        energies = results.atomic_energies + self._references[graph.species]
        energy = float(energies.sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": _array(energies),
            "forces": _array(results.forces),
        }
        if results.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(_array(results.stress[0]))
        if results.charges is not None:
            self.results["charges"] = _array(results.charges)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy().copy()
