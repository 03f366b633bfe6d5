"""The potential as ``pair_style mliap unified``, for a LAMMPS that was built with PYTHON and ML-IAP.

The evaluation is that of the fix in `lrc_ase.engines.lammps`; LAMMPS counts the energies as those of a pair style.

- ML-IAP passes only vectors of pairs to a model. The mesh needs positions, which are read from LAMMPS.
- ML-IAP keeps a table of atoms times pairs, tens of gigabytes from 10,000 atoms on. Its cutoff is therefore so short
  that there are no pairs, and this package searches the neighbors.
- LAMMPS computes the virial of a pair style from the forces, as the sum of x f. This leaves out the direct dependence
  of the mesh energy on the box. ``pair_modify`` switches that virial off, and a fix supplies the right one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lrc_ase.engines.lammps import FIX, LammpsCoupling
from lrc_ase.engines.lammps_checks import checked
from lrc_ase.files.potential_file import Potential

if TYPE_CHECKING:
    from lammps import lammps
    from mpi4py.MPI import Comm

__all__ = ["PairCoupling", "attach"]

_NO_PAIRS = 1e-3
"""Cutoff in Angstrom shorter than any distance between atoms."""


def attach(
    lmp: lammps,
    potential: str | os.PathLike[str] | Potential,
    comm: Comm | None = None,
    *,
    species: Sequence[str] | None = None,
    **options: Any,
) -> PairCoupling:
    """Make a potential the pair style of LAMMPS; arguments and errors are those of `lrc_ase.engines.lammps.attach`.

    Raises
    ------
    ValueError
        In addition: LAMMPS has no ML-IAP or no Python interface of it.
    """
    potential, comm, names = checked(lmp, potential, comm, species)
    try:
        import lammps.mliap as interface

        interface.activate_mliappy(lmp)
    except (ImportError, OSError, AttributeError) as error:
        raise ValueError(
            "this LAMMPS has no Python interface of ML-IAP: build it with PKG_PYTHON, PKG_ML-IAP, PKG_ML-SNAP and "
            "MLIAP_ENABLE_PYTHON as a shared library, against this Python; or use lrc_ase.engines.lammps.attach, "
            f"which works with every LAMMPS ({error})"
        ) from error
    coupling = PairCoupling(lmp, potential, comm, names, **options)
    interface.load_unified(coupling)
    # the pair style without forces makes LAMMPS keep ghosts within the cutoff
    lmp.commands_list(
        [
            f"pair_style hybrid/overlay zero {potential.settings.cutoff:.17g} mliap unified EXISTS",
            "pair_coeff * * zero",
            f"pair_coeff * * mliap {' '.join(names)}",
            "pair_modify pair mliap nofdotr",
            f"fix {FIX} all external pf/array 1",
            f"fix_modify {FIX} energy no virial yes",
        ]
    )
    lmp.fix_external_set_vector_length(FIX, 1)
    return coupling


class PairCoupling(LammpsCoupling):
    """A potential on one process of LAMMPS, with the attributes that ML-IAP requires of a model."""

    interface: Any = None
    """Object of LAMMPS that calls this one; `load_unified` sets it."""
    ndescriptors = nparams = 1
    rcutfac = 0.5 * _NO_PAIRS

    def __init__(self, lmp: lammps, potential: Potential, comm: Comm, species: tuple[str, ...], **options: Any) -> None:
        super().__init__(lmp, potential, comm, species, **options)
        self.element_types = list(dict.fromkeys(species))

    def compute_descriptors(self, data: Any) -> None:
        """Skip this step of ML-IAP: `compute_forces` evaluates everything."""

    def compute_gradients(self, data: Any) -> None:
        """Skip this step of ML-IAP: `compute_forces` evaluates everything."""

    def compute_forces(self, data: Any) -> None:
        """Add forces and energies to those of LAMMPS; pass the virial to the fix."""
        with self.ending_all():
            n_local = data.nlocal
            energies, totals, forces = self.evaluate(n_local)
            self.set_virial(totals[1:10])
            data.energy = float(energies.sum())
            if n_local:
                data.f[:n_local] += forces
                data.eatoms = energies[data.iatoms]
