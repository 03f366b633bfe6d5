"""The comparison for pytest-benchmark, grouped by job and size; quick to ask one thing, where report.py asks all.

pytest -c /dev/null --rootdir . tests/benchmarks -k "forces-10000-atoms and float64" --benchmark-columns=min,median

Each benchmark first checks that the program's answer is right. --large adds a million atoms for those who can.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")

import torch
from exact import exact_answers
from peers import MAKERS, arrays, errors_of, jobs_of, make_peer
from problem import JOBS, SCREENING, Problem

CACHE = Path(__file__).resolve().parents[2] / "build" / "benchmarks"
WORST_ERROR = {
    "u": 4e-4,
    "forces": 5e-3,
    "gradient": 5e-3,
    "by weights": 5e-3,
    "by parameters": 5e-4,
}
FOLLOW_TO_A_MILLION = ("lrc-ase", "finufft", "ducc0", "ducc0 packed", "nvalchemi fused")
PROGRAMS = [name for name in MAKERS if not name.startswith("direct")]
CASES = [
    pytest.param(name, job, n_atoms, id=f"{name}-{job}-{n_atoms}-atoms")
    for n_atoms in (1000, 10_000, 100_000, 1_000_000)
    for name in PROGRAMS
    for job in jobs_of(name)
    if n_atoms < 1_000_000 or name in FOLLOW_TO_A_MILLION
]


@pytest.mark.parametrize("threads", [1, 2], ids="{}-threads".format)
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("n_channels", [1, 4], ids="{}-channels".format)
@pytest.mark.parametrize(("name", "job", "n_atoms"), CASES)
def test_speed(benchmark, request, name, job, n_atoms, n_channels, precision, threads):
    if n_atoms > 100_000 and not request.config.getoption("--large"):
        pytest.skip("with --large")
    if name == "openmm" and (precision == "float64" or n_channels > 1):
        pytest.skip("float32 and one channel only")
    pytest.importorskip(
        {"torch-pme": "torchpme", "nvalchemi": "nvalchemiops"}.get(name.split()[0], name.split()[0].replace("-", "_"))
    )
    screening = 0.0 if name == "openmm" else SCREENING
    problem = Problem(n_atoms, n_channels, precision, threads=threads, screening=screening)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    peer = make_peer(name, problem)
    if n_atoms <= 100_000:
        found = errors_of(peer, job, exact_answers(problem, CACHE, (job,)))
        assert found
        assert all(error < WORST_ERROR[key] for key, error in found.items()), found
    benchmark.group = f"{job}, {n_atoms} atoms, {n_channels} channels, {precision}, {threads} threads"
    assert arrays(peer, benchmark(getattr(peer, job)))
    torch.set_num_threads(before)


def test_exact_answers_are_those_of_the_ewald_sum(tmp_path):
    problem = Problem(300)
    layer = make_peer("lrc-ase", problem)
    layer.layer.method, layer.layer.mesh_shape = "ewald", (35, 35, 35)
    for job in JOBS:
        found = errors_of(layer, job, exact_answers(problem, tmp_path, (job,)))
        assert max(found.values()) < 1e-9, found


@pytest.mark.parametrize("n_atoms", [64, 1000])
def test_direct_sums_agree(n_atoms):
    problem = Problem(n_atoms)
    dense, keops = (make_peer(name, problem).field()[0] for name in ("direct torch", "direct KeOps"))
    torch.testing.assert_close(torch.from_numpy(keops), torch.from_numpy(dense))
