"""The ASE calculator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import InputError, PropertyNotImplementedError, all_changes
from ase.data import atomic_numbers

from lrc_ase.engines.ase_errors import absence, ases_errors, unknown_keyword
from lrc_ase.engines.ase_responses import ResponseCalculator
from lrc_ase.engines.ase_results import ases_results, numpy_copy, voigt
from lrc_ase.engines.turns import in_turn
from lrc_ase.files.potential_file import Potential, load_potential
from lrc_ase.files.pretrained import trained_potential
from lrc_ase.layer.memory import reuse_small_meshes
from lrc_ase.models.atomic_stresses import atomic_stresses
from lrc_ase.models.inference import Evaluator
from lrc_ase.models.polarization import NO_CHARGES, PathlessWarning
from lrc_ase.models.precision import floating_type
from lrc_ase.models.torch_state import undisturbed
from lrc_ase.structures.applied_field import AppliedField
from lrc_ase.structures.changes import changed_inputs
from lrc_ase.structures.charge import ChargeWarning
from lrc_ase.structures.copies import copied
from lrc_ase.structures.domain import Lookout, TrainingDomain
from lrc_ase.structures.electric_field import hold_field
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.neighbors import NeighborList

__all__ = ["LRCCalculator", "load"]

_OF_CHARGES = ("charges", "dipole")
"""Properties that need latent charges."""


class LRCCalculator(ResponseCalculator):
    """Compute energies, forces, stress and latent charges with a trained potential, in ASE's units and signs.

    A latent charge is a charge per atom that the model learns from energies and forces alone. The results are

    - `energy`, `free_energy` (the same), `energies` of the atoms, which sum to `energy`, and `forces`;
    - `charges`, the latent charges, if the model has them;
    - `dipole`, about the origin of the coordinates, in structures with an open direction. Its components along periodic
      cell vectors are zero, as they are known up to a quantum only;
    - `stress` (Voigt) and `stresses` of the atoms, with three periodic directions, computed on request.

    A property that a structure does not have raises ASE's `PropertyNotImplementedError`. Methods and attributes return
    the quantities for which ASE has no name:

    - `extrapolation`: the reasons why the latest structure lies far outside the training set.
    - `get_energy_std`, `get_forces_std`: standard deviations of an ensemble.
    - `get_polarization`: dipole moment per volume of a periodic cell.
    - `get_polarization_current`: rate of change of the dipole moment along the velocities.
    - `get_born_effective_charges`, `get_polarizability`: response of the dipole moment to displacements, to a field.

    The total charge of a structure is ``atoms.info["charge"]`` or another name of
    `lrc_ase.structures.charge.CHARGE_NAMES`, 0 when absent. A uniform electric field is `electric_field` for all
    structures, or ``atoms.info["external_field"]`` for one. Energy, forces and stress then include -E.P, the energy of
    the polarization P. Atoms that are wrapped through a boundary cause no step of this energy.
    See docs/reference/calculator.md and docs/reference/conventions.md.

    The first calculator of a process lets the C library keep up to 64 MiB of freed memory for the next step, unless the
    environment sets glibc's limits (`lrc_ase.layer.memory.reuse_small_meshes`).

    Parameters
    ----------
    potential
        A potential file, the folder of a training run, the name of a shipped potential, or a loaded `Potential`.
    device
        Torch device.
    dtype
        Precision of the model, a name or a `torch.dtype`: float64 conserves energy in long runs, float32 is faster.
        `default_dtype` is another name for it.
    skin
        Extra range of the neighbor list in Angstrom; the search is repeated when an atom has moved by half of it.
    electric_field
        Electric field along x, y, z in V/Angstrom, which acts with the force +qE on a charge q; None without a field.
    label, directory, atoms
        As in every calculator of ASE.

    Raises
    ------
    TypeError
        An unknown keyword.
    ValueError
        The device or precision is not available, the field is not valid, or the model has no charges to act on.
    ase.calculators.calculator.InputError
        At evaluation: there are no atoms; a number is not finite; a periodic cell vector is zero, or the cell singular;
        the model does not know an element; two atoms are at one position. Or the field is not valid, contradicts
        `electric_field`, or lies along a periodic direction of a charged cell.
    ase.calculators.calculator.CalculationFailed
        Energy or forces are not finite, or the memory does not suffice.

    Warns
    -----
    ExtrapolationWarning
        Once per kind: a pair of atoms closer than in training, a total charge absent from training, a number of
        neighbors or a force far outside the training set. Potential files without a training domain give no warning.
    """

    implemented_properties = [  # noqa: RUF012
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "stresses",
        *_OF_CHARGES,
    ]

    @undisturbed()
    def __init__(
        self,
        potential: str | os.PathLike[str] | Potential,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float64,
        default_dtype: torch.dtype | str | None = None,
        skin: float = 0.5,
        electric_field: Sequence[float] | np.ndarray | None = None,
        **kwargs: Any,
    ) -> None:
        precision = floating_type(dtype if default_dtype is None else default_dtype)
        if default_dtype is not None and dtype is not torch.float64 and floating_type(dtype) != precision:
            raise ValueError(f"`dtype` {dtype} and `default_dtype` {default_dtype} differ: give one of them")
        super().__init__(**kwargs)
        reuse_small_meshes()
        if not isinstance(potential, Potential):
            potential = load_potential(potential, device=device)
        self.potential = potential
        # a copy, so that a potential shared with others keeps its precision and device
        evaluated = potential.for_evaluation(device, precision)
        self.model, self._references = evaluated.model, evaluated.references
        settings = self.model.settings
        self.neighbor_list = NeighborList(
            settings.elements,
            settings.cutoff,
            skin=skin,
            device=device,
            mesh_shape_for=self.model.mesh_shape_for,
        )
        has_charges = settings.long_range is not None and settings.long_range.electrostatics
        absent = () if has_charges else _OF_CHARGES
        self.implemented_properties = [name for name in type(self).implemented_properties if name not in absent]
        self._evaluate = Evaluator(self.model)
        self._of_species: tuple[torch.Tensor | None, torch.Tensor] = None, self._references
        self._field = AppliedField(electric_field)
        if self._field and not has_charges:
            raise ValueError(NO_CHARGES)
        self._paths = PathlessWarning()
        self._charge_warning = ChargeWarning() if has_charges else None
        domain = TrainingDomain.from_description(potential.description, settings.elements)
        self._lookout = Lookout(domain, settings.cutoff, skin)
        self._evaluated: Atoms | None = None
        self._extras: dict[str, Any] = {}  # of the same evaluation as `results`, under names that ASE does not have
        self.use_cache = False  # `calculate` keeps a copy of the atoms already
        # ASE's databases and trajectories store the parameters with a structure
        self.parameters.update(potential=potential.source, digest=potential.digest(), dtype=str(precision)[6:])
        if self._field:
            self.parameters["electric_field"] = self._field.constant

    def __repr__(self) -> str:
        device = next(self.model.parameters()).device
        return f"{type(self).__name__}({self.potential!r}, {self.parameters['dtype']}, {device})"

    @property
    def results(self) -> dict[str, Any]:
        """Return the results of the last evaluation; compute its stress if there is one and nobody has asked for it."""
        if self._stress_waits:
            assert self.atoms is not None
            with undisturbed(), ases_errors(len(self.atoms)):
                self._results["stress"] = voigt(self._evaluate.stress())[0]
            self._stress_waits = False  # not before: a stress for which the memory did not suffice may be asked again
        return self._results

    @results.setter
    def results(self, results: dict[str, Any]) -> None:
        self._results, self._stress_waits = results, False

    @in_turn
    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a property as every calculator of ASE does, a polarization or a response."""
        if name in _OF_CHARGES and name not in self.implemented_properties:
            raise PropertyNotImplementedError(f"{name}: this potential has no latent charges")
        if allow_calculation and (reason := absence(name, self.atoms if atoms is None else atoms)):
            raise PropertyNotImplementedError(reason)
        if name == "stress" or name not in self.implemented_properties:
            return super().get_property(name, atoms, allow_calculation)
        # ASE's method reads `results`, and dynamics would pay for a stress that nobody wants
        changes = [] if atoms is None else changed_inputs(self.atoms, atoms)
        if changes:
            self.atoms, self._results, self._stress_waits = None, {}, False
        if name not in self._results and not allow_calculation:
            return None
        if name not in self._results:
            self.calculate(self.atoms if atoms is None else atoms, [name], changes)
        if name not in self._results:
            raise PropertyNotImplementedError(f"{name} not present in this calculation")
        return copy(self._results[name])

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> LRCCalculator:
        """Return the calculator of a potential shipped with the package; ValueError lists them for any other name."""
        return cls(trained_potential(name), **options)

    def reset(self) -> None:
        """Forget results, neighbors, mesh and wrapped atoms, so that the next evaluation depends only on the structure.

        `lrc_ase.simulation.run_md` calls this at every restart file, so that resumed runs agree to the last bit.
        """
        super().reset()
        self.neighbor_list.forget()
        self._evaluate.forget()
        self._field.forget()
        self._extras, self._evaluated = {}, None

    @property
    def allowed_atomic_numbers(self) -> list[int]:
        """Return the atomic numbers that the model knows, under the name that ml-peg and MACE use."""
        return [atomic_numbers[element] for element in self.model.settings.elements]

    @property
    def fingerprint(self) -> dict[str, str]:
        """Return precision, digest of the potential in it, and field; a resumed run of dynamics compares them."""
        digest = Potential(self.model, self._references).digest()
        return {"precision": self.parameters["dtype"], "potential": digest, "electric_field": str(self._field)}

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return the model inputs, charge and field included, that differ in any bit from the last evaluation."""
        return changed_inputs(self.atoms, atoms)

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Raise a `TypeError` for any parameter: all of them are fixed at construction."""
        for name in kwargs:
            raise TypeError(unknown_keyword(name))
        return dict(super().set())

    @undisturbed()
    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = ("energy",),
        system_changes: Sequence[str] | None = all_changes,
    ) -> None:
        """Evaluate all inexpensive properties after a change of the atoms, `stresses` on request.

        None selects the default of `properties` and of `system_changes`.
        """
        properties = ("energy",) if properties is None else properties
        system_changes = all_changes if system_changes is None else system_changes
        if atoms is not None:
            self.atoms = copied(atoms)
        if self.atoms is None:
            raise InputError("LRCCalculator needs atoms, got None: set atoms.calc and ask the atoms")
        if self.atoms.info:
            hold_field(self.atoms)
        # wrappers of a calculator (ASE's checkpoints) pass no changes whenever they noticed none themselves
        if system_changes or "forces" not in self._results or changed_inputs(self._evaluated, self.atoms):
            self._results, self._stress_waits, self._extras, self._evaluated = {}, False, {}, None
        with ases_errors(len(self.atoms)):
            graph = self._graph()
            if self._evaluated is None:
                self._results = self._cheap(graph)
                self._evaluated, self._stress_waits = self.atoms, bool(self.atoms.pbc.all())
            if "stresses" in properties and self.atoms.pbc.all() and "stresses" not in self._results:
                if graph.field is not None:
                    raise PropertyNotImplementedError("stresses of single atoms are not defined in an electric field")
                self._results["stresses"] = voigt(atomic_stresses(self.model, graph))

    @property
    def extrapolation(self) -> tuple[str, ...]:
        """Return the reasons why the structure evaluated last lies far outside the training set, one sentence each.

        Empty for a structure within the training set and for a potential file that does not record its training set.
        """
        return tuple(self._extras.get("extrapolation", ()))

    def _graph(self, *, unwrap: bool = False) -> Graph:
        assert self.atoms is not None
        return self._field.on(self.atoms, self.neighbor_list.graph(self.atoms), unwrap=unwrap)

    def _cheap(self, graph: Graph) -> dict[str, Any]:
        """Evaluate energy, forces, charges and deviations once; return ASE's results."""
        assert self.atoms is not None
        evaluation = self._evaluate(graph, dipole=not self.atoms.pbc.all())
        if graph.field is not None:
            self._paths.tell(evaluation.pathless_charges, graph)
        if self._charge_warning is not None:
            self._charge_warning.tell(self.atoms)
        if self._of_species[0] is not graph.species:  # the same tensor until the next search of neighbors
            # the references stay in float64, whatever the precision of the model
            self._of_species = graph.species, self._references[graph.species]
        results = ases_results(evaluation, self._of_species[1], self.atoms)
        if evaluation.energy_std is not None and evaluation.forces_std is not None:
            self._extras["energy_std"] = float(evaluation.energy_std[0])
            self._extras["forces_std"] = numpy_copy(evaluation.forces_std)
        n_searches = self.neighbor_list.n_searches
        self._extras["extrapolation"] = self._lookout.far_outside(graph, results["forces"], n_searches)
        return results


def load(name_or_path: str | os.PathLike[str], **options: Any) -> LRCCalculator:
    """Return the calculator of a potential: a file, the folder of a training run, or the name of a shipped one.

    `options` are those of `LRCCalculator`. A local file or run folder takes precedence over a shipped potential of the
    same name, with a warning.
    """
    return LRCCalculator(name_or_path, **options)
