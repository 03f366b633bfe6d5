"""Structures that shipped potentials bring along."""

from __future__ import annotations

import ase.io
from ase import Atoms

from lrc_ase.files.errors import PotentialFileError
from lrc_ase.files.pretrained import start_file, trained_potential

__all__ = ["start_structure"]


def start_structure(name: str) -> Atoms:
    """Return the structure that a shipped potential brings along, a first step into its training set.

    Raises
    ------
    PotentialFileError
        No shipped potential has that name, or it brings no structure along.

    >>> start_structure("nacl").get_chemical_formula()
    'Cl32Na32'
    """
    trained_potential(name)  # raises for an unknown name
    file = start_file(name)
    if file is None:
        raise PotentialFileError(f"the shipped potential {name!r} brings no structure along")
    atoms = ase.io.read(file)
    assert isinstance(atoms, Atoms)
    return atoms
