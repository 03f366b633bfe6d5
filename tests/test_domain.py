"""The potential file holds the domain of the training set, and calculators warn outside of it."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from structures import ELEMENTS, potential, rattled_crystal, water
from training_frames import two_stage_configuration, write_frames

from lrc_ase import ExtrapolationWarning, LRCCalculator, load_potential, save_potential
from lrc_ase.structures.domain import DOMAIN_KEY, summarize
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import neighbor_graph
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
        "neighbors": [0, 2],
    }
    assert summarize(graphs, ELEMENTS) == expected
    assert summarize([collate(graphs)], ELEMENTS) == expected
    labels = [torch.tensor([[0.0, 3.0, 4.0], [1.0, 1.0, 1.0]]), torch.full((2, 3), torch.nan)]
    assert summarize(graphs, ELEMENTS, labels) == expected | {"largest_force": 5.0}
    assert summarize(graphs, ELEMENTS, labels[1:]) == expected


def test_training_writes_the_summary(tmp_path):
    write_frames(tmp_path)
    prepared = prepare(two_stage_configuration(tmp_path))
    frames = [frame.atoms for data_set in prepared.data_sets.values() for frame in data_set.train]
    shortest = min(atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() for atoms in frames)
    assert min(prepared.domain["shortest_distances"].values()) == pytest.approx(shortest, abs=1e-6)
    assert set(prepared.domain["shortest_distances"]) == {"Cu-Cu", "Cu-Au", "Au-Au"}
    assert prepared.domain["total_charges"] == [0.0]
    counts = [len(neighbor_list("i", atoms, prepared.configuration.model.cutoff)) / len(atoms) for atoms in frames]
    fewest, most = prepared.domain["neighbors"]
    assert fewest <= min(counts) <= max(counts) <= most
    largest = max(np.linalg.norm(atoms.get_forces(), axis=1).max() for atoms in frames)
    assert prepared.domain["largest_force"] == pytest.approx(largest, abs=1e-6)


def test_atoms_closer_than_in_training_warn_once_with_the_distance(tmp_path):
    path = tmp_path / "potential.safetensors"
    save_potential(path, with_domain(shortest_distances={"H-O": 0.9, "H-H": 1.4}))
    atoms = water()
    atoms.calc = LRCCalculator(load_potential(path))
    atoms.get_forces()
    atoms.set_distance(0, 1, 0.885, fix=0)  # any longer run finds a slightly closer pair
    atoms.get_forces()
    atoms.set_distance(0, 1, 0.88, fix=0)
    with pytest.warns(ExtrapolationWarning, match=r"\(O\) .* \(H\) are 0.880 Angstrom apart; .* was 0.900") as caught:
        atoms.get_forces()
    assert len(caught) == 1
    atoms.set_distance(0, 1, 0.8, fix=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_forces()


def test_warnings_point_at_the_program_and_belong_to_this_package():
    atoms = water()
    potential = with_domain(total_charges=[-1.0, 0.0])
    atoms.info["charge"] = 2.0
    program = "def relax(atoms):\n    from ase.optimize import FIRE\n    FIRE(atoms, logfile=None).run(steps=1)\n"
    names: dict = {"__name__": "program"}
    exec(compile(program, "cell.py", "exec"), names)
    atoms.calc = LRCCalculator(potential)
    with pytest.warns(ExtrapolationWarning) as caught:
        names["relax"](atoms)
    assert (caught[0].filename, caught[0].lineno) == ("cell.py", 3)
    atoms.calc = LRCCalculator(potential)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=r"lrc_ase(\.|$)")
        names["relax"](atoms)


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


def test_the_flag_says_what_lies_far_outside():
    atoms = water()
    inside = {"shortest_distances": {"H-O": 0.9}, "neighbors": [2, 4], "largest_force": 1000.0}
    atoms.calc = LRCCalculator(with_domain(**inside))
    atoms.get_forces()
    assert atoms.calc.extrapolation == ()
    atoms.set_distance(0, 1, 0.85, fix=0)
    with pytest.warns(ExtrapolationWarning, match="closest such pair"):
        atoms.get_forces()
    assert atoms.calc.extrapolation == ()  # beyond, not far
    atoms.set_distance(0, 1, 0.7, fix=0)
    atoms.get_forces()
    (reason,) = atoms.calc.extrapolation
    assert reason.startswith("atoms 0 (O) and 1 (H) are 0.700 Angstrom apart")


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ({"neighbors": [5, 9]}, r"atom 0 \(O\) has 2 neighbors within the cutoff, atoms in training had 5 to 9"),
        ({"neighbors": [0, 0]}, "has 2 neighbors within the cutoff, atoms in training had 0 to 0"),
        ({"largest_force": 1e-3}, r"force on atom \d \(\w+\) is .* eV/Angstrom, the largest in training 0.0"),
    ],
)
def test_neighbors_and_forces_far_outside_warn_once_and_are_flagged(domain, message):
    atoms = water()
    atoms.calc = LRCCalculator(with_domain(**domain))
    with pytest.warns(ExtrapolationWarning, match=f"far outside the training set: .*{message}"):
        atoms.get_forces()
    atoms.positions[0] += 0.01
    atoms.get_forces()
    (reason,) = atoms.calc.extrapolation
    assert re.search(message, reason)


@pytest.mark.filterwarnings("ignore::lrc_ase.ExtrapolationWarning")
def test_the_flag_of_a_moving_crystal_does_not_wait_for_the_next_search():
    """Only few pairs are looked at between two searches of neighbors; all are, where every step searches."""
    description = {"Na-Na": 3.1, "Na-Cl": 2.4, "Cl-Cl": 3.1}
    watching = LRCCalculator(with_domain(shortest_distances=description), skin=1.0)
    searching = LRCCalculator(with_domain(shortest_distances=description), skin=0.0)
    atoms, rng, flags = rattled_crystal(repeat=(2, 1, 1)), np.random.default_rng(0), []
    for _ in range(12):
        atoms.positions += rng.normal(scale=0.07, size=(len(atoms), 3))
        violations = []
        for calculator in (watching, searching):
            calculator.get_forces(atoms)
            violations.append(calculator.extrapolation)
        assert violations[0] == violations[1]
        flags.append(bool(violations[0]))
    assert watching.neighbor_list.n_searches < searching.neighbor_list.n_searches
    assert any(flags)
    assert not all(flags)
