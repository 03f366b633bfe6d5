"""The tool that plants faults: where it plants them, and that a fault takes effect."""

import gc
import os
from pathlib import Path

import pytest
from mutants import _replace_code
from planted_faults import mutants_of

from lrc_ase.simulation import energy_drift, observables

SOURCE = '''\
from lrc_ase.compiled.compilation import compiled, inlined

LIMIT = 3.0


@decorated
def half(values, scale: float = 2.0) -> float:
    """Return 1 / 2."""
    if len(values) < 1:
        raise ValueError(f"got {len(values) + 1}")
    return sum(values, start=0.5) / scale


@inlined
def doubled(x):
    return x * 2


def factory(width):
    def kernel(x):
        return doubled(x) - 3

    return compiled(kernel, width + 1)
'''


def test_faults_lie_in_bodies_of_functions_and_spare_messages_defaults_and_kernels():
    planted = mutants_of(Path("lrc_ase/example.py"), SOURCE)
    assert [(fault.function, fault.before, fault.after) for fault in planted] == [
        ("half", "len(values) < 1", "(len(values) <= 1)"),
        ("half", "1", "2"),
        ("half", "sum(values, start=0.5) / scale", "(sum(values, start=0.5) * scale)"),
        ("half", "sum(values, start=0.5)", "sum(values)"),
        ("half", "0.5", "0.6"),
        ("factory", "width + 1", "(width - 1)"),
        ("factory", "1", "2"),
    ]
    assert planted[0].function_line == 6  # the decorator
    assert "    return sum(values) / scale\n" in planted[3].planted_in(SOURCE)
    assert [
        (fault.function, fault.after) for fault in mutants_of(Path("lrc_ase/example.py"), SOURCE, kernels=True)
    ] == [
        ("doubled", "(x / 2)"),
        ("doubled", "3"),
        ("kernel", "(doubled(x) + 3)"),
        ("kernel", "4"),
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the tool forks")
def test_a_planted_fault_takes_effect_in_functions_imported_before(tmp_path, monkeypatch):
    source = Path(observables.__file__).read_text()
    (fault,) = [
        fault
        for fault in mutants_of(Path("lrc_ase/simulation/observables.py"), source)
        if fault.before == "slope * float(times[-1] - times[0])"
    ]
    changed = tmp_path / fault.path
    changed.parent.mkdir(parents=True)
    changed.write_text(fault.planted_in(source))
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    assert energy_drift(times, times, 1).drift == pytest.approx(4.0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(tmp_path)
            gc.freeze()  # as before the forks
            _replace_code(fault)
            status = 0 if abs(energy_drift(times, times, 1).drift - 0.25) < 1e-9 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
