"""LAMMPS on one process: the virial in the steps in which LAMMPS asks for it, and a box that fills up."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from lammps_runs import needs_lammps
from structures import salt_potential

from lrc_ase import LRCCalculator
from lrc_ase.engines.whole_box import WholeBox

pytestmark = pytest.mark.slow

_EVALUATE = WholeBox.__call__


def run(*commands, monkeypatch):
    """Return the steps in which a stress was computed, and the pressures that `fix ave/time` collected, by step."""
    import lammps_cases as cases
    from mpi4py import MPI

    from lrc_ase.engines.lammps import attach

    wanted, evaluate = [], _EVALUATE

    def counted(self, *arguments, stress):
        wanted.append((int(lmp.extract_global("ntimestep")), stress))
        return evaluate(self, *arguments, stress=stress)

    monkeypatch.setattr(WholeBox, "__call__", counted)
    lmp = cases.start(MPI.COMM_SELF, cases.crystal((1, 1, 1)))
    attach(lmp, salt_potential(), species=cases.TYPES)
    pressures = {}
    lmp.commands_list([*cases.NVE, "thermo_style custom step press", *commands, "run 0"])
    for _ in range(3):
        lmp.command("run 4 pre no post no")
        pressures[int(lmp.extract_global("ntimestep"))] = lmp.last_thermo()["Press"]
    averaged = lmp.extract_fix("mean", 0, 0) if any("fix mean" in each for each in commands) else None
    lmp.close()
    return {step for step, stress in wanted if stress}, pressures, averaged


@needs_lammps
def test_the_virial_is_computed_for_output_and_computes_alone(monkeypatch):
    steps, pressures, _ = run("thermo 4", monkeypatch=monkeypatch)
    assert steps == {0, 4, 8, 12}
    every, all_pressures, _ = run("thermo 1", monkeypatch=monkeypatch)
    assert every == set(range(13))
    assert pressures == pytest.approx(all_pressures, rel=1e-12)
    assert len(set(np.round(list(pressures.values()), 3))) == 3  # they change from step to step
    asked, _, averaged = run("thermo 12", "fix mean all ave/time 2 3 6 c_thermo_press", monkeypatch=monkeypatch)
    assert {2, 4, 6} <= asked
    assert not {1, 3, 5} & asked
    assert averaged != 0


@needs_lammps
def test_atoms_come_into_an_empty_box():
    from lammps import lammps
    from mpi4py import MPI

    from lrc_ase.engines.lammps import attach

    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_list(["units metal", "atom_style charge", "region box block 0 9 0 9 0 9", "create_box 2 box"])
    lmp.commands_list(["mass 1 22.98977", "mass 2 35.45"])
    attach(lmp, salt_potential(), MPI.COMM_SELF, species=("Na", "Cl"))
    lmp.commands_list(["fix run all nve", "run 0"])
    assert lmp.get_thermo("pe") == 0
    lmp.commands_list(["create_atoms 1 single 1 1 1", "create_atoms 2 single 3.5 1 1", "run 0"])
    atoms = Atoms("NaCl", [(1, 1, 1), (3.5, 1, 1)], cell=[9, 9, 9], pbc=True)
    atoms.calc = LRCCalculator(salt_potential())
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    lmp.close()
