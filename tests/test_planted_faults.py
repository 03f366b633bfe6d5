"""The tool that plants faults: where it plants them, and that a fault takes effect."""

import gc
import os
import subprocess
import sys
import time
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


TOY = """\
from functools import lru_cache


@lru_cache
def area(width, height):
    return width * height


class Cap:
    def __init__(self, limit):
        self.limit = limit

    def capped(self, value):
        return value if value < self.limit else self.limit


def untested(value):
    return value + 1


def length(words):
    return words * 8
"""
TOY_TESTS = """\
import os
import pytest
from lrc_ase.toy import Cap, area, length, untested


@pytest.fixture(scope="module")
def sides():
    assert area(3, 4) == 12
    return 3, 4


def test_area(sides):
    assert area(*sides) == 12


def test_broken():
    assert untested(1) == 0


def test_that_always_crashes():
    assert untested(1)
    os.abort()


def test_that_crashes_with_a_fault():
    if length(1) != 8:
        os.abort()


@pytest.mark.parametrize("value", [1, 9])
def test_cap(value):
    assert Cap(5).capped(value) == min(value, 5)
"""
PROGRAM = """
import sys, pathlib
sys.path.insert(0, {tests!r})
import mutants
mutants.ROOT = pathlib.Path({root!r})
mutants._load_kernels = lambda: None
sys.argv = ["mutants.py", "toy", "--seconds", "2", "--verbose", "--tests", "tests"]
mutants.main()
"""


def start_the_tool(folder: Path, tests: str) -> subprocess.Popen:
    """Start the tool on a package of three functions, with temporary files in a folder of its own."""
    root, temporary = folder / "root", folder / "temporary"
    temporary.mkdir()
    for name, text in {
        "pyproject.toml": "[tool.pytest.ini_options]\nmarkers = ['slow: long']\n",
        "lrc_ase/__init__.py": "",
        "lrc_ase/toy.py": TOY,
        "tests/test_toy.py": tests,
    }.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(text)
    program = PROGRAM.format(tests=str(Path(__file__).parent), root=str(root))
    environment = os.environ | {"PYTHONPATH": str(root), "TMPDIR": str(temporary)}
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, env=environment, stdout=subprocess.PIPE, text=True
    )


def assert_nothing_is_left(folder: Path) -> None:
    """Faults are planted in a copy, and the copy is removed."""
    assert (folder / "root/lrc_ase/toy.py").read_text() == TOY
    assert not list((folder / "temporary").glob("*/copy"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the tool forks")
def test_the_tool_tells_noticed_faults_from_survivors(tmp_path):
    """One function is tested, one at two values, one by a crash, and one by tests that fail without a fault."""
    tool = start_the_tool(tmp_path, TOY_TESTS)
    lines = tool.communicate()[0].splitlines()
    assert tool.returncode == 0, lines
    assert "tests/test_toy.py::test_area: lrc_ase/toy.py:6: width * height -> (width / height)" in lines
    assert "survived: lrc_ase/toy.py:14: value < self.limit -> (value <= self.limit)" in lines
    noticed = [line.partition(":")[2] for line in lines if "test_cap" in line]
    assert any("value if not value < self.limit else self.limit" in line for line in noticed)
    # the faults of `untested` are first noticed by broken tests, which then decide nothing
    assert "fails without any fault: tests/test_toy.py::test_broken" in lines
    assert "fails without any fault: tests/test_toy.py::test_that_always_crashes" in lines
    assert "survived: lrc_ase/toy.py:18: value + 1 -> (value - 1)" in lines
    assert "tests/test_toy.py::test_that_crashes_with_a_fault: lrc_ase/toy.py:22: 8 -> 9" in lines
    assert "toy: 3 of 7 faults survived (7 possible)" in lines
    assert_nothing_is_left(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the tool forks")
def test_the_tool_removes_its_copy_when_it_is_terminated(tmp_path):
    waiting = "import time\nfrom lrc_ase.toy import Cap, area, length, untested\n\n"
    waiting += "def test_that_waits():\n    open('waiting', 'w').close()\n    time.sleep(60)\n"
    tool = start_the_tool(tmp_path, waiting)
    while not list((tmp_path / "temporary").glob("*/copy/waiting")):
        assert tool.poll() is None
        time.sleep(0.02)
    tool.terminate()
    tool.communicate(timeout=600)  # it has the lowest priority
    assert_nothing_is_left(tmp_path)
