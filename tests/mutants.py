"""Plant small faults in the library and count how many of them no test notices.

    python tests/mutants.py training models --number 50 --seed 1
    python tests/mutants.py layer --kernels --number 5          # faults in compiled kernels, a minute each

Each fault changes one comparison, operator, number, keyword argument or condition in the body of a function. A fault
that none of its tests notices is a survivor and is printed. Defaults and constants are left out.

One process of low priority imports the library and collects the fast tests once. Each fault is tested in a fork of it,
which replaces the code of one function. It runs tests, nearest to the function first, until one fails or `--seconds` of
processor time are over. Near are tests that name the function, whose file has the name of its module or imports it,
directly or through other modules. Processes that tests start import a copy of the library that holds the fault.

Coverage recorded once per test tells more: the tests that ran the line of the fault then come first of all.

    pytest -p no:xdist -m "not slow" --cov --cov-context=test --cov-report=
    python tests/mutants.py models --coverage .coverage --seconds 30

At the end the tests that noticed faults run without a fault; those that fail even then decide nothing. Compiled kernels
cannot be replaced in a running process, so that `--kernels` starts a new one for each fault. Programs for GPUs are left
out where Triton is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections import defaultdict
from functools import _lru_cache_wrapper
from importlib.util import find_spec
from pathlib import Path

import pytest
from coverage import CoverageData
from planted_faults import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[1]
_BROKEN = 70  # exit status of a fork in which this program failed, not a test


class Faults:
    """Plugin of pytest that plants faults instead of running the collected tests once."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.seconds: dict[str, float] = {}
        """Processor time of the tests that have run in a fork."""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Measure each room."""
        self.items = {item.nodeid: item for item in session.items}
        self.selection = Selection(session.items, self.arguments.coverage)
        _load_kernels()
        gc.collect()
        gc.freeze()  # forks then share the memory of all objects
        for room in self.arguments.rooms:
            self.measure(room)
        return True

    def measure(self, room: str) -> None:
        """Plant a sample of the faults of a room, print the survivors and their number."""
        place = Path("lrc_ase", room)
        files = [place.with_suffix(".py")] if place.with_suffix(".py").exists() else sorted(place.rglob("*.py"))
        if find_spec("triton") is None:
            files = [path for path in files if "triton" not in path.parts]
        kernels = self.arguments.kernels
        possible = [mutant for path in files for mutant in mutants_of(path, path.read_text("utf-8"), kernels=kernels)]
        sample = random.Random(self.arguments.seed).sample(possible, min(self.arguments.number, len(possible)))
        verdicts: dict[Mutant, str | None] = {}
        refuted: set[str] = set()
        pending = sample
        while pending:
            for mutant in pending:
                tests = [test for test in self.selection.nearest(mutant, self.seconds) if test not in refuted]
                verdicts[mutant] = self.noticed_by(mutant, tests)
                if self.arguments.verbose or verdicts[mutant] is None:
                    print(f"{verdicts[mutant] or 'survived'}: {mutant}", flush=True)
            failing = self.failing_without_fault(sorted({verdict for verdict in verdicts.values() if verdict}))
            refuted |= failing
            pending = [mutant for mutant in sample if verdicts[mutant] in failing]
            for test in sorted(failing):
                print(f"fails without any fault: {test}", flush=True)
        n_survivors = sum(verdict is None for verdict in verdicts.values())
        kind = "faults in kernels" if kernels else "faults"
        print(f"{room}: {n_survivors} of {len(sample)} {kind} survived ({len(possible)} possible)", flush=True)

    def noticed_by(self, mutant: Mutant, tests: list[str]) -> str | None:
        """Return the test that fails with the fault, or None if the fault survives."""
        source, times = mutant.path.read_text("utf-8"), mutant.path.stat()
        mutant.path.write_text(mutant.planted_in(source), "utf-8")
        try:
            if self.arguments.kernels:
                return _noticed_in_a_new_process(tests[:30])
            outcomes = self.run(tests, mutant, self.arguments.seconds)
        finally:
            mutant.path.write_text(source, "utf-8")
            os.utime(mutant.path, ns=(times.st_atime_ns, times.st_mtime_ns))  # the cache of kernels goes by the time
        return next((test for test, passed in outcomes if not passed), None)

    def failing_without_fault(self, tests: list[str]) -> set[str]:
        """Return the tests that fail, crash or do not end even without a fault."""
        failing = set()
        while tests:  # one run ends at a crash or when its time is over
            outcomes = self.run(tests, None, 10 * self.arguments.seconds)
            failing |= {test for test, passed in outcomes if not passed}
            tests = tests[len(outcomes) :]
        return failing

    def run(self, tests: list[str], mutant: Mutant | None, limit: float) -> list[tuple[str, bool]]:
        """Run tests in a fork, with a fault up to the first that fails; return their outcomes.

        A test that crashes the fork or does not end has failed: faults in the sizes of buffers that kernels write to
        damage memory.
        """
        if not tests:
            return []
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            status = _BROKEN
            try:
                os.close(read_end)
                self._run_in_the_fork(tests, mutant, limit, write_end)
                status = 0
            except BaseException:
                os.write(write_end, traceback.format_exc().encode())
            finally:
                os._exit(status)
        os.close(write_end)
        try:
            status = _wait(child, 20 * limit)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # processes that tests have started
        outcomes = []
        with open(read_end, encoding="utf-8") as pipe:
            report = pipe.read()
        if status == _BROKEN:
            raise RuntimeError(f"{mutant}\n{report}")
        for line in report.splitlines():
            test, seconds, passed = line.rsplit("\t", 2)
            self.seconds[test] = float(seconds)
            outcomes.append((test, passed == "True"))
        if status != 0:  # None: endless; negative: the signal of a crash
            outcomes += [(test, False) for test in tests[len(outcomes) :][:1]]
        return outcomes

    def _run_in_the_fork(self, tests: list[str], mutant: Mutant | None, limit: float, write_end: int) -> None:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (int(2 * limit) + 20, int(2 * limit) + 25))
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        if mutant is not None:
            _replace_code(mutant)
        watch = Watch()
        config = next(iter(self.items.values())).config
        config.pluginmanager.register(watch)
        begin = last = time.process_time()
        for test, following in zip(tests, [*tests[1:], None], strict=True):
            config.hook.pytest_runtest_protocol(item=self.items[test], nextitem=self.items.get(following or ""))
            now = time.process_time()
            os.write(write_end, f"{test}\t{now - last:.3f}\t{not watch.failed}\n".encode())
            if now - begin > limit or (watch.failed and mutant is not None):
                return
            last, watch.failed = now, False


class Watch:
    """Plugin that notes failures."""

    failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure of a test, its setup or its teardown."""
        self.failed = self.failed or report.failed


