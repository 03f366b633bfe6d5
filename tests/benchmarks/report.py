"""Run the whole comparison and write the tables of docs/notebook/performance; `performance_page.py` makes the page.

python tests/benchmarks/report.py [--quick] [--only times scaling stages crossover memory first_call]

Every program runs in processes of its own, one per number of threads, kept for the whole run. For each cell of the
table all programs are made ready, then timed in turns (program 1, 2, 3, ..., then 1 again, three rounds), so that a
machine whose speed drifts treats them alike; only one works at a time. The time of a job is the minimum over all calls.
Rows of one cell have the same number in the column `cell`: ratios are formed between those alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROUNDS = 3
SECONDS_PER_ROUND = 0.12
SLOW_CALL = 3.0
"""Seconds; a job whose call takes longer is timed once after warming up, not in rounds."""

FAST = ("lrc-ase", "finufft", "finufft packed", "ducc0", "ducc0 packed")
SLOW = ("torch-pme", "nvalchemi")
ALL = (*FAST, "nvalchemi fused", *SLOW)
JOBS = ("field", "forces", "gradient", "training")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENMM_CPU_THREADS")
PACKAGES = ("lrc-ase", "torch", "numba", "torch-pme", "nvalchemi-toolkit-ops", "finufft", "ducc0", "OpenMM", "pykeops")


@dataclass(frozen=True)
class Cell:
    """Programs to be timed against one another, and on what."""

    n_atoms: int
    n_channels: int = 1
    precision: str = "float64"
    accuracy: float = 1e-4
    threads: int = 1
    peers: tuple[str, ...] = ALL
    jobs: tuple[str, ...] = JOBS
    checked: bool = True
    """Compare with the exact answers."""
    screening: float = 0.3

    def problem(self) -> dict[str, Any]:
        names = ("n_atoms", "n_channels", "precision", "accuracy", "screening")
        return {name: getattr(self, name) for name in names}


def standard_cells() -> Iterator[Cell]:
    """The table: every job in float64 with one channel and thread, forces in all other configurations.

    Beyond 10,000 atoms the slow programs have cells of their own, and only where a target of theirs lies.
    """
    for threads in (1, 2):
        for n_channels in (1, 4):
            for precision in ("float64", "float32"):
                plain = (threads, n_channels, precision) == (1, 1, "float64")
                same = {"n_channels": n_channels, "precision": precision, "threads": threads}
                jobs = JOBS if plain else ("forces",)
                for n_atoms in (1000, 10_000):
                    yield Cell(n_atoms, jobs=jobs, **same)
                yield Cell(100_000, peers=(*FAST, "nvalchemi fused"), jobs=jobs, **same)
        for n_atoms in (1000, 10_000, 100_000):
            coulomb = {"precision": "float32", "threads": threads, "screening": 0.0}
            yield Cell(n_atoms, peers=("lrc-ase", "openmm"), jobs=("forces",), **coulomb)
        yield Cell(100_000, threads=threads, peers=("lrc-ase", *SLOW), jobs=JOBS[:3] if threads == 1 else ("forces",))
    yield Cell(100_000, peers=("lrc-ase", *SLOW), jobs=("training",))
    for n_atoms in (1000, 10_000, 100_000):
        peers = (*FAST, "nvalchemi fused") if n_atoms > 50_000 else ALL
        yield Cell(n_atoms, accuracy=1e-6, peers=peers, jobs=("forces",))


def scaling_cells() -> Iterator[Cell]:
    """The layer alone from 10,000 to a million atoms, and who can follow at a million."""
    for threads in (1, 2):
        for n_atoms in (10_000, 30_000, 100_000, 300_000, 1_000_000):
            yield Cell(n_atoms, threads=threads, peers=("lrc-ase",), jobs=("field", "forces"), checked=False)
        peers = ("lrc-ase", "finufft", "ducc0", "ducc0 packed", "nvalchemi fused")
        yield Cell(1_000_000, threads=threads, peers=peers, jobs=("forces",), checked=False)


def crossover_cells() -> Iterator[Cell]:
    """The field by the mesh and by all pairs."""
    for power in range(5, 15):
        names = ["lrc-ase", "direct KeOps"] + ["direct torch", "direct lrc-ase"] * (power <= 12)
        yield Cell(2**power, peers=tuple(names), jobs=("field",), checked=False)


def quick_cells() -> Iterator[Cell]:
    """A minute, to see that everything works."""
    yield Cell(1000)
    yield Cell(1000, precision="float32", threads=2, screening=0.0, peers=("lrc-ase", "openmm"), jobs=("forces",))
    yield Cell(10_000, peers=FAST)


class Worker:
    """A process of `worker.py`. Its answers come by a pipe of their own, as libraries print on standard output."""

    def __init__(self, name: str, threads: int, cache: Path) -> None:
        read_end, write_end = os.pipe()
        command = [sys.executable, HERE / "worker.py", name, "--threads", threads, "--cache", cache]
        self.process = subprocess.Popen(
            [str(part) for part in (*command, "--answers", write_end)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)),
            pass_fds=[write_end],
        )
        os.close(write_end)
        self.answers = os.fdopen(read_end)
        self.name = name

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do} | request) + "\n")
        self.process.stdin.flush()
        line = self.answers.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} died of {do} {request}; call worker.py by hand to see why")
        return json.loads(line)

    def stop(self) -> None:
        self.process.communicate()
        self.answers.close()


class Workers:
    """One worker per program and number of threads, started when first asked."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.running: dict[tuple[str, int], Worker] = {}

    def ask(self, name: str, threads: int, do: str, **request: Any) -> dict[str, Any]:
        if (name, threads) not in self.running:
            self.running[name, threads] = Worker(name, threads, self.cache)
        return self.running[name, threads].ask(do, **request)

    def stop(self) -> None:
        for worker in self.running.values():
            worker.stop()
        self.running.clear()


