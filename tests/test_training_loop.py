"""The loop of one stage: what it learns, and that it goes on from any state as if nothing had happened."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from training_frames import TINY_MODEL, metal_frames

from lrc_ase.dataset import label_frame, labelled_graph
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import ModelSettings
from lrc_ase.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from lrc_ase.training.configuration import StageConfiguration
from lrc_ase.training.loop import Progress, StageLoop, TrainingDiverged
from lrc_ase.training.references import fit_references
from lrc_ase.training.schedule import learning_rate

ELEMENTS = ("Cu", "Au")


class Quiet:
    """Observer that keeps what it is told, and stops the loop after `stop_after` steps."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.records, self.messages = [], []

    def step_done(self, loop):
        if loop.progress.step == self.stop_after:
            raise KeyboardInterrupt

    def epoch_done(self, loop, record):
        self.records.append(record)

    def log(self, text):
        self.messages.append(text)


@pytest.fixture(scope="module")
def graphs():
    frames = [label_frame(atoms) for atoms in metal_frames(7)]
    references = fit_references(frames, ELEMENTS).values
    return [labelled_graph(frame, ELEMENTS, 4.0, references) for frame in frames]


def make_loop(graphs, *, full_range=True, **changes):
    values = {"name": "stage", "epochs": 3, "batch_size": 2, "learning_rate": 0.01, "ema_decay": 0.9, **changes}
    model_values = {**TINY_MODEL, "elements": ELEMENTS}
    if not full_range:
        model_values["long_range"] = None
    model = build_model(ModelSettings.model_validate(model_values), generator=torch.Generator().manual_seed(1))
    return StageLoop(model, StageConfiguration(**values), graphs[:5], graphs[5:], force_scale=0.5, seed=4)


def state_of(loop):
    return {name: tensor.clone() for name, tensor in loop.tensors().items()}


def assert_bit_equal(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_loss_falls(graphs):
    observer = Quiet()
    make_loop(graphs, full_range=False, epochs=20).run(observer)
    assert [record.epoch for record in observer.records] == list(range(1, 21))
    assert observer.records[-1].train["loss"] < 0.5 * observer.records[0].train["loss"]
    assert observer.records[-1].validation["loss"] < 0.5 * observer.records[0].validation["loss"]


@pytest.mark.parametrize(
    ("optimizer", "stop_after"), [("adamw", 1), ("adamw", 5), ("soap", 1), ("soap", 2), ("soap", 6), ("soap", 12)]
)
def test_resumed_loop_is_bit_equal_to_an_uninterrupted_one(graphs, tmp_path, optimizer, stop_after):
    choices = {
        "optimizer": optimizer,
        "epochs": 5,
        "loss": {"stress": 0.5},
    }  # 15 steps: SOAP renews its basis in the 11th
    whole, whole_observer = make_loop(graphs, **choices), Quiet()
    whole.run(whole_observer)
    stopped, first_observer = make_loop(graphs, **choices), Quiet(stop_after)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(first_observer)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, stopped.tensors(), stopped.progress.to_json())
    tensors, values = load_checkpoint(path)
    resumed, second_observer = make_loop(graphs, **choices), Quiet()
    resumed.restore(tensors, Progress.from_json(values))
    resumed.run(second_observer)
    assert_bit_equal(state_of(resumed), state_of(whole))
    records = first_observer.records + second_observer.records
    # as text: errors of labels that no frame has are NaN, which is not equal to itself
    for name in ("train", "validation"):
        assert repr([getattr(each, name) for each in records]) == repr(
            [getattr(each, name) for each in whole_observer.records]
        )
    assert [record.learning_rate for record in records] == [r.learning_rate for r in whole_observer.records]


def test_the_same_seed_gives_the_same_weights(graphs):
    loops = [make_loop(graphs) for _ in range(2)]
    for loop in loops:
        loop.run(Quiet())
    assert_bit_equal(*(state_of(loop) for loop in loops))


