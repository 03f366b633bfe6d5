"""Plant small faults in a copy of the library and count how many of them no test notices.

    python tests/mutants.py --record                             # first: which test runs which line, and for how long
    python tests/mutants.py --record tests/test_new.py           # add tests; after changes of the library start anew
    python tests/mutants.py training models --number 50 --seed 1
    python tests/mutants.py layer --kernels --number 10          # faults in compiled kernels, a minute each

Each fault changes one comparison, operator, number, keyword argument or condition in a line that tests run. The tests
that run the line decide, the fastest first, `--seconds` of them together. A fault that none of them notices is a
survivor and is printed. Lines that run at import alone (defaults, constants) are left out, and so are compiled kernels
unless `--kernels` asks for them: coverage does not see which test runs a kernel, so all tests that use its file decide.

One process loads torch, Numba and the other packages once. Each fault is tested in a fork of it, which imports the
library from the copy. Time limits count time of the processor, so that a busy machine does not end a test early. At the
end the tests that noticed faults run without a fault: a test that fails even then decides nothing.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import importlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from py_compile import PycInvalidationMode
from xml.etree import ElementTree

import pytest
from coverage import CoverageData
from planted_faults import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[1]
CONTEXTS, DURATIONS = ROOT / ".coverage.mutants", ROOT / ".durations.mutants"
OVERTIME = "time limit"
PRELOADED = (
    "torch", "numba", "llvmlite.binding", "scipy.special", "scipy.optimize", "scipy.stats", "ase.io", "ase.db",
    "ase.units", "matplotlib.pyplot", "pydantic", "typer.testing", "rich.table", "matscipy.neighbours",
    "safetensors.torch", "jinja2", "yaml", "pytorch_optimizer",
)  # fmt: skip


def record(paths: Sequence[str]) -> int:
    """Run the fast tests, or those in `paths`, with a coverage context for each; keep lines and times."""
    DURATIONS.mkdir(exist_ok=True)
    times = DURATIONS / f"{len(list(DURATIONS.iterdir())):04}.xml"
    pytest_options = ["-q", "-p", "no:xdist", "-m", "not slow", f"--junitxml={times}", *paths]
    coverage_options = ["--cov", "--cov-append", "--cov-context=test", "--cov-report=", "--cov-fail-under=0"]
    environment = os.environ | {"COVERAGE_FILE": str(CONTEXTS), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", *pytest_options, *coverage_options]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


class Recording:
    """Tests that run each line of the library, and the time that each test takes."""

    def __init__(self) -> None:
        if not CONTEXTS.exists():
            raise SystemExit("first run python tests/mutants.py --record")
        self._coverage = CoverageData(str(CONTEXTS))
        self._coverage.read()
        cases = [case for file in sorted(DURATIONS.iterdir()) for case in ElementTree.parse(file).iter("testcase")]
        self._seconds = {(case.get("classname"), case.get("name")): float(case.get("time", 0)) for case in cases}

    def tests_by_line(self, path: Path) -> dict[int, set[str]]:
        """Return for each line of a file the tests that run it; lines that run at import alone have none."""
        contexts = self._coverage.contexts_by_lineno(str(path))
        return {line: {name.split("|")[0] for name in names if name} for line, names in contexts.items()}

    def seconds(self, test: str) -> float:
        """Return the time that a test took, coverage included."""
        head, bracket, parameters = test.partition("[")
        path, *classes, name = head.split("::")
        module = ".".join((path.removesuffix(".py").replace("/", "."), *classes))
        return self._seconds.get((module, name + bracket + parameters), 1.0)

    def fastest(self, tests: Iterable[str], limit: float) -> list[str]:
        """Return tests for `limit` seconds: the fastest case of every test function first."""
        cases = defaultdict(list)
        for test in sorted(tests, key=lambda test: (self.seconds(test), test)):
            cases[test.partition("[")[0]].append(test)
        ranked = sorted((rank, self.seconds(test), test) for same in cases.values() for rank, test in enumerate(same))
        chosen, total = [], 0.0
        for _, seconds, test in ranked:
            total += seconds
            if chosen and (total > limit or len(chosen) == 200):
                break
            chosen.append(test)
        return chosen


def faults_of_a_room(room: str, recording: Recording, *, kernels: bool) -> list[tuple[Mutant, set[str]]]:
    """Return the faults of a room or file that lie in lines run by tests, each with these tests."""
    place = ROOT / "lrc_ase" / room
    covered = []
    for path in [place.with_suffix(".py")] if place.with_suffix(".py").exists() else sorted(place.rglob("*.py")):
        by_line = recording.tests_by_line(path)
        using_the_file = set().union(*by_line.values())
        for mutant in mutants_of(path, path.read_text(encoding="utf-8"), kernels=kernels):
            tests = using_the_file if kernels else by_line.get(mutant.first[0], set())
            if tests:
                covered.append((mutant, tests))
    return covered


class Copy:
    """A copy of the repository in which one fault at a time is planted and tested."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns(".git", ".venv*", "build", ".coverage*", ".durations*", "demo-output")
        shutil.copytree(ROOT, folder, ignore=ignored, symlinks=True)
        # compiled files are valid by content: two faults of one length may be planted within a second
        compileall.compile_dir(
            folder / "lrc_ase", quiet=2, force=True, invalidation_mode=PycInvalidationMode.CHECKED_HASH
        )
        os.environ |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path[:] = [str(folder), *(entry for entry in sys.path if Path(entry).resolve() != ROOT / "tests")]
        os.chdir(folder)
        for name in PRELOADED:
            importlib.import_module(name)
        if "lrc_ase" in sys.modules:
            raise SystemExit("a preloaded package imports lrc_ase: forks would test it without the fault")
        self.failures(["--collect-only", "tests"], keep_compiled=True)  # compiles the tests once

    def noticed_by(self, mutant: Mutant, tests: list[str], limit: float) -> str | None:
        """Return the test that fails with the fault, or None if the fault survives."""
        target = self.folder / mutant.path.relative_to(ROOT)
        source, times = target.read_text(encoding="utf-8"), target.stat()
        target.write_text(mutant.planted_in(source), encoding="utf-8")
        try:
            return next(iter(self.failures(["-x", *tests], limit)), None)
        finally:
            target.write_text(source, encoding="utf-8")
            os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))  # Numba's cache of kernels goes by the time

    def failures(self, options: list[str], limit: float = 600, *, keep_compiled: bool = False) -> list[str]:
        """Run pytest in a fork and return the tests that fail, or what ended the run."""
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            self._run_in_the_fork(options, limit, write_end, keep_compiled=keep_compiled)
        os.close(write_end)
        try:
            status = _wait(child, 20 * limit)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # processes that tests have started
        with open(read_end, encoding="utf-8") as pipe:
            failed = pipe.read().splitlines()
        if failed or status == 0:
            return failed
        return [OVERTIME if status in (None, -signal.SIGXCPU, -signal.SIGKILL) else f"exit status {status}"]

    def _run_in_the_fork(self, options: list[str], limit: float, write_end: int, *, keep_compiled: bool) -> None:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
        sys.dont_write_bytecode = not keep_compiled
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)

        class Failures:
            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                if report.failed:
                    os.write(write_end, f"{report.nodeid}\n".encode())

        status = 1
        try:
            status = int(pytest.main(["-q", "-p", "no:xdist", "-p", "no:randomly", *options], plugins=[Failures()]))
        finally:
            os._exit(status)