def measure_cell(cell: Cell, workers: Workers) -> list[dict[str, Any]]:
    """Rows of the table for one cell."""
    rows, pairs = [], []
    for name in cell.peers:
        able = workers.ask(name, cell.threads, "prepare", jobs=list(cell.jobs * cell.checked), **cell.problem())["jobs"]
        for job in (job for job in cell.jobs if job in able):
            warm = workers.ask(name, cell.threads, "warm_up", job=job)
            rows.append({"program": name, "job": job, "threads": cell.threads, **cell.problem()})
            rows[-1] |= {f"error of {key}": value for key, value in warm["errors"].items()}
            pairs.append((name, job, rows[-1], warm["seconds"] > SLOW_CALL))
    for job in cell.jobs:
        own = [pair for pair in pairs if pair[1] == job]
        for turn in range(ROUNDS):
            for name, _, row, slow in own:
                if slow and turn > 0:
                    continue
                found = workers.ask(name, cell.threads, "measure", job=job, seconds=SECONDS_PER_ROUND)
                row["seconds"] = min(row.get("seconds", found["best"]), found["best"])
                row["calls"] = row.get("calls", 0) + found["calls"]
    return rows


def measure_cells(cells: Iterable[Cell], workers: Workers) -> list[dict[str, Any]]:
    rows = []
    for number, cell in enumerate(cells):
        start = time.perf_counter()
        rows += [{"cell": number} | row for row in measure_cell(cell, workers)]
        print(f"{time.perf_counter() - start:6.1f} s  {cell}", flush=True)
    return rows