def test_mean_weights_follow_their_definition(graphs):
    loop = make_loop(graphs, ema_decay=0.3, epochs=1, warmup=0)
    expected = [parameter.detach().clone() for parameter in loop.model.parameters()]
    original_step = loop.optimizer.step
    decays = iter([0.1, 2 / 11, 0.25])  # (1 + n) / (10 + n), below 0.3 for the three steps

    def step(*arguments):
        original_step(*arguments)
        decay = next(decays)
        for mean, parameter in zip(expected, loop.model.parameters(), strict=True):
            mean.mul_(decay).add_(parameter.detach(), alpha=1 - decay)

    loop.optimizer.step = step
    loop.run(Quiet())
    for mean, parameter in zip(expected, loop.averaged.parameters(), strict=True):
        assert torch.allclose(mean, parameter, atol=1e-6)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([3.0, 2.0, 4.0, 2.5], [1, 2]),
        ([3.0, 2.0, 2.0199, 2.0201], [1, 2, 3]),  # as good as the lowest, and later
        ([2.0, 2.01, 2.02, 2.03, 2.04], [1, 2, 3]),  # as good as the lowest, not as the one before
    ],
)
def test_best_model_is_the_last_one_as_good_as_the_lowest_validation_loss(graphs, monkeypatch, losses, best):
    remaining = iter(losses)
    monkeypatch.setattr("lrc_ase.training.loop.mean_errors", lambda *_, **__: {"loss": next(remaining)})
    loop, observer, weights = make_loop(graphs, epochs=len(losses)), Quiet(), []
    done = observer.epoch_done
    observer.epoch_done = lambda loop, record: (done(loop, record), weights.append(copy.deepcopy(loop.averaged)))
    loop.run(observer)
    assert [record.epoch for record in observer.records if record.improved] == best
    progress = loop.progress
    assert (progress.best_epoch, progress.best_score) == (best[-1], losses[best[-1] - 1])
    assert (progress.lowest_epoch, progress.lowest_score) == (losses.index(min(losses)) + 1, min(losses))
    assert_bit_equal(loop.best_model().state_dict(), weights[best[-1] - 1].state_dict())


def test_without_validation_frames_the_last_weights_are_kept(graphs):
    loop, observer = make_loop(graphs, epochs=2), Quiet()
    loop.validation_graphs = []
    loop.run(observer)
    assert [record.improved for record in observer.records] == [True, True]
    assert_bit_equal(dict(loop.best_model().state_dict()), dict(loop.averaged.state_dict()))


def poison(loop, step_number, times):
    """Make the gradient NaN when the loop is at `step_number`, for the first `times` times."""
    parameter = next(loop.model.parameters())
    left = [times]

    def hook(gradient):
        if loop.progress.step == step_number and left[0] > 0:
            left[0] -= 1
            return gradient * math.nan
        return gradient

    parameter.register_hook(hook)


def test_non_finite_gradient_rewinds_to_the_last_epoch_and_lowers_the_step(graphs):
    loop, observer = make_loop(graphs), Quiet()
    poison(loop, step_number=4, times=2)
    loop.run(observer)
    assert [record.epoch for record in observer.records] == [1, 2, 3]
    assert observer.messages == [
        "loss or gradient not finite in epoch 2: back to the end of epoch 1, learning rate times 0.5 from here",
        "loss or gradient not finite in epoch 2: back to the end of epoch 1, learning rate times 0.25 from here",
    ]
    assert loop.progress.rate_factor == 0.25
    assert loop.progress.step == 9
    assert all(tensor.isfinite().all() for tensor in state_of(loop).values())
    expected = 0.25 * learning_rate(loop.stage, 8, 9)
    assert observer.records[-1].learning_rate == pytest.approx(expected)


