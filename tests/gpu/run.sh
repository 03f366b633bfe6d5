#!/usr/bin/env bash
# Correctness on a GPU against the CPU, then times; at most 8 minutes. Needs torch with CUDA, Triton and the package's dependencies.
# bash tests/gpu/run.sh FOLDER [--rehearsal]      results: FOLDER/correctness.txt, FOLDER/timings.json, FOLDER/timings.md
# --rehearsal: the same on the CPU with small sizes, so that nothing is left to chance when a GPU is at hand.
set -uo pipefail
cd "$(dirname "$0")/../.."
folder=$1; rehearsal=${2:-}
mkdir -p "$folder"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2
[ "$rehearsal" = --rehearsal ] && export LRC_ASE_REHEARSAL=1
nvidia-smi -L 2>/dev/null
python3 -m pip list 2>/dev/null | grep -i -E "^(torch|triton|numba|numpy|ase|matscipy|pykeops|torch-pme|torch-sim)" > "$folder/versions.txt"
failed=0
timeout "${CORRECTNESS_SECONDS:-240}" python3 -m pytest -q -p no:benchmark -W default::DeprecationWarning -n "${PROCESSES:-$(nproc)}" --tb=short --durations=10 tests/gpu tests/test_triton_kernels.py > "$folder/correctness.txt" 2>&1 || failed=1
grep -E "^(FAILED|ERROR)|^E  |passed|failed" "$folder/correctness.txt" | cut -c1-220 | tail -60
timeout 270 python3 tests/gpu/timings.py "$folder" --seconds "${TIMING_SECONDS:-200}" $rehearsal 2>&1 | cut -c1-1500 || failed=1
exit $failed