class Selection:
    """Order of the tests for a fault: those that ran its line, then by the imports between test and function."""

    def __init__(self, items: list[pytest.Item], coverage: Path | None) -> None:
        self._items = items
        self._coverage = None if coverage is None else CoverageData(str(coverage))
        if self._coverage is not None:
            self._coverage.read()
        self._words = {
            item.nodeid: _words(getattr(getattr(item, "function", None), "__code__", None)) for item in items
        }
        modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "lrc_ase"}
        library = set(modules)
        self._importers: dict[str, set[str]] = defaultdict(set)
        for module in (*modules.values(), *{item.module for item in items if hasattr(item, "module")}):
            for value in list(vars(module).values()):
                origin = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
                if origin in library and origin != module.__name__:
                    self._importers[origin].add(module.__name__)

    def nearest(self, mutant: Mutant, seconds: dict[str, float]) -> list[str]:
        """Return the tests from the nearest to the farthest, the fastest first where they are equally far."""
        steps = self._steps(".".join(mutant.path.with_suffix("").parts).removesuffix(".__init__"))
        reaching = self._reaching(mutant)
        ranked, n_cases = [], defaultdict(int)
        for item in sorted(self._items, key=lambda item: seconds.get(item.nodeid, 0.5)):
            distance = steps.get(item.module.__name__ if hasattr(item, "module") else "")
            if distance is None and item.nodeid not in reaching:
                continue
            function = item.nodeid.partition("[")[0]
            n_cases[function] += 1
            named = 2 * bool(self._words[item.nodeid] & {mutant.function, mutant.owner})
            named += 3 * (mutant.path.stem in item.path.stem)
            # further cases of a test function are as far away as tests of other modules
            rank = (distance or 0) - named + n_cases[function] // 3
            ranked.append((item.nodeid not in reaching, rank, seconds.get(item.nodeid, 0.5), item.nodeid))
        return [test for *_, test in sorted(ranked)][:400]

    def _reaching(self, mutant: Mutant) -> set[str]:
        """Return the tests that ran the line of the fault, or the last line above it that any test ran."""
        if self._coverage is None:
            return set()
        paths = [path for path in self._coverage.measured_files() if path.endswith(f"{os.sep}{mutant.path}")]
        tests_of = self._coverage.contexts_by_lineno(paths[0]) if paths else {}
        lines = [line for line in tests_of if mutant.function_line < line <= mutant.first[0] and any(tests_of[line])]
        # a context is a test and its phase; processes that tests start have none
        return {context.rpartition("|")[0] for context in tests_of[max(lines)]} if lines else set()

    def _steps(self, module: str) -> dict[str, int]:
        steps, edge = {module: 0}, {module}
        while edge:
            edge = {name for each in edge for name in self._importers[each]} - set(steps)
            steps |= dict.fromkeys(edge, max(steps.values()) + 1)
        return steps


