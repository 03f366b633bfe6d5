"""Time one step of dynamics through ASE with every program: python run.py --environments FOLDER.

    python tests/benchmarks/cpu_peers/environments.py FOLDER              # installs the programs, each on its own
    python tests/benchmarks/cpu_peers/run.py --environments FOLDER        # writes docs/notebook/cpu_peers/times.csv
    python tests/benchmarks/cpu_peers/page.py                             # tables and figure of the page

Every program runs in a process of its own with one thread, which is kept alive. First all programs build and warm up
all systems. Then they are timed in turns, round after round: program 1, 2, 3, ..., then 1 again. Only one works at a
time. A turn takes whole periods of a motion that is the same for all (`systems.py`), so that searches of neighbors
count in the proportion of a simulation. Programs that are too slow for this take as many steps as fit into
`--seconds`, at least one, and those that take more than 3 seconds are timed once. The time is the lowest mean of a
turn, by the clock and in processor time. A program that fails is left out, with the reason in the last column.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from programs import PROGRAMS, Program
from systems import SYSTEMS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
OUTPUT = ROOT / "docs" / "notebook" / "cpu_peers"
SLOW_STEP = 3.0
"""Seconds; a program whose step takes longer is timed in the first round alone."""
THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENMM_CPU_THREADS",
    "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS",
    "DP_INTER_OP_PARALLELISM_THREADS",
)  # fmt: skip


class Worker:
    """A process of `worker.py`. Its answers come by a pipe of their own, as libraries print on standard output."""

    def __init__(self, program: Program, environments: Path, folder: Path) -> None:
        self.program, self.environments, self.folder = program, environments, folder
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process, at the first request."""
        program, folder = self.program, self.folder
        read_end, write_end = os.pipe()
        environment = os.environ | dict.fromkeys(THREADS, "1") | {"CUDA_VISIBLE_DEVICES": ""}
        if program.adapter == "mace":  # e3nn 0.4.4 keeps constants in a pickle that new versions of torch refuse
            environment["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
        python = sys.executable
        if program.environment:
            python = self.environments / program.environment / "bin" / "python"
            environment.pop("PYTHONPATH", None)
        self.log = (folder / f"{program.name}.log".replace(" ", "-").replace("/", "-")).open("w")
        command = [python, HERE / "worker.py", program.adapter, program.model, program.precision]
        command += ["--folder", folder, "--answers", write_end]
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            text=True,
            env=environment,
            pass_fds=[write_end],
            start_new_session=True,
        )
        os.close(write_end)
        self.answers = os.fdopen(read_end)

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Return the answer, or an error if the process has ended."""
        if self.process is None:
            self.start()
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do} | request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": f"the process ended, see {Path(self.log.name).name}"}
        line = self.answers.readline()
        return json.loads(line) if line else {"error": f"the process ended, see {Path(self.log.name).name}"}

    def stop(self) -> None:
        """End the process."""
        if self.process is None:
            return
        self.process.communicate()
        self.answers.close()
        self.log.close()


def main() -> None:
    """Prepare, time and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, required=True, help="folder of environments.py")
    parser.add_argument("--programs", nargs="+", help="parts of names; default: all")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn")
    parser.add_argument("--jobs", type=int, default=1, help="programs that prepare at the same time")
    parser.add_argument("--wait-until", help="time of day, HH:MM, at which timing starts")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "cpu_peers", help="for models and logs")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    chosen = [
        program
        for program in PROGRAMS
        if not arguments.programs or any(part.lower() in program.name.lower() for part in arguments.programs)
    ]
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    workers = {program: Worker(program, arguments.environments.absolute(), folder) for program in chosen}
    rows, versions = prepare(workers, arguments.systems, arguments.jobs)
    if arguments.wait_until:
        wait(arguments.wait_until)
    load, start = os.getloadavg()[0], time.perf_counter()
    for system in arguments.systems:
        for turn in range(arguments.rounds):
            for row in (row for row in rows if row["system"] == system and not row["error"]):
                if row.get("slow") and turn:
                    continue
                measured = workers[row["key"]].ask("measure", system=system, seconds=arguments.seconds)
                row["error"] = measured.get("error", "")
                row["slow"] = measured.get("seconds", 0) > SLOW_STEP
                if not row["error"]:
                    for key in ("seconds", "cpu_seconds"):
                        row[key] = min(row.get(key, 1e9), measured[key])
                    row["steps"] = row.get("steps", 0) + measured["steps"]
            print(f"{system}: round {turn + 1}, {time.perf_counter() - start:.0f} s", flush=True)
    for worker in workers.values():
        worker.stop()
    described = machine() | {"versions": versions, "load before": round(load, 2)}
    described |= {"minutes": round((time.perf_counter() - start) / 60, 1), "rounds": arguments.rounds}
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_table(rows, arguments.output / "times.csv")
    (arguments.output / "machine.json").write_text(json.dumps(described, indent=1) + "\n")


def prepare(
    workers: dict[Program, Worker], systems: list[str], n_jobs: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Build and warm up everything, some programs at a time; return rows for the table, and versions of packages."""
    with ThreadPoolExecutor(n_jobs) as pool:
        results = list(pool.map(lambda item: prepare_program(*item, systems), workers.items()))
    rows = [row for program_rows, _ in results for row in program_rows]
    return rows, {name: version for _, versions in results for name, version in versions.items()}


def prepare_program(
    program: Program, worker: Worker, systems: list[str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Build and warm up the systems of one program."""
    rows, versions = [], {}
    for system in (system for system in systems if system in program.systems):
        prepared = worker.ask("prepare", system=system)
        error = prepared.get("error", "")
        print(f"{program.name}, {system}: {error or round(1e3 * prepared['seconds'], 2)}", flush=True)
        versions |= {f"{program.environment or 'lrc-ase'}: {k}": v for k, v in prepared.get("versions", {}).items()}
        rows.append({"key": program, "program": program.name, "system": system, "atoms": SYSTEMS[system]})
        rows[-1] |= {"precision": program.precision, "error": error}
    return rows, versions


def wait(moment: str) -> None:
    """Sleep until a time of day."""
    while time.strftime("%H:%M") < moment:
        time.sleep(1)


def machine() -> dict[str, str]:
    """Return what the numbers belong to."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    (name, *_) = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "cpu": f"{name}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Write one row per program and system."""
    columns = ["program", "system", "atoms", "precision", "seconds", "cpu_seconds", "steps", "error"]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows([{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows])


if __name__ == "__main__":
    main()
