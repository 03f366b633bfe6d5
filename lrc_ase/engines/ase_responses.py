"""Quantities that ASE has no name for, as methods of the calculator: polarization, its responses, deviations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from torch import Tensor

from lrc_ase.engines.ase_errors import ases_errors
from lrc_ase.engines.turns import TurnTaking, in_turn
from lrc_ase.models.derivatives import born_effective_charges, dipole_moment, polarizability
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.models.polarization_current import polarization_current
from lrc_ase.models.torch_state import undisturbed
from lrc_ase.structures.graph import Graph

__all__ = ["ResponseCalculator"]

_RESPONSES = ("born_effective_charges", "polarizability", "polarization")
"""Properties that cost more than `results`, or that ASE's writers cannot hold; methods return them."""


class ResponseCalculator(TurnTaking, Calculator):
    """Base of the calculator with the methods that return a polarization, a response of it or a deviation."""

    model: ShortRangeModel
    _stress_waits: bool
    """True if the stress of the latest structure exists and has not been computed."""
    _extras: dict[str, Any]
    """Quantities of the same evaluation as `results`, under names that ASE does not have."""

    @abstractmethod
    def _graph(self, *, unwrap: bool = False) -> Graph:
        """Return the graph of `self.atoms` in their field, with unwrapped positions in a field or on request."""

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a property of ASE, or a polarization or response, which `results` never holds.

        ASE's writers of extended XYZ fail for three-dimensional arrays in `results`.
        """
        if name in _RESPONSES and allow_calculation:
            return getattr(self, f"get_{name}")(atoms)
        return super().get_property(name, atoms, allow_calculation)

    def get_born_effective_charges(self, atoms: Atoms | None = None) -> np.ndarray:
        """Return the Born effective charges of the latent charges, (n_atoms, 3, 3) in e.

        Indices are atom, polarization, displacement. `lrc_ase.models.derivatives.born_effective_charges` gives the
        definition, docs/reference/calculator.md the cost.
        """
        return self._response("born_effective_charges", born_effective_charges, atoms)

    def get_polarizability(self, atoms: Atoms | None = None) -> np.ndarray:
        """Return the polarizability, the derivative of the dipole moment by the field, (3, 3) in e Angstrom^2/V.

        Atoms are fixed, and indices are polarization, field. Zero for a model whose charges do not answer to a field.
        """
        return self._response("polarizability", polarizability, atoms)[0]

    def get_polarization(self, atoms: Atoms | None = None) -> np.ndarray:
        """Return the dipole moment per volume of a cell with three periodic directions, (3,) in e/Angstrom^2.

        It is defined up to a quantum, charge times cell vector per volume (see docs/reference/conventions.md). From one
        call to the next it changes continuously, also when atoms are wrapped.
        """
        atoms = self.atoms if atoms is None else atoms
        if atoms is not None and not atoms.pbc.all():
            raise PropertyNotImplementedError(
                "the polarization per volume needs three periodic directions; `get_dipole_moment` is there for others"
            )
        dipole = self._response("polarization", dipole_moment, atoms)[0]
        assert atoms is not None
        return dipole / float(atoms.get_volume())

    @in_turn
    @undisturbed()
    def get_polarization_current(self, atoms: Atoms | None = None) -> np.ndarray:
        """Return Born effective charges times velocities, summed, (3,) in e Angstrom per ASE's unit of time.

        It costs one more evaluation of the model, and leaves the polarization ready for `get_polarization`.
        """
        velocities = (self.get_atoms() if atoms is None else atoms).get_velocities()
        self.get_property("charges", atoms)
        assert self.atoms is not None
        with ases_errors(len(self.atoms)):
            graph = self._graph(unwrap=True)
            current, moment = polarization_current(self.model, graph, torch.from_numpy(velocities).to(graph.positions))
        self._extras["polarization"] = moment[None].cpu().numpy()
        return np.array(current.cpu().numpy())

    def get_energy_std(self, atoms: Atoms | None = None) -> float:
        """Return the standard deviation of the energy predicted by an ensemble, eV.

        It is calibrated so that nine of ten true values lie within 1.645 standard deviations of the prediction.
        """
        return float(self._deviation("energy_std", atoms))

    def get_forces_std(self, atoms: Atoms | None = None) -> np.ndarray:
        """Return the calibrated standard deviation of each force component, (n_atoms, 3), eV/Angstrom."""
        return np.array(self._deviation("forces_std", atoms))

    @in_turn
    @undisturbed()
    def _response(
        self, name: str, compute: Callable[[ShortRangeModel, Graph], Tensor], atoms: Atoms | None
    ) -> np.ndarray:
        """Compute a polarization or response once for a structure; return a copy."""
        self.get_property("charges", atoms)
        if name not in self._extras:
            assert self.atoms is not None
            with ases_errors(len(self.atoms)):
                self._extras[name] = compute(self.model, self._graph(unwrap=True)).double().cpu().numpy()
        return np.array(self._extras[name])

    @in_turn
    def _deviation(self, name: str, atoms: Atoms | None) -> Any:
        self.get_property("energy", atoms)
        if name not in self._extras:
            raise PropertyNotImplementedError(f"{name} needs the potential of an ensemble; this one has a single model")
        return self._extras[name]
