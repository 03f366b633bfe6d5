"""The total charge of a structure and the names under which people write it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from structures import potential, settings

from lrc_ase import LRCCalculator
from lrc_ase.structures.charge import (
    CHARGE_NAMES,
    charge_doubt,
    charge_entries,
    set_total_charge,
    take_charge_from,
    total_charge,
)
from lrc_ase.structures.neighbors import neighbor_graph


def ion(**entries):
    return Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.4]], info=entries)


@pytest.mark.parametrize(
    "name", [*CHARGE_NAMES, "Charge", "REF_charge", "TotalCharge", "DFT_total_charge", "Net Charge"]
)
def test_charge_is_read_under_every_name(name):
    atoms = ion(**{name: -2})
    assert total_charge(atoms) == -2.0
    assert float(neighbor_graph(atoms, ("Na", "Cl"), 3.0).charge[0]) == -2.0
    assert charge_doubt(atoms) is None


@pytest.mark.parametrize("name", ["charges", "charge_density", "spin", "discharge"])
def test_other_entries_are_no_total_charge(name):
    assert total_charge(ion(**{name: 1.0})) == 0.0


def test_names_that_agree_count_once_and_names_that_differ_are_an_error():
    assert total_charge(ion(charge=1, total_charge=1.0)) == 1.0
    with pytest.raises(ValueError, match=r"two total charges, 'charge' 1 and 'tot_charge' 0: keep the right one"):
        total_charge(ion(charge=1, tot_charge=0))


@pytest.mark.parametrize(("value", "message"), [("cation", "one number, got 'cation'"), (np.nan, "must be finite")])
def test_a_charge_that_is_no_number_names_its_entry(value, message):
    with pytest.raises(ValueError, match=rf"`atoms.info\['net_charge'\]`.*{message}"):
        total_charge(ion(net_charge=value))


def test_text_of_a_number_is_a_charge():
    assert total_charge(ion(charge="-1")) == -1.0


def test_setting_the_charge_leaves_one_entry():
    atoms = ion(REF_charge=2, charge=2, other=5)
    set_total_charge(atoms, 8.0)
    assert charge_entries(atoms) == {"charge": 8.0}
    assert atoms.info["other"] == 5


def test_key_of_the_user_wins_over_other_names_and_leaves_the_input_as_it_is():
    atoms = ion(q=1, charge=0)
    assert total_charge(take_charge_from(atoms, "q")) == 1.0
    assert total_charge(atoms) == 0.0
    with pytest.raises(ValueError, match=r"no charge under the key 'Q'; `atoms.info` holds \['charge', 'q'\]"):
        take_charge_from(atoms, "Q")


def test_initial_charges_that_sum_to_an_integer_are_doubted():
    atoms = ion()
    atoms.set_initial_charges([0.61, 0.38])
    assert "initial charges sum to +1 e but no total charge is named" in charge_doubt(atoms)
    atoms.info["charge"] = 0
    assert charge_doubt(atoms) is None
    atoms = ion()
    atoms.set_initial_charges([1.0, -1.0])
    assert charge_doubt(atoms) is None


def test_the_calculator_tells_once_of_a_structure_that_looks_charged():
    atoms = ion()
    atoms.set_initial_charges([1.0, 0.0])
    atoms.calc = LRCCalculator(potential())
    with pytest.warns(UserWarning, match=r"initial charges sum to \+1 e but no total charge is named") as told:
        atoms.get_potential_energy()
    assert told[0].filename == __file__
    atoms.positions[1, 2] += 1.0
    atoms.get_potential_energy()  # a second warning would be an error
    # without charges in the model there is nothing to be mistaken about
    atoms.calc = LRCCalculator(potential(settings(long_range=None)))
    atoms.get_potential_energy()


def test_entries_that_look_like_a_charge_are_doubted():
    assert "'cell_charge_e' looks like a total charge" in charge_doubt(ion(cell_charge_e=1))
