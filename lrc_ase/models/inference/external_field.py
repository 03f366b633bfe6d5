r"""Energy of latent charges and dipoles in a uniform electric field F, with derivatives written out.

Atoms carry charges c at unwrapped positions u, dipoles t of transfers, and dipoles in the field
:math:`E_i = -k_e \nabla u_i` of the charges. With the root s of the electronic permittivity in a periodic structure,
and 1 in any other (`lrc_ase.models.polarization`),

.. math:: E_{field} = -s F \cdot \sum_i (c_i u_i + t_i + p_i + \alpha_i E_i) - \tfrac12 \sum_i \alpha_i |F|^2
          - \tfrac12 \epsilon_0 (s^2 - 1) V |F|^2.

A model with polarizabilities has s = 1. Dipoles therefore feel :math:`G = E + s F` in place of E, with the energy
:math:`-p \cdot G - \tfrac12 \alpha |G|^2` (`response`). The other derivatives are :math:`-s F \cdot u_i` by the charge,
:math:`-s F` by the dipole of a transfer, and :math:`-s F c_i` by the position of an atom.
"""

from __future__ import annotations

import numpy as np

from lrc_ase.models.polarization import VACUUM_PERMITTIVITY

__all__ = ["ExternalField"]


class ExternalField:
    """Field on one structure.

    Parameters
    ----------
    field
        F, (3,), V/Angstrom.
    unwrapped
        Positions of the images that count in the polarization, (n_atoms, 3), Angstrom.
    permittivity
        :math:`s^2`.
    volume_per_atom
        Volume of the cell over the number of all atoms in it, Angstrom^3.
    """

    def __init__(self, field: np.ndarray, unwrapped: np.ndarray, permittivity: float, volume_per_atom: float) -> None:
        self._unwrapped = unwrapped
        self.on_charges = permittivity**0.5 * field
        """s F, (3,)."""
        self.potential = -np.einsum("ij,j->i", unwrapped, self.on_charges)
        """Energies of unit charges at the atoms, (n_atoms,), eV/e."""
        self._of_electrons = -0.5 * VACUUM_PERMITTIVITY * (permittivity - 1) * volume_per_atom * float(field @ field)

    def energies(self, charges: np.ndarray, dipoles: np.ndarray | None) -> np.ndarray:
        """Return the energies of carried charges and dipoles of transfers, and shares of that of the electrons, eV."""
        energies = charges * self.potential + self._of_electrons
        if dipoles is not None:
            energies -= np.einsum("ij,j->i", dipoles, self.on_charges)
        return energies

    def by_positions(self, charges: np.ndarray) -> np.ndarray:
        """Return the gradient by the positions at fixed charges, (n_atoms, 3)."""
        return np.multiply.outer(charges, -self.on_charges)

    def virial(self, charges: np.ndarray) -> np.ndarray:
        """Return the gradient by a strain at fixed charges and fractional coordinates, (3, 3)."""
        moment = np.einsum("i,ij->j", charges, self._unwrapped)
        return len(charges) * self._of_electrons * np.eye(3) - np.multiply.outer(moment, self.on_charges)
