"""The dispersion correction D3 of a model: the numbers of its library, in every engine that can add it."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from contract import Contract
from structures import potential, salt_potential, settings, shaken_model
from test_contract import case_of
from training_frames import TINY_MODEL, metal_frames

from lrc_ase import LRCCalculator, Potential, load_potential, save_potential
from lrc_ase.engines.lammps_checks import checked
from lrc_ase.models.baselines import damping_parameters
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.inference import Evaluator
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import D3Settings, ModelSettings
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.training import parse_configuration, train

interface = pytest.importorskip("dftd3.interface", reason="needs pip install 'lrc-ase[d3]'")

BOHR, HARTREE = 0.529177210544, 27.211386245981
"""Angstrom and eV, CODATA 2022; ASE's are those of 2014, which differ by 1e-8."""
# of PBE, doi:10.1002/jcc.21759 and doi:10.1063/1.3382344
BJ = {"s6": 1.0, "s8": 0.7875, "s9": 0.0, "a1": 0.4289, "a2": 4.4407, "alp": 14.0}
ZERO = {"s6": 1.0, "s8": 0.722, "s9": 1.0, "rs6": 1.217, "rs8": 1.0, "alp": 14.0}
BASELINE = [{"d3": {"parameters": BJ}}]
ELEMENTS = ("H", "O", "Na", "Cl")


