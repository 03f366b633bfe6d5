"""One program in one process: makes problems ready and times jobs, as `report.py` asks line by line.

Reads JSON objects from standard input and answers each with one. A process of
its own per program and number of threads, because thread pools are made once.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from exact import exact_answers
from peers import errors_of, jobs_of, make_peer
from problem import Problem


class Worker:
    """The problem at hand, and answers to requests about it."""

    def __init__(self, name: str, threads: int, cache: Path) -> None:
        self.name, self.threads, self.cache = name, threads, cache
        self.peer: Any = None
        self.exact: dict[str, Any] = {}

    def prepare(self, jobs: list[str], **problem: Any) -> dict[str, Any]:
        """Make the program ready, with the exact answers if `jobs` names any."""
        self.peer = None
        gc.collect()
        own = Problem(threads=self.threads, **problem)
        jobs = [job for job in jobs if job in jobs_of(self.name)]
        self.exact = exact_answers(own, self.cache, tuple(jobs)) if jobs else {}
        start = time.perf_counter()
        self.peer = make_peer(self.name, own)
        return {"seconds": time.perf_counter() - start, "jobs": jobs_of(self.name)}

    def warm_up(self, job: str) -> dict[str, Any]:
        """Run a job once; its errors, where the exact answers are at hand."""
        start = time.perf_counter()
        if f"{job}_0" not in self.exact:
            getattr(self.peer, job)()
            return {"errors": {}, "seconds": time.perf_counter() - start}
        return {"errors": errors_of(self.peer, job, self.exact), "seconds": time.perf_counter() - start}

    def measure(self, job: str, seconds: float) -> dict[str, Any]:
        """Time of each call, for about so long and at least once."""
        function = getattr(self.peer, job)
        times: list[float] = []
        gc.collect()
        gc.disable()
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        gc.enable()
        return {"best": min(times), "median": sorted(times)[len(times) // 2], "calls": len(times)}

    def memory(self, job: str, **problem: Any) -> dict[str, Any]:
        """Bytes that a job needs at its peak beyond imports, compiled code and inputs."""
        self.prepare([], **(problem | {"n_atoms": 100}))
        getattr(self.peer, job)()
        self.peer = None
        own = Problem(threads=self.threads, **problem)
        _ = own.positions, own.weights, own.cotangent, own.force_targets
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is counted anew
        before = _status("VmRSS")
        peer = make_peer(self.name, own)
        getattr(peer, job)()
        getattr(peer, job)()
        return {"bytes": _status("VmHWM") - before}


def _status(field: str) -> int:
    """A size from the kernel's record of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"/proc/self/status has no {field}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=1, help="file descriptor for the answers")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    worker = Worker(arguments.name, arguments.threads, arguments.cache)
    with os.fdopen(arguments.answers, "w") as answers:
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(worker, request.pop("do"))(**request)
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
