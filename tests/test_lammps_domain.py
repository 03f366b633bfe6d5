"""Runs in LAMMPS that leave the training set: a warning, a number for thermo output, and an end in good order."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
from lammps_runs import INPUT, needs_lammps, under_mpi, write_start
from structures import potential

from lrc_ase import ExtrapolationWarning, save_potential
from lrc_ase.structures.domain import DOMAIN_KEY

pytestmark = pytest.mark.slow


def with_domain(**domain):
    return replace(potential(), description={DOMAIN_KEY: domain})


def dynamics(known, n_steps, **options):
    """Steps done, what the coupling says, and how many processes thermo output says are far outside."""
    import lammps_cases as cases
    from mpi4py import MPI

    from lrc_ase.engines.lammps import attach

    lmp = cases.start(MPI.COMM_SELF, cases.crystal((1, 1, 1)))
    coupling = attach(lmp, known, species=cases.TYPES, **options)
    lmp.commands_list([*cases.NVE, "thermo_style custom step pe f_lrc[1]", "run 0", f"run {n_steps}"])
    actual = lmp.extract_global("ntimestep"), coupling.stopped, lmp.last_thermo()["f_lrc[1]"]
    lmp.close()
    return actual


@needs_lammps
def test_atoms_closer_than_in_training_are_told_once_by_their_tags():
    with pytest.warns(
        ExtrapolationWarning, match=r"atoms [1-8] \(\w+\) and [1-8] \(\w+\) are .* Angstrom apart"
    ) as told:
        actual = dynamics(with_domain(shortest_distances={"Na-Cl": 2.8}), 3)
    assert len(told) == 1
    assert actual == (3, None, 0)  # beyond, but not far


@needs_lammps
@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ({"shortest_distances": {"Na-Cl": 3.9}}, r"atoms [1-8] \(\w+\) and [1-8] \(\w+\) are"),
        ({"neighbors": [1, 2]}, r"atom [1-8] \(\w+\) has \d+ neighbors within the cutoff"),
        ({"largest_force": 1e-3}, r"the force on atom [1-8] \(\w+\) is"),
    ],
)
def test_the_run_ends_far_outside_training_unless_told_to_go_on(domain, message):
    with pytest.warns(ExtrapolationWarning, match=message):
        step, stopped, n_far = dynamics(with_domain(**domain), 5)
    assert (step, n_far) == (0, 1)
    with pytest.raises(ValueError, match=f"the run ended at step 0, far outside the training set: {message}"):
        raise ValueError(stopped)
    with pytest.warns(ExtrapolationWarning, match=message):
        assert dynamics(with_domain(**domain), 5, extrapolate=True) == (5, None, 1)


@needs_lammps
def test_a_charge_that_training_never_saw_is_told():
    with pytest.warns(ExtrapolationWarning, match="a total charge of 1 e never occurred in training, which saw 0"):
        assert dynamics(with_domain(total_charges=[0.0]), 2, charge=1.0) == (2, None, 0)


@needs_lammps
def test_what_is_known_of_training_says_nothing_inside():
    inside = {"shortest_distances": {"Na-Cl": 1.0}, "neighbors": [1, 100], "largest_force": 1e3, "total_charges": [0.0]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dynamics(with_domain(**inside), 5) == (5, None, 0)


@needs_lammps
def test_processes_end_together_and_the_rest_of_the_input_is_done(tmp_path):
    write_start(tmp_path)
    save_potential(tmp_path / "known.safetensors", with_domain(total_charges=[1.0], largest_force=1e-3))
    (tmp_path / "in.run").write_text(INPUT)
    command = ["-m", "lrc_ase.cli", "lammps", "known.safetensors", "in.run"]
    output = under_mpi(2, *command, folder=tmp_path, expect=1)
    assert "Error: the run ended at step 0, far outside the training set: the force on atom" in output
    assert output.count("Error: ") == 1
    assert output.count("a total charge of 0 e never occurred") == 1
    assert "--extrapolate goes on" in output
    assert (tmp_path / "half.restart").exists()
    assert (tmp_path / "end.dump").exists()
    output = under_mpi(2, *command, "--extrapolate", folder=tmp_path)
    assert "Error" not in output
    assert "far outside the training set: the force on atom" in output  # the warning
