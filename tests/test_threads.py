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
    found = run_over_ranges(lambda *given: given, ("a",), even_ranges(1000, 37), n_threads=4)
    assert found == [("a", *own) for own in even_ranges(1000, 37)]


@pytest.mark.usefixtures("whose")
def test_ranges_are_done_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)  # broken, and so an error, unless both come
    assert len(run_over_ranges(lambda *own: meeting.wait(), (), even_ranges(2, 2), n_threads=2)) == 2


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
    found = len(done)
    time.sleep(0.1)
    assert len(done) == found <= 2  # nobody goes on after it


FORKS = """
import os, torch
from lrc_ase.compiled.threads import even_ranges, run_over_ranges
torch.set_num_threads(2)
torch.rand(1000, 1000) @ torch.rand(1000, 1000)  # wakes OpenMP, which a child inherits broken
run_over_ranges(max, (0,), even_ranges(100, 10), n_threads=2)
if os.fork() == 0:
    assert run_over_ranges(max, (0,), even_ranges(100, 2), n_threads=2) == [50, 100]
    os._exit(0)
assert os.wait()[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked")
def test_a_forked_process_goes_on_without_openmp():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], check=True, timeout=60)