def _words(code: types.CodeType | None) -> set[str]:
    """Return the names in the code of a test, of nested functions too."""
    if code is None:
        return set()
    nested = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return set(code.co_names).union(*map(_words, nested))


def _replace_code(mutant: Mutant) -> None:
    """Replace the code of the function that holds the fault, wherever the function is referred to."""
    module = compile(mutant.path.read_text("utf-8"), str(mutant.path), "exec", dont_inherit=True)
    codes = [module]
    for code in codes:
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    (changed,) = [each for each in codes if _is_of(each, mutant)]
    gc.unfreeze()  # else `get_objects` leaves out all functions
    # not isinstance: a weak reference to an object that is gone would raise
    functions = [each for each in gc.get_objects() if type(each) is types.FunctionType]
    replaced = 0
    for function in functions:
        if function.__code__.co_filename.endswith(str(mutant.path)) and _is_of(function.__code__, mutant):
            function.__code__ = changed
            replaced += 1
    if not replaced:
        raise RuntimeError(f"no function to replace: {mutant}")
    for cached in gc.get_objects():
        if type(cached) is _lru_cache_wrapper and str(cached.__module__).startswith("lrc_ase"):
            cached.cache_clear()


def _is_of(code: types.CodeType, mutant: Mutant) -> bool:
    return (code.co_name, code.co_firstlineno) == (mutant.function, mutant.function_line)


def _load_kernels() -> None:
    """Evaluate a potential, so that forks need not load its kernels."""
    import torch
    from ase.build import bulk

    from lrc_ase import LRCCalculator

    for dtype in (torch.float64, torch.float32):
        atoms = bulk("NaCl", "rocksalt", a=5.64)
        atoms.calc = LRCCalculator("nacl", dtype=dtype)
        atoms.get_forces()


def _noticed_in_a_new_process(tests: list[str]) -> str | None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", "-rf", *tests]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    except subprocess.TimeoutExpired:
        return "time limit"
    failures = [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("FAILED")]
    return None if ended.returncode == 0 else next(iter(failures), f"exit status {ended.returncode}")


def _wait(child: int, limit: float) -> int | None:
    """Return the exit code of a process (negative: its signal), or None if it runs longer than `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main() -> None:
    """Print the survivors of each room and their number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="+", help="folders or files below lrc_ase, such as training or models")
    parser.add_argument("--number", type=int, default=50, help="faults per room")
    parser.add_argument("--seconds", type=float, default=60, help="processor time for the tests of a survivor")
    parser.add_argument("--tests", nargs="+", default=["tests", "lrc_ase"], help="files of tests; all if not given")
    parser.add_argument("--coverage", type=Path, help="data of coverage with a context for each test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kernels", action="store_true", help="plant the faults in functions that Numba compiles")
    parser.add_argument("--verbose", action="store_true", help="print noticed faults, too")
    arguments = parser.parse_args()
    arguments.coverage = arguments.coverage and arguments.coverage.resolve()
    if os.nice(0) == 0:  # a priority that the caller chose stays
        os.nice(19)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the copy is removed
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve() / "copy"
        ignored = shutil.ignore_patterns(".git", ".venv*", "build", ".coverage*", "demo-output")
        shutil.copytree(ROOT, folder, ignore=ignored, symlinks=True)
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path[:] = [
            str(folder),
            *(entry for entry in sys.path if Path(entry).resolve() not in (ROOT, ROOT / "tests")),
        ]
        del sys.modules["planted_faults"]  # else pytest refuses to collect that of the copy
        # a crash is an outcome and not worth a traceback
        options = ["-q", "-s", "-p", "no:xdist", "-p", "no:faulthandler", "-m", "not slow", "--no-header"]
        raise SystemExit(pytest.main([*options, *arguments.tests], plugins=[Faults(arguments)]))


if __name__ == "__main__":
    main()
