"""The comparison of active learning with random frames, on a few frames."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from benchmarks import active_against_random as comparison


@pytest.mark.slow
def test_both_kinds_of_frames_are_trained_on_and_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "LENGTH", 0.2)
    monkeypatch.setattr("sys.argv", ["-", "--labels", "16", "20", "--epochs", "2", "-o", str(tmp_path / "out")])
    comparison.main()
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"\d+ test frames, \d+ of them above 1200 K", lines[0])
    rows = [line.split() for line in lines[2:]]
    assert [row[:3] for row in rows] == [["0", n, kind] for n in ("16", "20") for kind in ("active", "random")]
    assert all(0 < float(value) < 1e5 for row in rows for value in row[3:])


def test_dynamics_are_those_of_the_teacher_at_all_temperatures(monkeypatch):
    monkeypatch.setattr(comparison, "LENGTH", 0.1)
    start = bulk("Al", cubic=True)
    frames = comparison.dynamics(start, 0, 3)
    assert {atoms.info["temperature"] for atoms in frames} >= {300.0, 2000.0}
    for atoms in frames:
        again = atoms.copy()
        again.calc = EMT()
        np.testing.assert_allclose(atoms.get_forces(), again.get_forces(), atol=1e-12)
        assert atoms.get_volume() != start.get_volume()
