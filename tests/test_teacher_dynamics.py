"""Segments of dynamics with a teacher: integration, temperature, and how its worker processes run them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from lrc_ase.learning import Labelled, TeacherPool, TeacherSettings
from lrc_ase.learning.teacher_dynamics import Segment, advance
from lrc_ase.simulation import thermalize

EMT_TEACHER = TeacherSettings(calculator="ase.calculators.emt:EMT", check=False)


class Ideal(Calculator):
    """Ideal gas."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}


def warm(temperature: float = 600.0) -> Atoms:
    """Return an aluminium cell with momenta."""
    atoms = bulk("Al", cubic=True)
    thermalize(atoms, temperature, np.random.default_rng(0))
    return atoms


def segment(**changes) -> Segment:
    """Return a segment of ten steps."""
    values = {"steps": 10, "timestep": 2.0, "temperature": 600.0, "friction": 0.02, "seed": 3}
    return Segment(warm(), **values | changes)


def test_dynamics_without_friction_conserve_the_energy():
    atoms = warm()
    atoms.calc = EMT()
    before = atoms.get_total_energy()
    moved = advance(EMT(), atoms, steps=100, timestep=1.0, temperature=600.0, friction=0.0, seed=0)
    assert np.abs(moved.positions - atoms.positions).max() > 0.05
    moved.calc = EMT()
    assert moved.get_total_energy() == pytest.approx(before, abs=1e-3)
    assert moved.get_kinetic_energy() != pytest.approx(atoms.get_kinetic_energy(), abs=1e-2)


def test_friction_brings_atoms_to_the_temperature():
    # an ideal gas from rest: after 400 fs, 40 relaxation times, 1536 components have the temperature within 4%
    atoms = Atoms("Ar512", np.random.default_rng(0).normal(size=(512, 3)))
    moved = advance(Ideal(), atoms, steps=100, timestep=4.0, temperature=500.0, friction=0.1, seed=1)
    assert moved.get_kinetic_energy() / (1.5 * len(atoms) * units.kB) == pytest.approx(500.0, rel=0.11)


def test_dynamics_that_explode_are_an_error():
    atoms = warm()
    atoms.set_momenta(np.full((4, 3), np.nan))
    with pytest.raises(FloatingPointError, match=r"no longer finite after dynamics at 300 K: relax the start"):
        advance(EMT(), atoms, steps=1, timestep=1.0, temperature=300.0, friction=0.01, seed=0)


def test_the_pool_runs_a_segment_as_it_is_and_labels_its_end(tmp_path):
    asked = segment()
    with TeacherPool(EMT_TEACHER, tmp_path) as pool:
        [result] = pool.label([asked])
    expected = advance(EMT(), asked.atoms, **asked.conditions())
    np.testing.assert_array_equal(result.atoms.positions, expected.positions)
    np.testing.assert_array_equal(result.atoms.get_momenta(), expected.get_momenta())
    expected.calc = EMT()
    np.testing.assert_allclose(result.atoms.get_forces(), expected.get_forces(), atol=1e-12)
    assert result.atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-12)
    np.testing.assert_array_equal(asked.atoms.positions, bulk("Al", cubic=True).positions)  # the input stays


def test_each_condition_of_a_segment_matters(tmp_path):
    changes = [{}, {"steps": 11}, {"timestep": 1.0}, {"temperature": 900.0}, {"friction": 0.1}, {"seed": 4}]
    with TeacherPool(EMT_TEACHER, tmp_path) as pool:
        usual, *others = pool.label([segment(**changed) for changed in changes])
    for other in others:
        assert np.abs(usual.atoms.positions - other.atoms.positions).max() > 1e-6


def test_the_time_limit_holds_for_each_calculation(tmp_path):
    (tmp_path / "teacher.py").write_text(
        "import time\nfrom ase.calculators.emt import EMT\n"
        "class Slow(EMT):\n"
        "    def calculate(self, *arguments):\n        time.sleep(0.2)\n        super().calculate(*arguments)\n"
        "def calculator():\n    return Slow()\n",
        encoding="utf-8",
    )
    settings = TeacherSettings(calculator=str(tmp_path / "teacher.py"), check=False, timeout=0.7, retries=0)
    with TeacherPool(settings, tmp_path / "scratch") as pool:
        [result] = pool.label([segment(steps=4)])  # 1 s and more
    assert isinstance(result, Labelled), result
