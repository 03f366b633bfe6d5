"""Time limit and patience end a stage before its last epoch; files and schedule then."""

from __future__ import annotations

import pytest
from test_training_loop import Quiet, assert_bit_equal, graphs, make_loop

from lrc_ase.training.loop import Progress
from lrc_ase.training.schedule import learning_rate

__all__ = ["graphs"]  # a fixture


@pytest.mark.parametrize(
    ("changes", "n_epochs", "reason"),
    [
        ({"time_limit": 1e-9}, 1, "stopped by time_limit (1e-09 minutes) after 1 of 40 epochs"),
        ({"patience": 2}, 36, "stopped by patience (2 validations) after 36 of 40 epochs"),
        ({}, 40, None),
    ],
)
def test_whatever_ends_a_stage_its_last_epoch_is_validated(graphs, monkeypatch, changes, n_epochs, reason):
    monkeypatch.setattr("lrc_ase.training.loop.mean_errors", lambda *_, **__: {"loss": 1.0})
    loop, observer = make_loop(graphs, epochs=40, validate_every=12, optimizer="adamw", **changes), Quiet()
    loop.run(observer)
    assert len(observer.records) == n_epochs
    assert observer.records[-1].validation is not None
    assert loop.stop_text == reason
    assert loop.finished
    assert loop.progress.best_epoch == n_epochs
    assert_bit_equal(dict(loop.best_model().state_dict()), dict(loop.averaged.state_dict()))


def test_patience_counts_validations(graphs, monkeypatch):
    losses = iter([3.0, 2.0, 4.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    monkeypatch.setattr("lrc_ase.training.loop.mean_errors", lambda *_, **__: {"loss": next(losses)})
    loop, observer = make_loop(graphs, epochs=50, validate_every=2, patience=3, optimizer="adamw"), Quiet()
    loop.run(observer)
    assert [record.epoch for record in observer.records if record.validation] == [2, 4, 6, 8, 10, 12, 14]
    assert (loop.progress.lowest_epoch, loop.progress.best_epoch) == (8, 8)


def test_the_reason_of_an_early_end_survives_a_checkpoint(graphs):
    loop = make_loop(graphs, epochs=1000, time_limit=1e-9)
    loop.run(Quiet())
    resumed = make_loop(graphs, epochs=1000, time_limit=1e-9)
    resumed.restore(loop.tensors(), Progress.from_json(loop.progress.to_json()))
    assert resumed.finished
    assert resumed.stop_text == loop.stop_text


class SlowSteps(Quiet):
    """Observer that makes a loop believe that each step took `seconds`, of which `compiling` went to compiling."""

    def __init__(self, loop, monkeypatch, seconds, compiling=0.0):
        super().__init__()
        self.now = 0.0
        self.rates = []
        monkeypatch.setattr("lrc_ase.training.loop.time.monotonic", lambda: self.now)
        step = loop.optimizer.step

        def slow_step(*arguments):
            self.rates.append(loop.optimizer.param_groups[0]["lr"])
            self.now += seconds
            loop.clock.seconds += compiling
            step(*arguments)

        loop.optimizer.step = slow_step


@pytest.mark.parametrize("schedule", ["cosine", "exponential"])
def test_the_schedule_ends_when_the_time_does(graphs, monkeypatch, schedule):
    # 3 steps of 10 s an epoch: 4 epochs fill the limit of 2 minutes, of 100
    loop = make_loop(graphs, epochs=100, time_limit=1.99, schedule=schedule, warmup=0.0, optimizer="adamw")
    observer = SlowSteps(loop, monkeypatch, 10.0)
    loop.run(observer)
    assert [record.epoch for record in observer.records] == [1, 2, 3, 4]
    fractions = [10 * step / (60 * 1.99) for step in range(12)]
    expected = [learning_rate(loop.stage.model_copy(update={"time_limit": None}), 299 * f, 300) for f in fractions]
    assert observer.rates == pytest.approx(expected)
    assert observer.rates[0] == pytest.approx(0.01)
    assert observer.rates[-1] < 0.05 * observer.rates[0]
    assert observer.records[-1].learning_rate == observer.rates[-1]


def test_a_time_limit_that_is_far_away_changes_nothing(graphs, monkeypatch):
    rates = []
    for limit in (None, 60.0):
        loop = make_loop(graphs, epochs=4, time_limit=limit, optimizer="adamw")
        observer = SlowSteps(loop, monkeypatch, 10.0)
        loop.run(observer)
        rates.append(observer.rates)
    assert rates[0] == rates[1]
    assert len(rates[0]) == 12


def test_the_first_step_on_a_gpu_does_not_count(graphs, monkeypatch):
    loop = make_loop(graphs, epochs=1)
    assert loop.has_compiled
    loop.has_compiled = False
    times = iter([100.0, 130.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times, 130.0))
    loop.run(Quiet())
    assert loop.progress.seconds == 0
    assert loop.clock.seconds == 30
    assert loop.has_compiled


def test_a_slow_first_step_does_not_end_the_warm_up(graphs):
    stage = make_loop(graphs, epochs=1000, time_limit=1.0, warmup=0.2).stage
    rates = [learning_rate(stage, step, 3000, seconds=30.0) for step in range(60)]
    expected = [min(stage.learning_rate * (step + 1) / 50, rates[-1]) for step in range(60)]
    assert rates == pytest.approx(expected)
    assert rates[-1] > 30 * rates[0]


def test_compiling_kernels_does_not_count_against_the_time_limit(graphs, monkeypatch):
    loop = make_loop(graphs, epochs=5, time_limit=0.99, schedule="exponential", warmup=0.0, optimizer="adamw")
    observer = SlowSteps(loop, monkeypatch, 30.0, compiling=20.0)
    loop.run(observer)
    assert [record.seconds for record in observer.records] == [30.0, 60.0]
    assert loop.stop_text == "stopped by time_limit (0.99 minutes) after 2 of 5 epochs"
