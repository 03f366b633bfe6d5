"""The ASE calculator."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, InputError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from lrc_ase.files.potential_file import Potential, load_potential
from lrc_ase.files.pretrained import trained_potential
from lrc_ase.models.derivatives import atomic_stresses, born_effective_charges, evaluate
from lrc_ase.structures.charge import charge_entries
from lrc_ase.structures.domain import Lookout, TrainingDomain
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.neighbors import NeighborList

__all__ = ["LRCCalculator", "load"]

_OF_ENSEMBLES = ("energy_std", "forces_std")
"""Properties that need several models."""
_OF_CHARGES = ("charges", "dipole", "born_effective_charges")
"""Properties that need latent charges."""


class LRCCalculator(Calculator):
    """Energies, forces, stress and latent charges of a trained potential, in ASE's units and signs.

    One evaluation fills all that is cheap: `energy`, `free_energy` (the same), `energies` (per atom, sum to `energy`),
    `forces`, `stress` (Voigt; where all three directions are periodic), `charges` (where the model has them) and
    `dipole` (where no direction is periodic; about the origin of the coordinates). Two that cost more come when asked:
    `stresses` (per atom, sum to `stress`) and `born_effective_charges`. What a structure has not, raises ASE's
    `PropertyNotImplementedError`. See docs/calculator.md and docs/conventions.md.

    The potential of an ensemble adds `energy_std` (eV) and `forces_std` (n_atoms, 3): standard deviations, calibrated
    so that nine of ten true values lie within 1.645 of them.

    ``results["extrapolation"]`` says in sentences why a structure lies far outside the training set; it is an empty
    tuple where it does not, or where the potential file does not say.

    The total charge of a structure is ``atoms.info["charge"]`` or another name of
    `lrc_ase.structures.charge.CHARGE_NAMES`, 0 when absent.

    Parameters
    ----------
    potential
        A potential file, the folder of a training run, the name of a shipped potential, or a loaded `Potential`.
    device
        Torch device.
    dtype
        Precision of the model, by name or torch's own: float64 conserves energy in long runs, float32 is faster.
    skin
        Extra range of the neighbor list in Angstrom; the list is searched anew when an atom has moved half of it.

    Raises
    ------
    ase.calculators.calculator.InputError
        At evaluation, for atoms that the model cannot take: none at all, positions or charge that are not finite, a
        zero or singular cell in a periodic direction, an element the model does not know, two atoms at the same place.
    ase.calculators.calculator.CalculationFailed
        The model gives what is not finite, or memory is short.

    Warns
    -----
    ExtrapolationWarning
        Once each: atoms closer than any such pair in training, a total charge that training never saw, neighbors or
        forces far outside; for potential files that say so.
    """

    implemented_properties = [  # noqa: RUF012
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "stresses",
        *_OF_CHARGES,
        *_OF_ENSEMBLES,
    ]

    def __init__(
        self,
        potential: str | os.PathLike[str] | Potential,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float64,
        skin: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(potential, Potential):
            potential = load_potential(potential, device=device, dtype=dtype)
        self.potential = potential
        # of our own, so that a potential shared with others keeps its precision and device
        own = potential.for_evaluation(device, dtype)
        self.model, self._references = own.model, own.references
        settings = self.model.settings
        self.neighbor_list = NeighborList(
            settings.elements,
            settings.cutoff,
            skin=skin,
            device=device,
            mesh_shape_for=self.model.mesh_shape_for,
        )
        has_charges = settings.long_range is not None and settings.long_range.electrostatics
        absent = ((), _OF_CHARGES)[not has_charges] + ((), _OF_ENSEMBLES)[potential.n_members == 1]
        self.implemented_properties = [name for name in type(self).implemented_properties if name not in absent]
        domain = TrainingDomain.from_description(potential.description, settings.elements)
        self._lookout = Lookout(domain, settings.cutoff, skin)
        self._evaluated: Atoms | None = None
        self.use_cache = False  # `calculate` keeps a copy of the atoms already

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> LRCCalculator:
        """Return the calculator of a potential shipped with the package; ValueError lists them for any other name."""
        return cls(trained_potential(name), **options)

    def reset(self) -> None:
        """Forget results, neighbors and mesh, so that the next evaluation depends on the structure alone.

        `lrc_ase.simulation.run_md` calls this at every restart file: it makes a resumed run equal to the last bit.
        """
        super().reset()
        self.neighbor_list.forget()
        self._evaluated = None

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Precision and a digest of the potential, which a molecular-dynamics run compares when it is resumed."""
        settings = self.potential.settings
        digest = hashlib.sha256(f"{settings.elements} {settings.cutoff}".encode())
        tensors = {**self.potential.model.state_dict(), "references": self.potential.references}
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        precision = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        return {"precision": precision, "potential": digest.hexdigest()}

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last evaluation, to the last bit, of what a model sees; the total charge is of it."""
        return _changes(self.atoms, atoms)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`: all that is cheap if anything changed, and what is asked for of the rest."""
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise InputError("LRCCalculator needs atoms, got None: set atoms.calc and ask the atoms")
        # callers who wrap a calculator (ASE's checkpoints) say that nothing changed when they saw no change themselves
        if system_changes or "forces" not in self.results or _changes(self._evaluated, self.atoms):
            self.results, self._evaluated = {}, None
        try:
            graph = self.neighbor_list.graph(self.atoms)
            if self._evaluated is None:
                self.results = self._cheap(graph)
                self._evaluated = self.atoms
            if "stresses" in properties and self.atoms.pbc.all() and "stresses" not in self.results:
                stresses = _array(atomic_stresses(self.model, graph))
                self.results["stresses"] = np.array([full_3x3_to_voigt_6_stress(stress) for stress in stresses])
            asked = "born_effective_charges" in properties and "born_effective_charges" not in self.results
            if asked and "charges" in self.results:
                self.results["born_effective_charges"] = _array(born_effective_charges(self.model, graph))
        except ValueError as error:
            raise InputError(str(error)) from error
        except (MemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
            raise CalculationFailed(
                f"out of memory with {len(self.atoms)} atoms: take a smaller structure, dtype=torch.float32, a smaller "
                "skin, or a potential with a lower long-range accuracy or cutoff"
            ) from error

    def get_born_effective_charges(self, atoms: Atoms | None = None) -> np.ndarray:
        """Born effective charges of the latent charges, (n_atoms, 3, 3) in e: atom, polarization, displacement.

        See `lrc_ase.models.derivatives.born_effective_charges` for what they are.
        """
        found: np.ndarray = self.get_property("born_effective_charges", atoms)
        return found

    def get_energy_std(self, atoms: Atoms | None = None) -> float:
        """Standard deviation of the energy, eV; for the potential of an ensemble."""
        return float(self.get_property("energy_std", atoms))

    def get_forces_std(self, atoms: Atoms | None = None) -> np.ndarray:
        """Standard deviation of each force component, (n_atoms, 3), eV/Angstrom; for the potential of an ensemble."""
        found: np.ndarray = self.get_property("forces_std", atoms)
        return found

    def _cheap(self, graph: Graph) -> dict[str, Any]:
        """All results of one evaluation."""
        assert self.atoms is not None
        found = evaluate(self.model, graph, stress=bool(self.atoms.pbc.all()))
        assert found.forces is not None
        energies = found.atomic_energies + self._references[graph.species]
        energy = float(energies.sum())
        forces = _array(found.forces)
        results = {"energy": energy, "free_energy": energy, "energies": _array(energies), "forces": forces}
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise CalculationFailed(
                "the model gives energies or forces that are not finite for these atoms: look at the step that made "
                "their positions, or evaluate in float64"
            )
        if found.stress is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(_array(found.stress[0]))
        if found.energy_std is not None and found.forces_std is not None:
            results["energy_std"] = float(found.energy_std[0])
            results["forces_std"] = _array(found.forces_std)
        if found.charges is not None:
            charges = _array(found.charges)
            results["charges"] = charges
            if not self.atoms.pbc.any():
                results["dipole"] = charges @ self.atoms.positions
        results["extrapolation"] = self._lookout.far_outside(graph, forces, self.neighbor_list.n_searches)
        return results


def _changes(before: Atoms | None, after: Atoms) -> list[str]:
    """Which of ASE's `all_changes` a model can tell; the total charge counts as one of the initial charges."""
    if before is None:
        return list(all_changes)
    pairs = {
        "positions": (before.positions, after.positions),
        "numbers": (before.numbers, after.numbers),
        "cell": (before.cell.array, after.cell.array),
        "pbc": (before.pbc, after.pbc),
        "initial_charges": (charge_entries(before), charge_entries(after)),
    }
    return [name for name, (old, new) in pairs.items() if not np.array_equal(old, new)]


def _is_lack_of_memory(error: Exception) -> bool:
    # torch has a class for it on GPUs alone
    known = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
    return known or "can't allocate memory" in str(error)


def load(name_or_path: str | os.PathLike[str], **options: Any) -> LRCCalculator:
    """Return the calculator of a potential: a file, the folder of a training run, or the name of a shipped one.

    `options` are those of `LRCCalculator`. A local file or run folder takes precedence over a shipped potential of the
    same name, with a warning.
    """
    return LRCCalculator(name_or_path, **options)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy().copy()
