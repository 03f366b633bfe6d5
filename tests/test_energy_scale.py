"""Energies against isolated atoms: how weakly bound a structure may be depends on its bonds."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from lrc_ase.dataset import LabelledFrame
from lrc_ase.dataset.bonds import BondConstant
from lrc_ase.dataset.energy_scale import atomization_energies

ISOLATED = {1: -13.6, 8: -2041.0}


@pytest.mark.parametrize(
    ("stiffness", "energy", "doubtful"),
    [
        (33.0, -3.2, False),  # eV/Angstrom^2 and eV per atom of O-H bonds in water
        (33.0, -0.3, True),  # covalent, and hardly bound
        (2.0, -0.3, False),  # as in argon
        (2.0, 1.0, False),
        (2.0, 2.5, True),  # unbound
        (2.0, -14.0, True),  # stronger than tungsten
    ],
)
def test_covalent_structures_must_be_bound_and_others_may_be_weakly_so(stiffness, energy, doubtful):
    total = 2 * ISOLATED[1] + ISOLATED[8] + 3 * energy
    unknown = np.full((3, 3), np.nan)
    frame = LabelledFrame(molecule("H2O"), total, unknown, unknown, "water")
    constants = [BondConstant((1, 8), constant=stiffness, predicted=stiffness, n_bonds=100)]
    check = atomization_energies([frame], ISOLATED, constants)
    assert (check.warning is not None) == doubtful
    assert check.basis == "1 frame"
