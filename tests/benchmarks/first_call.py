"""Seconds of the very first forward and backward pass of the layer in a process (with what Numba compiles), and second.

NUMBA_CACHE_DIR=$(mktemp -d) python tests/benchmarks/first_call.py
"""

from __future__ import annotations

import json
import time

from peers import make_peer
from problem import Problem


def main() -> None:
    times = []
    for n_atoms in (1000, 1000, 1000):
        peer = make_peer("lrc-ase", Problem(n_atoms))
        start = time.perf_counter()
        peer.training()
        times.append(time.perf_counter() - start)
    print(json.dumps({"first": times[0], "second": times[1]}))


if __name__ == "__main__":
    main()
