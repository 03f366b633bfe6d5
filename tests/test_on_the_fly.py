"""The calculator that asks a teacher: when it does, what it returns, stores and learns."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, InputError
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from training_frames import TINY_MODEL, metal_frames

from lrc_ase import ExtrapolationWarning, LRCCalculator
from lrc_ase.files.lock import InUseError
from lrc_ase.files.potential_file import Potential
from lrc_ase.learning import LabelStore, OnTheFlyCalculator, TeacherError, TeacherSettings
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import ModelSettings
from lrc_ase.structures.domain import summarize
from lrc_ase.structures.neighbors import neighbor_graph

SETTINGS = ModelSettings.model_validate({**TINY_MODEL, "elements": ("Cu", "Au")})
EMT_TEACHER = TeacherSettings(calculator="ase.calculators.emt:EMT", check=False)
NO_TEACHER = TeacherSettings(calculator="nowhere_at_all:Teacher")
"""A teacher that is an error as soon as it is asked."""


def model(seed: int):
    """Return an untrained model."""
    generator = torch.Generator().manual_seed(seed)
    untrained = build_model(SETTINGS, generator=generator)
    return untrained.double()


def potential(n_members: int = 2, floor: float = 0.0, description: dict | None = None) -> Potential:
    """Return a potential of untrained models, with the domain of rattled metals."""
    models = [model(seed) for seed in range(n_members)]
    whole = models[0] if n_members == 1 else Ensemble(models).double()
    if n_members > 1:
        whole.forces_floor.fill_(floor)
    if description is None:
        graphs = [neighbor_graph(atoms, SETTINGS.elements, SETTINGS.cutoff) for atoms in metal_frames(22)]
        description = {"training_domain": summarize(graphs, SETTINGS.elements)}
    return Potential(whole, torch.zeros(2, dtype=torch.float64), description)


def frame(seed: int = 0) -> Atoms:
    """Return a rattled cell within the training domain."""
    atoms = metal_frames(seed + 1)[seed]
    atoms.calc = None
    return atoms


def deviation(of: Potential, atoms: Atoms) -> float:
    """Return the largest predicted deviation of the force on an atom."""
    calculator = LRCCalculator(of)
    return float(np.linalg.norm(calculator.get_forces_std(atoms), axis=1).max())


def emt(atoms: Atoms) -> Atoms:
    """Return a copy with EMT."""
    copy = atoms.copy()
    copy.calc = EMT()
    return copy


def test_a_sure_potential_is_returned_and_no_teacher_is_started(tmp_path):
    atoms, reference = frame(), frame()
    reference.calc = LRCCalculator(potential())
    with OnTheFlyCalculator(potential(), NO_TEACHER, 1e6, labels=tmp_path / "labels.extxyz") as calculator:
        atoms.calc = calculator
        assert atoms.get_potential_energy() == reference.get_potential_energy()
        assert atoms.get_potential_energy(force_consistent=True) == reference.get_potential_energy()
        assert np.array_equal(atoms.get_forces(), reference.get_forces())
        assert np.array_equal(atoms.get_stress(), reference.get_stress())
        assert calculator.n_evaluations == 1
        assert calculator.calls == []
        assert calculator.reasons == ()
    assert not (tmp_path / "labels.extxyz").exists()


def test_the_teacher_answers_above_the_threshold(tmp_path):
    atoms = frame()
    limit = deviation(potential(), atoms)
    with OnTheFlyCalculator(potential(), NO_TEACHER, 1.0001 * limit, labels=tmp_path / "sure.extxyz") as calculator:
        atoms.calc = calculator
        atoms.get_forces()
    with OnTheFlyCalculator(potential(), EMT_TEACHER, 0.9999 * limit, labels=tmp_path / "labels.extxyz") as calculator:
        atoms.calc = calculator
        assert atoms.get_potential_energy() == emt(atoms).get_potential_energy()
        assert np.array_equal(atoms.get_forces(), emt(atoms).get_forces())
        assert np.array_equal(atoms.get_stress(), emt(atoms).get_stress())
        assert calculator.n_evaluations == 1
        [call] = calculator.calls
        predicted = LRCCalculator(potential())
        assert call.evaluation == 0
        assert call.deviation == limit
        assert call.energy_difference == atoms.get_potential_energy() - predicted.get_property("energy", atoms)
        errors = atoms.get_forces() - predicted.get_property("forces", atoms)
        assert call.force_error == np.linalg.norm(errors, axis=1).max()
        assert 0 < call.seconds < 60
        assert "has a predicted deviation of" in calculator.reasons[0]
        [label] = calculator.labels.frames()
    assert label.get_potential_energy() == emt(atoms).get_potential_energy()
    assert "predicted deviation" in label.info["reason"]
    assert label.info["predicted_deviation"] == limit
    assert label.info["force_error"] == call.force_error


def test_the_teacher_answers_outside_of_the_training_domain(tmp_path):
    near, unknown = frame(), frame()
    near.positions[1] = near.positions[0] + [0.0, 0.5, 1.0]
    unknown.symbols[0] = "Ag"
    with OnTheFlyCalculator(potential(), EMT_TEACHER, 1e6, labels=tmp_path / "labels.extxyz") as calculator:
        with pytest.warns(ExtrapolationWarning):
            assert calculator.get_property("energy", near) == emt(near).get_potential_energy()
        assert "Angstrom apart" in calculator.reasons[0]
        assert calculator.get_property("energy", unknown) == emt(unknown).get_potential_energy()
        assert calculator.reasons == ("the potential does not know the element Ag",)
        charged = frame()
        charged.info["charge"] = 1
        calculator.get_property("energy", charged)
        assert calculator.reasons == ("a total charge of 1 e never occurred in training",)
        assert np.isnan(calculator.calls[1].energy_difference)
        assert np.isnan(calculator.calls[1].force_error)
        calculator.get_property("energy", frame())
        assert calculator.reasons == ()
        assert (calculator.n_evaluations, len(calculator.labels)) == (4, 3)


def test_labels_are_not_computed_again(tmp_path):
    atoms = frame()
    with OnTheFlyCalculator(potential(), EMT_TEACHER, 1e-9, labels=tmp_path / "labels.extxyz") as calculator:
        energy = calculator.get_property("energy", atoms)
        with pytest.raises(InUseError):
            LabelStore(tmp_path / "labels.extxyz")
    with OnTheFlyCalculator(potential(), NO_TEACHER, 1e-9, labels=tmp_path / "labels.extxyz") as calculator:
        assert calculator.get_property("energy", atoms) == energy
        assert calculator.calls[0].seconds == 0.0
        with pytest.raises(TeacherError, match="no module 'nowhere_at_all'"):
            calculator.get_property("energy", frame(1))
        charged = atoms.copy()
        charged.info["charge"] = 1
        with pytest.raises(TeacherError):
            calculator.get_property("energy", charged)


def test_the_energy_is_that_of_which_the_forces_are_the_derivative(tmp_path):
    atoms = frame()
    with LabelStore(tmp_path / "labels.extxyz") as store:
        label = metal_frames(1)[0]
        label.calc.results["free_energy"] = -7.0
        store.add(label)
    with OnTheFlyCalculator(potential(), NO_TEACHER, 1e-9, labels=tmp_path / "labels.extxyz") as calculator:
        assert calculator.get_property("energy", atoms) == -7.0
        assert calculator.get_property("free_energy", atoms) == -7.0


def test_dynamics_with_an_unsure_potential_are_those_of_the_teacher(tmp_path):
    atoms, reference = frame(), emt(frame())
    with OnTheFlyCalculator(potential(), EMT_TEACHER, 1e-9, labels=tmp_path / "labels.extxyz") as calculator:
        atoms.calc = calculator
        for each in (atoms, reference):
            VelocityVerlet(each, 2 * units.fs).run(3)
        assert np.array_equal(atoms.positions, reference.positions)
        assert calculator.n_evaluations == len(calculator.labels) == 4


def test_the_teacher_rests_for_the_spacing_between_two_calls(tmp_path):
    """With a spacing of 3, an unsure potential asks in evaluations 0, 3 and 6, and answers itself in between."""
    atoms = frame()
    labels = tmp_path / "labels.extxyz"
    with OnTheFlyCalculator(potential(), EMT_TEACHER, 1e-9, labels=labels, spacing=3) as calculator:
        atoms.calc = calculator
        reference = LRCCalculator(potential())
        for evaluation in range(7):
            atoms.rattle(0.001, seed=evaluation)
            truth = EMT() if evaluation % 3 == 0 else reference
            assert np.array_equal(atoms.get_forces(), truth.get_property("forces", atoms.copy()))
            np.testing.assert_allclose(atoms.get_stress(), truth.get_property("stress", atoms.copy()), atol=1e-12)
        assert [call.evaluation for call in calculator.calls] == [0, 3, 6]
        assert (len(calculator.labels), calculator.limits.n_calls, calculator.n_unsure) == (3, 3, 4)
        # the potential cannot evaluate this one, whatever the spacing
        unknown = frame()
        unknown.symbols[0] = "Ag"
        assert calculator.get_property("energy", unknown) == emt(unknown).get_potential_energy()
    # a stored label costs nothing, and is taken within the spacing too
    with OnTheFlyCalculator(potential(), NO_TEACHER, 1e-9, labels=labels, spacing=3) as calculator:
        for label in calculator.labels.frames()[:2]:
            assert calculator.get_property("energy", label.copy()) == label.get_potential_energy()
        assert (calculator.limits.n_calls, calculator.n_unsure) == (0, 0)


def test_a_budget_of_calls_stops_the_run_or_goes_on_with_a_warning(tmp_path):
    frames = [frame(seed) for seed in range(4)]
    with OnTheFlyCalculator(
        potential(), EMT_TEACHER, 1e-9, labels=tmp_path / "labels.extxyz", max_calls=2
    ) as calculator:
        for atoms in frames[:2]:
            calculator.get_property("energy", atoms)
        with pytest.raises(
            CalculationFailed,
            match=r"budget of 2 calculations of the teacher is used up .*predicted deviation.*Retrain on the labels",
        ):
            calculator.get_property("energy", frames[2])
        assert len(calculator.labels) == 2
        assert calculator.get_property("energy", frames[0]) == emt(frames[0]).get_potential_energy()  # is stored
    with OnTheFlyCalculator(
        potential(), NO_TEACHER, 1e-9, labels=tmp_path / "none.extxyz", max_calls=0, at_limit="warn"
    ) as calculator:
        with pytest.warns(UserWarning, match="budget of 0 calculations .* from here on the potential answers"):
            energy = calculator.get_property("energy", frames[2])
        assert energy == LRCCalculator(potential()).get_property("energy", frames[2])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            calculator.get_property("energy", frames[3])
        assert calculator.n_unsure == 2
        unknown = frame()
        unknown.symbols[0] = "Ag"
        with pytest.raises(CalculationFailed, match="does not know the element Ag"):
            calculator.get_property("energy", unknown)


def test_relaxation_with_fixed_atoms(tmp_path):
    atoms = frame()
    atoms.set_constraint(FixAtoms([0]))
    with OnTheFlyCalculator(potential(), EMT_TEACHER, 1e-9, labels=tmp_path / "labels.extxyz") as calculator:
        atoms.calc = calculator
        assert BFGS(atoms, logfile=None).run(fmax=0.05, steps=50)
        forces = calculator.labels.frames()[-1].get_forces()
        # the label keeps the force that the constraint hides
        assert np.array_equal(forces, emt(calculator.labels.frames()[-1]).get_forces())
        assert np.linalg.norm(forces[0]) > 0
        assert not atoms.get_forces()[0].any()


def test_a_teacher_that_fails_is_an_error_of_the_calculation(tmp_path):
    teacher = TeacherSettings(calculator="ase.calculators.emt:EMT")
    atoms = frame()
    atoms.symbols[0] = "Na"
    with OnTheFlyCalculator(potential(), teacher, 1.0, labels=tmp_path / "labels.extxyz") as calculator:
        with pytest.raises(CalculationFailed, match=r"teacher failed: .*No EMT-potential for Na.*does not know.*Na"):
            calculator.get_property("energy", atoms)
        assert len(calculator.labels) == 0


def test_settings_of_the_potential_reach_it(tmp_path):
    labels = tmp_path / "labels.extxyz"
    with OnTheFlyCalculator(potential(), NO_TEACHER, 1e6, labels=labels, dtype="float32", skin=0.9) as calculator:
        assert next(calculator.calculator.model.parameters()).dtype == torch.float32
        assert calculator.calculator.neighbor_list.skin == 0.9


def test_potentials_without_deviations(tmp_path):
    with pytest.warns(UserWarning, match="single model without deviations: the teacher is asked only where"):
        calculator = OnTheFlyCalculator(potential(1), NO_TEACHER, 1e-9, labels=tmp_path / "labels.extxyz")
    with calculator:
        calculator.get_property("energy", frame())
        assert calculator.calls == []
        distant = frame()
        distant.symbols[0] = "Ag"
        with pytest.raises(TeacherError):
            calculator.get_property("energy", distant)
    with pytest.raises(ValueError, match="records no training domain: nothing tells where it is unsure"):
        OnTheFlyCalculator(potential(1, description={}), NO_TEACHER, 1.0, labels=tmp_path / "labels.extxyz")


def test_thresholds_below_all_deviations(tmp_path):
    # a floor of 0.1 for each of three components
    with pytest.warns(UserWarning, match=r"smallest deviation of a force that this potential predicts 0.173"):
        OnTheFlyCalculator(potential(floor=0.1), NO_TEACHER, 0.17, labels=tmp_path / "labels.extxyz").close()
    OnTheFlyCalculator(potential(floor=0.1), NO_TEACHER, 0.18, labels=tmp_path / "labels.extxyz").close()


def test_deviations_that_do_not_depend_on_the_structure(tmp_path):
    blind = potential(floor=0.1)
    blind.model.uncertainty_scale[1] = 1e-7
    with pytest.warns(UserWarning, match=r"hardly depend on the structure .* counts 1e-07 times"):
        OnTheFlyCalculator(blind, NO_TEACHER, 0.2, labels=tmp_path / "labels.extxyz").close()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threshold": 0.0}, ValueError, "`threshold` must be a positive deviation"),
        ({"threshold": np.nan}, ValueError, "`threshold` must be a positive deviation"),
        ({"retrain": 0}, ValueError, "`retrain` must be a number of labels of 1 or more"),
        ({"training": {"epoch": 3}}, TypeError, "did you mean 'epochs'"),
        ({"training": {"start": "nacl"}}, TypeError, "a retraining sets 'start' itself"),
        ({"training": {"epochs": np.int64(3)}}, TypeError, "must be numbers, texts, lists or paths of plain Python"),
        ({"electric_field": (0, 0, 1)}, TypeError, "the teacher would not know of it"),
        ({"spacing": 0}, ValueError, "`spacing` must be a number of evaluations of 1 or more, got 0"),
        ({"max_calls": -1}, ValueError, "`max_calls` must be a number of calculations of 0 or more, or None, got -1"),
        ({"at_limit": "sleep"}, ValueError, '`at_limit` must be "stop" or "warn", got \'sleep\''),
        ({"skin_depth": 1}, TypeError, "no keyword 'skin_depth'"),
    ],
)
def test_options_are_checked(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        OnTheFlyCalculator(**{"potential": potential(), "teacher": NO_TEACHER, "threshold": 1.0} | options, labels="no")


def test_structures_in_a_field_are_refused(tmp_path):
    atoms = frame()
    atoms.info["external_field"] = (0, 0, 0.1)
    with OnTheFlyCalculator(potential(), NO_TEACHER, 1e6, labels=tmp_path / "labels.extxyz") as calculator:
        with pytest.raises(InputError, match="needs atoms, got None"):
            calculator.calculate()
        with pytest.raises(InputError, match="names an electric field, of which the teacher does not know"):
            calculator.get_property("energy", atoms)
