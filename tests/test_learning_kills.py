"""Labelling that is killed at random moments: nothing is lost, and nothing is computed again that was on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from lrc_ase.learning import LabelStore

TEACHER = """
import os, time
from ase.calculators.emt import EMT

class Slow(EMT):
    def calculate(self, atoms=None, properties=None, system_changes=None):
        with open({calls!r}, "a") as file:
            file.write(f"{{atoms.info['number']}} {{os.getpid()}}\\n")
        time.sleep(0.08)
        super().calculate(atoms, properties, system_changes)

def calculator():
    return Slow()
"""
PROGRAM = """
import warnings, sys
from pathlib import Path
import ase.io
from lrc_ase.learning import LabelStore, TeacherPool, TeacherSettings

folder = Path(sys.argv[1])
settings = TeacherSettings(calculator=str(folder / "teacher.py"), processes=2, check=False)
warnings.simplefilter("ignore")
with LabelStore(folder / "labels.extxyz") as store, TeacherPool(settings, folder / "scratch") as pool:
    todo = [atoms for atoms in ase.io.read(folder / "todo.traj", ":") if atoms not in store]
    for result in pool.label(todo):
        store.add(result.atoms)
print("done")
"""
N_FRAMES = 60


def start(folder: Path) -> subprocess.Popen:
    """Start the labelling."""
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE, text=True)


def on_disk(folder: Path) -> set[int]:
    """Return the numbers of the frames that are stored completely."""
    if not (folder / "labels.extxyz").exists():
        return set()
    content = (folder / "labels.extxyz").read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    lines = whole.decode().splitlines()
    complete = lines[: len(lines) // 6 * 6]  # a number, a comment and four atoms each
    return {int(line.split("number=")[1].split()[0]) for line in complete[1::6]}


def calls(folder: Path) -> list[tuple[int, int]]:
    """Return number of the frame and process of each calculation that began."""
    if not (folder / "calls").exists():
        return []
    return [tuple(map(int, line.split())) for line in (folder / "calls").read_text().splitlines()]


def lives(process: int) -> bool:
    """Return True if a process exists and is no zombie."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def prepared(folder: Path) -> list[Atoms]:
    """Write teacher and frames; return the frames."""
    frames = []
    for number in range(N_FRAMES):
        atoms = bulk("Al", cubic=True)
        atoms.rattle(0.1, seed=number)
        atoms.info["number"] = number
        frames.append(atoms)
    ase.io.write(folder / "todo.traj", frames)
    (folder / "teacher.py").write_text(TEACHER.format(calls=str(folder / "calls")), encoding="utf-8")
    return frames


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_twenty_random_kills(tmp_path):
    frames = prepared(tmp_path)
    random = np.random.default_rng(20)
    n_kills = 0
    while n_kills < 20:
        stored, before = on_disk(tmp_path), len(calls(tmp_path))
        process = start(tmp_path)
        # kills fall everywhere: into the start, the first labels and later ones, until few frames are left
        n_labels = random.integers(0, max((N_FRAMES - len(stored)) // (21 - n_kills), 1) + 2)
        while len(on_disk(tmp_path)) < len(stored) + n_labels and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        n_kills += 1
        # the processes of the teacher end by themselves
        deadline = time.monotonic() + 10
        while any(lives(pid) for _, pid in calls(tmp_path)[before:]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not {number for number, _ in calls(tmp_path)[before:]} & stored
        assert stored <= on_disk(tmp_path)
    process = start(tmp_path)
    assert process.communicate()[0] == "done\n"
    with LabelStore(tmp_path / "labels.extxyz") as store:
        assert len(store) == N_FRAMES
        for atoms in frames:
            label = store.get(atoms)
            expected = atoms.copy()
            expected.calc = EMT()
            assert label.get_potential_energy() == expected.get_potential_energy()
            assert np.array_equal(label.get_forces(), expected.get_forces())
    # a kill costs at most the calculations that were under way
    assert len(calls(tmp_path)) <= N_FRAMES + 20 * 2
