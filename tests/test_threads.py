"""Work on several threads, on those of OpenMP and on a pool of our own."""

import os
import subprocess
import sys
import threading
import time

import pytest

from lrc_ase.compiled import threads
from lrc_ase.compiled.threads import even_ranges, run_over_ranges


@pytest.fixture(params=["those of OpenMP", "a pool"])
def whose(request, monkeypatch):
    if request.param == "a pool":
        monkeypatch.setattr(threads, "_team", lambda process: None)
    elif threads._team(os.getpid()) is None:
        pytest.skip("torch's OpenMP cannot be asked")


@pytest.mark.usefixtures("whose")
def test_every_range_is_done_once_and_results_are_in_order():
    actual = run_over_ranges(lambda *arguments: arguments, ("a",), even_ranges(1000, 37), n_threads=4)
    assert actual == [("a", *limits) for limits in even_ranges(1000, 37)]


@pytest.mark.usefixtures("whose")
def test_ranges_are_done_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)  # broken, and so an error, unless both come
    assert len(run_over_ranges(lambda *arguments: meeting.wait(), (), even_ranges(2, 2), n_threads=2)) == 2


@pytest.mark.usefixtures("whose")
@pytest.mark.parametrize("error", [ValueError("no such luck"), KeyboardInterrupt("Ctrl-C")])
def test_an_error_is_raised_when_all_threads_have_ended(error):
    done = []

    def kernel(first, last):
        if first == 0:
            raise error
        time.sleep(0.05)
        done.append(first)

    with pytest.raises(type(error), match=str(error)):
        run_over_ranges(kernel, (), even_ranges(100, 100), n_threads=2)
    actual = len(done)
    time.sleep(0.1)
    assert len(done) == actual <= 2  # nobody goes on after it


def test_an_interrupt_before_the_first_line_of_openmps_work_is_raised(monkeypatch):
    team = threads._team(os.getpid())
    if team is None:
        pytest.skip("torch's OpenMP cannot be asked")
    running = []

    def interrupt(frame, event, argument):
        """Raise as a Python function is entered, where a Ctrl-C may arrive too."""
        if running and event == "call":
            running.clear()
            raise KeyboardInterrupt("Ctrl-C")

    def traced_team(*arguments):
        running.append(True)
        team(*arguments)

    monkeypatch.setattr(threads, "_team", lambda process: traced_team)
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: None)
    tracer = sys.gettrace()
    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            run_over_ranges(max, (0,), even_ranges(100, 10), n_threads=2)
    finally:
        sys.settrace(tracer)


FORKS = """
import os, torch
from ase.build import bulk
import lrc_ase
torch.set_num_threads(2)
atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * (2, 2, 2)
atoms.rattle(0.05, seed=0)
atoms.calc = lrc_ase.load("nacl")
energy = atoms.get_potential_energy()
torch.rand(1000, 1000) @ torch.rand(1000, 1000)  # wakes OpenMP, which a child inherits broken


def agrees(structure):
    structure.positions += 1e-9  # computed anew
    return abs(structure.get_potential_energy() - energy) < 1e-6 and torch.get_num_threads() == 1


if os.fork() == 0:
    again = atoms.copy()
    again.calc = lrc_ase.load("nacl")
    good = agrees(atoms) and agrees(again)
    if os.fork() == 0:
        os._exit(0 if agrees(again) else 1)
    os._exit(0 if good and os.wait()[1] == 0 else 1)
assert os.wait()[1] == 0
assert torch.get_num_threads() == 2  # of the parent
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked")
def test_forked_processes_evaluate_on_one_thread_after_two_have_run():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], check=True, timeout=120)