def measure_memory(cache: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Peak memory of a job, each in a process of its own."""
    cases = [(name, 100_000, job) for name in ("lrc-ase", "finufft", "ducc0", *SLOW) for job in JOBS[1:]]
    cases += [("nvalchemi fused", 100_000, "forces")]
    cases += [(name, 1_000_000, job) for name in ("lrc-ase", "ducc0", "finufft") for job in ("field", "forces")]
    cases += [("lrc-ase", 1_000_000, "gradient"), ("lrc-ase", 1_000_000, "training")]
    rows = []
    for name, n_atoms, job in [("lrc-ase", 10_000, "forces")] if quick else cases:
        worker = Worker(name, 2, cache)
        found = worker.ask("memory", job=job, n_atoms=n_atoms)
        worker.stop()
        rows.append({"program": name, "n_atoms": n_atoms, "job": job, "bytes": found["bytes"]})
        print(rows[-1], flush=True)
    return rows


def measure_first_call() -> list[dict[str, Any]]:
    """First training step in a process that compiles, and in one that finds the cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1") | {"NUMBA_CACHE_DIR": folder}
        rows = []
        for name in ("compiling", "from the cache"):
            found = subprocess.run(
                [sys.executable, str(HERE / "first_call.py")], env=environment, capture_output=True, check=True
            )
            rows.append({"process": name, **json.loads(found.stdout.splitlines()[-1])})
    return rows


def measure_stages(*, quick: bool) -> list[dict[str, Any]]:
    """Parts of a call, by stages.py."""
    rows = []
    for threads in (1, 2):
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
        sizes = ["1000"] if quick else ["1000", "10000", "100000", "1000000"]
        command = [sys.executable, str(HERE / "stages.py"), "--json", "--atoms", *sizes]
        found = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
        rows += [{"threads": threads, **row} for row in json.loads(found.stdout.splitlines()[-1])]
    return rows


def machine() -> dict[str, Any]:
    """What the numbers belong to."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    versions = {package: metadata.version(package) for package in PACKAGES if _installed(package)}
    return {
        "cpu": f"{names[0]}, {os.cpu_count()} cores, {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "parts": {},
    }


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([{key: f"{v:.4g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows])


def append_history(rows: list[dict[str, Any]], described: dict[str, Any], path: Path) -> None:
    """Add one line to the history: the layer's own times of this run, of one thread, float64 and one channel."""
    line = {"date": time.strftime("%Y-%m-%d"), "cpu": described["cpu"], **described["versions"]}
    line = {key: line.get(key, "") for key in ("date", "cpu", "lrc-ase", "torch", "numba")}
    for job, n_atoms in (("forces", 1000), ("forces", 10_000), ("forces", 100_000), ("training", 10_000)):
        wanted = {"program": "lrc-ase", "job": job, "n_atoms": n_atoms, "threads": 1, "n_channels": 1}
        wanted |= {"precision": "float64", "accuracy": 1e-4}
        times = [row["seconds"] for row in rows if all(row.get(key) == value for key, value in wanted.items())]
        line[f"{job} of {n_atoms} atoms, s"] = f"{min(times):.4g}" if times else ""
    is_first = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(line), lineterminator="\n")
        if is_first:
            writer.writeheader()
        writer.writerow(line)


def main() -> None:
    parts = ("times", "scaling", "stages", "crossover", "memory", "first_call")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--quick", action="store_true", help="one minute, to see that everything works")
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "docs" / "notebook" / "performance")
    parser.add_argument("--cache", type=Path, default=HERE.parents[1] / "build" / "benchmarks")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    described, record = machine(), arguments.output / "machine.json"
    if record.exists():
        described["parts"] = json.loads(record.read_text()).get("parts", {})
    workers = Workers(arguments.cache)
    cells = {"times": standard_cells, "scaling": scaling_cells, "crossover": crossover_cells}
    for part in arguments.only:
        start, load = time.perf_counter(), os.getloadavg()[0]
        if part in cells:
            if arguments.quick and part != "times":
                continue
            rows = measure_cells(quick_cells() if arguments.quick else cells[part](), workers)
            workers.stop()
        elif part == "memory":
            rows = measure_memory(arguments.cache, quick=arguments.quick)
        elif part == "stages":
            rows = measure_stages(quick=arguments.quick)
        else:
            rows = measure_first_call()
        write_table(rows, arguments.output / f"{part}.csv")
        if part == "times" and not arguments.quick:
            append_history(rows, described, arguments.output / "history.csv")
        minutes = round((time.perf_counter() - start) / 60, 1)
        described["parts"][part] = {
            "date": time.strftime("%Y-%m-%d"),
            "load before": round(load, 2),
            "minutes": minutes,
        }
        record.write_text(json.dumps(described, indent=1) + "\n")
        print(f"{part}: {minutes} minutes", flush=True)


if __name__ == "__main__":
    main()
