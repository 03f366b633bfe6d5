"""Two far copies of a molecule, as the check of locality makes them."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from lrc_ase.checks import check
from lrc_ase.checks.locality import _two


@pytest.mark.parametrize("charge", [0.0, 2.0, -3.0])
def test_two_copies_carry_twice_the_charge(charge):
    one = Atoms("OH", positions=[[0.0, 0.0, 0.0], [0.0, 0.7, 0.7]])
    one.info["charge"] = charge
    both = _two(one, 50.0)
    assert both.info["charge"] == 2 * charge
    assert both.get_chemical_symbols() == ["O", "H"] * 2
    np.testing.assert_allclose(both.positions[2:] - both.positions[:2], [[50.0, 0.0, 0.0]] * 2)
    assert one.info["charge"] == charge
    assert len(one) == 2


def test_a_molecule_alone_in_a_periodic_box_has_no_decay():
    box = molecule("CO", cell=[20, 20, 20], pbc=True)
    box.info["kind"] = "crystal"
    (system,) = check(EMT(), box, only=["locality"]).systems
    (result,) = system.results
    assert (result.verdict, result.sentence) == (
        "not applicable",
        "No atoms lie between 5 and 18.0 Angstrom from the one that moves.",
    )


def test_a_cell_that_is_too_large_is_named_with_its_width():
    dense = bulk("C", "diamond", a=3.0, cubic=True)
    dense.info["kind"] = "crystal"
    (system,) = check(EMT(), dense, only=["locality"]).systems
    assert system.results[0].sentence == "A cell of 24 Angstrom would hold more than 3000 atoms."