def _wait(child: int, limit: float) -> int | None:
    """Return the exit code of a process (negative: its signal), or None if it runs longer than `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def measure(room: str, recording: Recording, copy: Copy, arguments: argparse.Namespace) -> None:
    """Plant a sample of the faults of a room, print the survivors and their number."""
    possible = faults_of_a_room(room, recording, kernels=arguments.kernels)
    sample = random.Random(arguments.seed).sample(possible, min(arguments.number, len(possible)))
    verdicts: dict[Mutant, str | None] = {}
    refuted: set[str] = set()
    pending = dict(sample)
    while pending:
        for mutant, covering in pending.items():
            tests = recording.fastest(covering - refuted, arguments.seconds)
            limit = (300 if arguments.kernels else 60) + 3 * sum(map(recording.seconds, tests))
            verdicts[mutant] = copy.noticed_by(mutant, tests, limit) if tests else None
            if arguments.verbose or verdicts[mutant] is None:
                outcome = f"noticed by {verdicts[mutant]}" if verdicts[mutant] else f"survived {len(tests)} tests"
                print(f"{outcome}: {mutant}", flush=True)
        deciding = {test for test in verdicts.values() if test and "::" in test}
        failing = set(copy.failures(sorted(deciding))) & deciding
        refuted |= failing
        pending = {mutant: tests for mutant, tests in sample if verdicts[mutant] in failing}
        if failing:
            print(f"fail without any fault: {', '.join(sorted(failing))}", flush=True)
    n_survivors = sum(verdict is None for verdict in verdicts.values())
    kind = "faults in kernels" if arguments.kernels else "faults"
    print(f"{room}: {n_survivors} of {len(sample)} {kind} survived ({len(possible)} possible)", flush=True)


def main() -> None:
    """Print the survivors of each room and their number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", help="folders or files below lrc_ase, such as training or models")
    parser.add_argument(
        "--record", nargs="*", metavar="TESTS", help="run the fast tests, or these, and keep their lines"
    )
    parser.add_argument("--number", type=int, default=50, help="faults per room")
    parser.add_argument("--seconds", type=float, default=40, help="how long the tests of one fault take together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kernels", action="store_true", help="plant the faults in functions that Numba compiles")
    parser.add_argument("--verbose", action="store_true", help="print noticed faults, too")
    arguments = parser.parse_args()
    if arguments.record is not None:
        raise SystemExit(record(arguments.record))
    recording = Recording()
    with tempfile.TemporaryDirectory() as temporary:
        copy = Copy(Path(temporary) / "copy")
        for room in arguments.rooms:
            measure(room, recording, copy, arguments)


if __name__ == "__main__":
    main()
