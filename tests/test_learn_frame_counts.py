"""Numbers of frames and calls that settings leave open follow from the size of the structures."""

from __future__ import annotations

import pytest
from ase.build import bulk, molecule
from learn_runs import content

from lrc_ase.learning.frame_counts import with_counts
from lrc_ase.learning.label_store import LabelStore
from lrc_ase.learning.loop import Loop
from lrc_ase.learning.progress import Observer
from lrc_ase.learning.settings import load_settings, parse_settings
from lrc_ase.learning.state import LearnFolder, stored_frames

ETHANOL = molecule("CH3CH2OH")
SALT = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 2, 2)


def counts(starts, tmp_path, *, n_known=0, **changes):
    """Return the numbers of first frames, of frames of an iteration, and of calls."""
    open_counts = {"first__count": None, "frames_per_iteration": None, "budget": {}}
    settings = with_counts(parse_settings(content(tmp_path, **{**open_counts, **changes})), starts, n_known)
    return settings.first.count, settings.frames_per_iteration, settings.budget.teacher_calls


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([SALT], (16, 16, 200)),  # 64 atoms
        ([SALT * (2, 1, 1)], (16, 16, 200)),
        ([SALT, ETHANOL], (28, 28, 350)),  # 36.5 atoms on average
        ([ETHANOL], (64, 64, 800)),  # 9 atoms: 114 frames would hold 1024
    ],
)
def test_small_structures_have_more_frames(starts, expected, tmp_path):
    assert counts(starts, tmp_path) == expected


def test_numbers_of_the_user_are_kept(tmp_path):
    settings = {"first__count": 5, "frames_per_iteration": 7, "budget": {"teacher_calls": 30}}
    assert counts([ETHANOL], tmp_path, **settings) == (5, 7, 30)


@pytest.mark.parametrize(
    ("starts", "n_walkers", "expected"),
    [([SALT], 4, 20), ([ETHANOL], 4, 64), ([ETHANOL], 1, 256), ([ETHANOL] * 8, 4, 32)],
)
def test_walkers_leave_four_snapshots_for_each_frame(starts, n_walkers, expected, tmp_path):
    changes = {"exploration__snapshots": None, "exploration__walkers": n_walkers, "frames_per_iteration": None}
    settings = with_counts(parse_settings(content(tmp_path, **changes)), starts, 0)
    assert settings.exploration.snapshots == expected
    settings = parse_settings(content(tmp_path, exploration__snapshots=3))
    assert with_counts(settings, starts, 0).exploration.snapshots == 3


def test_known_frames_replace_the_first_ones_where_there_are_enough(tmp_path):
    assert counts([SALT], tmp_path, n_known=15)[0] == 16
    assert counts([SALT], tmp_path, n_known=16)[0] == 0


def test_a_run_asks_for_so_many_frames_and_keeps_the_settings_as_they_were_given(tmp_path):
    asked = parse_settings(content(tmp_path, first={"rattle": 0.05}, frames_per_iteration=None, budget={}))
    folder = LearnFolder(tmp_path / "run")
    folder.path.mkdir()
    with LabelStore(folder.labels) as store:
        loop = Loop(asked, folder, store, Observer(), [])
        loop._begin()
    assert len(stored_frames(folder.requested(0))) == 64
    assert loop.settings.budget.teacher_calls == 800
    assert load_settings(folder.settings) == asked
