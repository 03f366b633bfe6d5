"""Running mean, limits and alarms of a stage against their formulas, without any training."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lrc_ase.training.configuration import StageConfiguration
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.processes import Processes
from lrc_ase.training.progress import Progress
from lrc_ase.training.watch import Watch


class LoopWithoutModel(StageLoop):
    """A loop that has no model and no frames, only a stage and its progress."""

    def __init__(self, progress: Progress, **settings) -> None:
        self.stage = StageConfiguration(**{"name": "s", "epochs": 10, **settings})
        self.progress = progress


@pytest.mark.parametrize(("step", "decay"), [(0, 1 / 10), (5, 6 / 15), (80, 81 / 90), (1000, 0.95)])
def test_a_young_running_mean_forgets_its_start_faster(step, decay):
    """The smaller of `ema_decay` and (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage."""
    loop = LoopWithoutModel(Progress(step=step), ema_decay=0.95)
    loop.averaged, loop.model = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        loop.averaged.weight.fill_(10.0)
        loop.model.weight.fill_(20.0)
        loop.model.running_mean.fill_(3.0)
    loop._average()
    assert loop.averaged.weight.item() == pytest.approx(decay * 10 + (1 - decay) * 20)
    assert loop.averaged.running_mean.item() == 3.0  # buffers are copied


@pytest.mark.parametrize(
    ("seconds", "since_lowest", "limits", "reason"),
    [
        (119.0, 3, {"time_limit": 2.0, "patience": 4}, None),
        (121.0, 3, {"time_limit": 2.0, "patience": 4}, "time_limit"),
        (119.0, 4, {"time_limit": 2.0, "patience": 4}, "patience"),
        (121.0, 4, {"time_limit": 2.0, "patience": 4}, "time_limit"),
        (1e6, 9, {}, None),
    ],
)
def test_a_stage_stops_by_minutes_or_validations(seconds, since_lowest, limits, reason):
    progress = Progress(epoch=7, seconds=seconds, validations_since_lowest=since_lowest)
    loop = LoopWithoutModel(progress, **limits)
    loop.stop_when_due()
    assert progress.stopped_by == reason
    text = {
        None: None,
        "time_limit": "stopped by time_limit (2 minutes) after 7 of 10 epochs",
        "patience": "stopped by patience (4 validations) after 7 of 10 epochs",
    }
    assert loop.stop_text == text[reason]
    progress.epoch = 10  # a limit reached in the last epoch ends nothing early
    assert loop.stop_text is None


@pytest.mark.parametrize(
    ("losses", "as_good", "lowest_epoch", "since_lowest"),
    [
        ([1.0, 0.5, 0.504], [True, True, True], 2, 1),
        ([1.0, 0.5, 0.506], [True, True, False], 2, 1),
        ([0.5, 0.6, 0.7, 0.4], [True, False, False, True], 4, 0),
        ([0.5, 0.5], [True, True], 1, 1),
    ],
)
def test_the_best_epoch_is_the_latest_within_a_percent_of_the_lowest(losses, as_good, lowest_epoch, since_lowest):
    loop = LoopWithoutModel(Progress())
    assert [loop._compare(loss, epoch) for epoch, loss in enumerate(losses, start=1)] == as_good
    assert (loop.progress.lowest_score, loop.progress.lowest_epoch) == (min(losses), lowest_epoch)
    assert loop.progress.validations_since_lowest == since_lowest


@pytest.mark.parametrize(
    ("at_start", "at_end", "sentence"),
    [
        ((10.0, 2.0), (11.9, 9.0), "force error on the watched frames: 10.0 before, 11.9 meV/Angstrom after"),
        (
            (10.0, 2.0),
            (12.1, 2.0),
            "warning: force error on the watched frames: 10.0 before, 12.1 meV/Angstrom after; add",
        ),
        ((math.nan, 2.0), (math.nan, 2.3), "energy error on the watched frames: 2.00 before, 2.30 meV/atom after"),
        (
            (math.nan, 2.0),
            (math.nan, 2.5),
            "warning: energy error on the watched frames: 2.00 before, 2.50 meV/atom after",
        ),
    ],
)
def test_watched_errors_alarm_when_they_grow_by_a_fifth(at_start, at_end, sentence, monkeypatch):
    errors = iter([dict(zip(("forces_rmse", "energy_rmse"), each, strict=True)) for each in (at_start, at_end)])
    monkeypatch.setattr("lrc_ase.training.watch.mean_errors", lambda *_, **__: next(errors))
    watch = Watch([SimpleNamespace(to=lambda device: None)], 1.0, torch.device("cpu"), Processes())
    stage = StageConfiguration(name="s", batch_size=4)
    parts = [
        text
        for value, text in zip(at_start, ("forces 10.0 meV/Angstrom", "energy 2.00 meV/atom"), strict=True)
        if value == value
    ]
    assert watch.begin(None, stage) == f"watched frames before training: {', '.join(reversed(parts))} (RMSE)"
    assert watch.end(None, stage).startswith(sentence)


def test_watched_frames_with_dipoles_alone_are_watched_in_silence(monkeypatch):
    errors = {"forces_rmse": math.nan, "energy_rmse": math.nan, "dipole_rmse": 0.1}
    monkeypatch.setattr("lrc_ase.training.watch.mean_errors", lambda *_, **__: errors)
    watch = Watch([SimpleNamespace(to=lambda device: None)], 1.0, torch.device("cpu"), Processes())
    stage = StageConfiguration(name="s", batch_size=4)
    assert watch.begin(None, stage) is None
    assert watch.end(None, stage) is None