def test_a_loss_that_stays_non_finite_ends_the_training(graphs):
    loop = make_loop(graphs)
    poison(loop, step_number=1, times=100)
    with pytest.raises(
        TrainingDiverged, match="stage 'stage': loss or gradient not finite in epoch 1, after 10 rewinds"
    ):
        loop.run(Quiet())
    assert all(tensor.isfinite().all() for tensor in state_of(loop).values())


def test_time_limit_ends_the_stage_at_an_epoch(graphs):
    loop, observer = make_loop(graphs, epochs=1000, time_limit=1e-9), Quiet()
    loop.run(observer)
    assert len(observer.records) == 1
    assert loop.finished


def test_validation_skips_epochs_but_not_the_last(graphs):
    observer = Quiet()
    make_loop(graphs, epochs=5, validate_every=3).run(observer)
    assert [record.validation is not None for record in observer.records] == [False, False, True, False, True]


def test_gradient_clip_bounds_the_gradient(graphs):
    loop = make_loop(graphs, epochs=1, gradient_clip=1e-3)
    norms = []
    step = loop.optimizer.step

    def noted(*arguments):
        norms.append(torch.cat([p.grad.ravel() for p in loop.model.parameters() if p.grad is not None]).norm())
        step(*arguments)

    loop.optimizer.step = noted
    loop.run(Quiet())
    assert max(norms) <= 1.001e-3


@pytest.mark.parametrize(("schedule", "middle"), [("constant", 1.0), ("cosine", 0.505), ("exponential", 0.1)])
def test_schedules(schedule, middle):
    stage = StageConfiguration(name="s", learning_rate=2.0, schedule=schedule, warmup=0.1)
    assert [learning_rate(stage, step, 101) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert learning_rate(stage, 10, 101) == pytest.approx(2.0)
    assert learning_rate(stage, 55, 101) == pytest.approx(2.0 * middle)
    assert learning_rate(stage, 100, 101) == pytest.approx(2.0 if schedule == "constant" else 0.02)


def test_graphs_and_labels_are_not_changed(graphs):
    before = copy.deepcopy(graphs)
    make_loop(graphs, epochs=1).run(Quiet())
    for old, new in zip(before, graphs, strict=True):
        assert torch.equal(old.graph.positions, new.graph.positions)
        assert torch.equal(old.forces, new.forces)


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {"model.a": torch.ones(3)}, {"stage": 0})
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(path)
    path.write_bytes(content.replace(b'\\"format_version\\": 3', b'\\"format_version\\": 9'))
    with pytest.raises(CheckpointError, match="has checkpoint version 9, this lrc-ase continues version 3"):
        load_checkpoint(path)
    path.write_bytes(content.replace(b"lrc_ase_checkpoint", b"abc_ase_checkpoint"))
    with pytest.raises(CheckpointError, match="no checkpoint of lrc-ase"):
        load_checkpoint(path)


def test_a_frozen_long_range_part_stays_at_its_start(graphs):
    loop = make_loop(graphs, train="short-range-part")
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    loop.run(Quiet())
    moved = {name for name, value in loop.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not any(name.startswith("long_range.") for name in moved)


def test_a_stage_without_patience_for_more_ends(graphs):
    loop, observer = make_loop(graphs, epochs=50, learning_rate=1e-12, patience=3, ema_decay=0.0, warmup=0), Quiet()
    loop.progress.lowest_score = 0.0  # nothing will be better
    loop.run(observer)
    assert [record.epoch for record in observer.records] == [1, 2, 3]
    assert loop.stop_text == "stopped by patience (3 validations) after 3 of 50 epochs"


def test_accumulated_batches_take_the_same_steps(graphs, plain_descriptor):
    whole, parts = (make_loop(graphs, batch_size=4, optimizer="adamw", accumulate=n) for n in (1, 3))
    for loop in (whole, parts):
        loop.model.double()
        loop.averaged.double()
        loop.run(Quiet())
    for name, tensor in whole.model.state_dict().items():
        assert torch.allclose(parts.model.state_dict()[name], tensor, rtol=1e-7, atol=1e-9), name
