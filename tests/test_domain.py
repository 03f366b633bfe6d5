"""What training saw goes into the potential file, and calculators warn of what it did not see."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from structures import ELEMENTS, potential, water
from training_frames import two_stage_configuration, write_frames

from lrc_ase import ExtrapolationWarning, LRCCalculator, load_potential, save_potential
from lrc_ase.domain import DOMAIN_KEY, summarize
from lrc_ase.graph import collate
from lrc_ase.neighbors import neighbor_graph
from lrc_ase.training.prepare import prepare


def with_domain(**domain):
    return replace(potential(), description={DOMAIN_KEY: domain})


def test_summary_holds_the_shortest_distance_of_each_pair_and_every_charge():
    salt = Atoms("NaClNa", positions=[[0, 0, 0], [2.5, 0, 0], [0, 0, 9.0]], cell=[20, 20, 10], pbc=True)
    ion = Atoms("Cl2", positions=[[0, 0, 0], [0, 2.0, 0]], info={"charge": -1})
    far = Atoms("OH", positions=[[0, 0, 0], [0, 0, 30.0]])
    graphs = [neighbor_graph(atoms, ELEMENTS, 4.5) for atoms in (salt, ion, far)]
    expected = {
        "shortest_distances": {"Na-Na": 1.0, "Na-Cl": 2.5, "Cl-Cl": 2.0},
        "total_charges": [-1.0, 0.0],
    }
    assert summarize(graphs, ELEMENTS) == expected
    assert summarize([collate(graphs)], ELEMENTS) == expected


def test_training_writes_the_summary(tmp_path):
    write_frames(tmp_path)
    prepared = prepare(two_stage_configuration(tmp_path))
    frames = [frame.atoms for data_set in prepared.data_sets.values() for frame in data_set.train]
    shortest = min(atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() for atoms in frames)
    assert min(prepared.domain["shortest_distances"].values()) == pytest.approx(shortest, abs=1e-6)
    assert set(prepared.domain["shortest_distances"]) == {"Cu-Cu", "Cu-Au", "Au-Au"}
    assert prepared.domain["total_charges"] == [0.0]


def test_atoms_closer_than_in_training_warn_once_with_the_distance(tmp_path):
    path = tmp_path / "potential.safetensors"
    save_potential(path, with_domain(shortest_distances={"H-O": 0.9, "H-H": 1.4}))
    atoms = water()
    atoms.calc = LRCCalculator(load_potential(path))
    atoms.get_forces()
    atoms.set_distance(0, 1, 0.85, fix=0)
    with pytest.warns(ExtrapolationWarning, match=r"\(O\) .* \(H\) are 0.850 Angstrom apart; .* was 0.900") as caught:
        atoms.get_forces()
    assert len(caught) == 1
    atoms.set_distance(0, 1, 0.8, fix=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_forces()


def test_a_charge_that_training_never_saw_warns_once():
    atoms = water()
    atoms.calc = LRCCalculator(with_domain(total_charges=[-1.0, 0.0]))
    for charge in (0.0, -1):
        atoms.info["charge"] = charge
        atoms.get_forces()
    atoms.info["charge"] = 2.0
    with pytest.warns(ExtrapolationWarning, match="total charge of 2 e never occurred in training, which saw -1, 0"):
        atoms.get_forces()
    atoms.info["charge"] = 3.0
    atoms.get_forces()


def test_a_lonely_atom_is_close_to_nobody():
    atoms = Atoms("Na")
    atoms.calc = LRCCalculator(with_domain(shortest_distances={"Na-Na": 2.0}))
    assert np.isfinite(atoms.get_potential_energy())