def crystal():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.set_cell(atoms.cell.array + [[0, 0, 0], [0.8, 0, 0], [-0.4, 0.3, 0]], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def wire():
    atoms = crystal()
    atoms.pbc = (False, True, False)
    atoms.cell[0], atoms.cell[2] = [100.0, 0, 0], [0, 0, 100.0]
    atoms.positions += [50.0, 0, 50.0]  # as in a slab
    return atoms


def slab():
    atoms = crystal()
    atoms.pbc = (True, True, False)
    # the library alone sees images through less vacuum, and wraps atoms that are below zero
    atoms.cell[2] = [0, 0, 100.0]
    atoms.positions += [0, 0, 50.0]
    return atoms


def library(atoms, damping="bj", parameters=BJ, cutoff=31.7506):
    """Energy, forces and stress by the library alone, in the units of ASE."""
    periodic = (atoms.cell.array / BOHR, atoms.pbc) if atoms.pbc.any() else ()
    model = interface.DispersionModel(atoms.numbers, atoms.positions / BOHR, *periodic)
    model.set_realspace_cutoff(cutoff / BOHR, min(40.0, cutoff / BOHR), 40.0, 4.0, 4.0)
    kind = interface.RationalDampingParam if damping == "bj" else interface.ZeroDampingParam
    results = model.get_dispersion(kind(**parameters), grad=True)
    stress = results["virial"] * HARTREE / atoms.get_volume() if atoms.pbc.all() else None
    return results["energy"] * HARTREE, -results["gradient"] * HARTREE / BOHR, stress


def with_dispersion(long_range=True, **d3):
    chosen = settings(long_range=long_range, baseline=[{"d3": {"parameters": BJ, **d3}}])
    return Potential(shaken_model(chosen), torch.zeros(4, dtype=torch.float64))


def without(long_range=True):
    return Potential(shaken_model(settings(long_range=long_range)), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize(
    "make", [crystal, slab, wire, lambda: molecule("H2O")], ids=["crystal", "slab", "wire", "molecule"]
)
@pytest.mark.parametrize("straight", [True, False], ids=["step", "autograd"])
def test_a_model_adds_energy_forces_and_stress_of_the_library(make, straight):
    atoms = make()
    energy, forces, stress = library(atoms)
    graph, difference = neighbor_graph(atoms, ELEMENTS, 5.0), []
    for each in (with_dispersion(), without()):
        model = each.model.requires_grad_(False)
        if straight:
            evaluator = Evaluator(model)
            assert evaluator.goes_straight(graph)
            results = evaluator(graph)
            stress_of_model = evaluator.stress() if stress is not None else None
        else:
            results = evaluate(model, graph, stress=stress is not None)
            stress_of_model = results.stress
        assert results.atomic_energies.sum() == pytest.approx(float(results.energy), abs=1e-10)
        difference.append((results.energy, results.forces, stress_of_model))
    assert float(difference[0][0] - difference[1][0]) == pytest.approx(energy, abs=1e-8)
    np.testing.assert_allclose(difference[0][1] - difference[1][1], forces, rtol=0, atol=1e-8)
    if stress is not None:
        np.testing.assert_allclose((difference[0][2] - difference[1][2])[0], stress, rtol=0, atol=1e-8)
    assert abs(energy) > 1e-3 or len(atoms) == 3


@pytest.mark.parametrize(
    ("d3", "arguments"),
    [
        ({"damping": "zero", "parameters": ZERO}, {"damping": "zero", "parameters": ZERO}),
        ({"cutoff": 12.0}, {"cutoff": 12.0}),
        ({"parameters": BJ | {"s9": 1.0}}, {"parameters": BJ | {"s9": 1.0}}),
    ],
    ids=["zero", "cutoff", "three bodies"],
)
def test_settings_reach_the_library(d3, arguments):
    graph = neighbor_graph(crystal(), ELEMENTS, 5.0)
    models = with_dispersion(**d3).model, with_dispersion().model, without().model
    changed, default, plain = (float(evaluate(model, graph, forces=False).energy) for model in models)
    assert changed - plain == pytest.approx(library(crystal(), **arguments)[0], abs=1e-8)
    assert abs(changed - default) > 1e-5


def test_vacuum_does_not_matter_where_a_direction_is_open():
    energies = []
    for vacuum in (30.0, 100.0):
        atoms = slab()
        atoms.cell[2, 2] = vacuum
        atoms.positions += [0, 0, vacuum]
        results = evaluate(with_dispersion(long_range=False).model, neighbor_graph(atoms, ELEMENTS, 5.0))
        energies.append(float(results.energy))
    assert energies[0] == pytest.approx(energies[1], abs=1e-9)


def test_a_batch_is_its_structures_one_by_one():
    model = with_dispersion().model
    graphs = [neighbor_graph(atoms, ELEMENTS, 5.0) for atoms in (crystal(), slab(), molecule("H2O"))]
    together = evaluate(model, collate(graphs))
    alone = [evaluate(model, graph) for graph in graphs]
    torch.testing.assert_close(together.energy, torch.cat([each.energy for each in alone]), rtol=0, atol=1e-10)
    torch.testing.assert_close(together.forces, torch.cat([each.forces for each in alone]), rtol=0, atol=1e-10)


@lru_cache
def dispersive():
    return potential(settings(baseline=[{"d3": {"parameters": BJ, "cutoff": 16.0}}]))


class TestDispersion(Contract):
    @pytest.fixture(params=["bulk", "cluster"])
    def case(self, request):
        return case_of(dispersive, request.param, 1e-5)


def test_ensembles_have_the_correction_once():
    graph = neighbor_graph(crystal(), ELEMENTS, 5.0)
    members = [shaken_model(settings(baseline=BASELINE), seed=seed).requires_grad_(False) for seed in range(2)]
    plain = [shaken_model(settings(), seed=seed).requires_grad_(False) for seed in range(2)]
    energies = [float(Evaluator(Ensemble(each))(graph).energy) for each in (members, plain)]
    assert energies[0] - energies[1] == pytest.approx(library(crystal())[0], abs=1e-8)


def test_training_learns_the_rest_and_the_file_holds_the_numbers(tmp_path):
    """Models of labels with the correction and without differ by the correction."""
    frames = metal_frames(6)
    ase.io.write(tmp_path / "plain.traj", frames)
    for atoms in frames:
        energy, forces, stress = library(atoms)
        labels = {
            "energy": atoms.get_potential_energy() + energy,
            "forces": atoms.get_forces() + forces,
            "stress": atoms.get_stress() + full_3x3_to_voigt_6_stress(stress),
        }
        atoms.calc = SinglePointCalculator(atoms, **labels)
    ase.io.write(tmp_path / "corrected.traj", frames)
    trained = {}
    for name, baseline in {"plain": [], "corrected": [{"d3": {"functional": "PBE"}}]}.items():
        content = {
            "data": {"train": f"{name}.traj", "validation_fraction": 0.34},
            "model": {**TINY_MODEL, "baseline": baseline, "energy_scale": 1.0},
            "references": {"Cu": 0.0, "Au": 0.0},
            "stages": [{"epochs": 2, "batch_size": 2}],
            "dtype": "float64",
            "n_threads": 1,
        }
        train(parse_configuration(content, folder=tmp_path), tmp_path / name, quiet=True)
        trained[name] = load_potential(tmp_path / name)
    assert trained["corrected"].settings.d3.parameters == BJ
    graph = neighbor_graph(frames[0], ("Cu", "Au"), 4.0)
    energies = {name: evaluate(each.model, graph, forces=False).energy for name, each in trained.items()}
    assert float(energies["corrected"] - energies["plain"]) == pytest.approx(library(frames[0])[0], abs=0.01)


def test_a_file_comes_back_with_the_same_numbers(tmp_path):
    some = with_dispersion()
    save_potential(tmp_path / "p.safetensors", some)
    atoms, energies = crystal(), []
    for each in (some, load_potential(tmp_path / "p.safetensors")):
        atoms.calc = LRCCalculator(each)
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1]


@pytest.mark.parametrize(
    ("d3", "elements", "message"),
    [
        ({}, ("Na", "Cl"), r"`baseline\.d3\.parameters` is missing"),
        ({"parameters": {"s6": 1.0}}, ("Na", "Cl"), r"`baseline\.d3\.parameters` do not fit damping bj: "),
        ({"parameters": ZERO}, ("Na", "Cl"), r"`baseline\.d3\.parameters` do not fit damping bj: "),
        ({"parameters": BJ}, ("H", "Fm"), "D3 has no coefficients for Fm"),
    ],
)
def test_settings_that_fit_no_model_are_refused(d3, elements, message):
    with pytest.raises(ValueError, match=message):
        build_model(ModelSettings(elements=elements, baseline=[{"d3": d3}]))


def test_parameters_follow_from_functional_damping_and_three_body():
    assert damping_parameters("PBE", "bj", three_body=False) == BJ
    assert damping_parameters("PBE", "zero", three_body=True) == ZERO
    assert damping_parameters("revPBE", "bj", three_body=False)["a1"] == 0.5238
    assert D3Settings(name="d3").functional == "PBE"


def test_the_training_looks_up_what_the_settings_name(tmp_path):
    ase.io.write(tmp_path / "frames.traj", metal_frames(4))
    d3 = {"functional": "revPBE", "damping": "zero", "three_body": True}
    content = {
        "data": "frames.traj",
        "model": {**TINY_MODEL, "baseline": ["zbl", {"d3": d3}]},
        "stages": [{"epochs": 1, "batch_size": 2}],
    }
    train(parse_configuration(content, folder=tmp_path), tmp_path / "run", quiet=True)
    settings = load_potential(tmp_path / "run").settings
    assert settings.d3.parameters == ZERO | {"rs6": 0.923, "s8": 1.010}
    assert settings.zbl is not None
    train(None, tmp_path / "run", resume=True, quiet=True)


def test_an_unknown_functional_is_refused(tmp_path):
    ase.io.write(tmp_path / "frames.traj", metal_frames(4))
    content = {"data": "frames.traj", "model": {**TINY_MODEL, "baseline": [{"d3": {"functional": "PEB"}}]}}
    with pytest.raises(ValueError, match="dftd3 has no parameters of 'PEB' with damping bj"):
        train(parse_configuration(content, folder=tmp_path), tmp_path / "run", quiet=True)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dftd3", None)
    monkeypatch.setattr("lrc_ase.models.baselines.d3.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package dftd3: pip install 'lrc-ase\[d3\]'"):
        build_model(settings(baseline=BASELINE))


def test_lammps_refuses_it():
    plain = salt_potential()
    model = build_model(plain.settings.model_copy(update={"baseline": BASELINE}))
    lmp = SimpleNamespace(extract_global=lambda name: "metal", extract_box=lambda: (0, 0, 0, 0, 0, [1, 1, 1]))
    with pytest.raises(ValueError, match="dispersion correction D3, whose pairs reach beyond the ghosts of LAMMPS"):
        checked(lmp, Potential(model, plain.references), object(), ("Na", "Cl"))


def test_processes_that_share_a_structure_are_refused():
    graph = neighbor_graph(Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.5]]), ELEMENTS, 5.0)
    halved = replace(
        graph, neighbors=graph.neighbors[:1], shifts=graph.shifts[:1], neighbor_mask=graph.neighbor_mask[:1]
    )
    with pytest.raises(ValueError, match="D3 needs all atoms of a structure in one process"):
        with_dispersion(long_range=False).model.dispersion.evaluate(halved)


def test_results_of_earlier_structures_are_kept_within_bounds(monkeypatch):
    dispersion = with_dispersion(long_range=False).model.dispersion
    counted = []
    original = interface.DispersionModel.get_dispersion
    monkeypatch.setattr(
        interface.DispersionModel,
        "get_dispersion",
        lambda self, *arguments, **options: (counted.append(1), original(self, *arguments, **options))[1],
    )
    monkeypatch.setattr("lrc_ase.models.baselines.d3._REMEMBERED", 2 * 9)
    graphs = [
        neighbor_graph(Atoms("OH2", positions=[[0, 0, 0], [x, 0, 0], [0, 0.96, 0]]), ELEMENTS, 5.0)
        for x in (0.9, 0.95, 1.0)
    ]
    for index, expected in ((0, 1), (0, 1), (1, 2), (0, 2), (2, 3), (1, 4), (2, 4)):
        dispersion.evaluate(graphs[index])
        assert len(counted) == expected
    monkeypatch.setattr("lrc_ase.models.baselines.d3._REMEMBERED", 1)  # even then the last one
    for index, expected in ((0, 5), (0, 5), (1, 6), (0, 7)):
        dispersion.evaluate(graphs[index])
        assert len(counted) == expected
