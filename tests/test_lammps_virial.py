"""The virial in LAMMPS: computed in the steps in which LAMMPS asks for it, and right in those."""

from __future__ import annotations

import numpy as np
import pytest
from lammps_runs import needs_lammps
from structures import salt_potential

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
