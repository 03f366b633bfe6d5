"""Training loop of one stage: steps, running mean of the weights, validation, rewinding."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from lrc_ase.compiled.compilation_time import CompilationClock
from lrc_ase.dataset import LabelledGraph, batch_indices
from lrc_ase.models.ensemble import members_of
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.training.checkpoint import CheckpointError, check_fit
from lrc_ase.training.configuration import StageConfiguration
from lrc_ase.training.fetching import Fetcher
from lrc_ase.training.filled_batches import common_size
from lrc_ase.training.losses import ErrorSums
from lrc_ase.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from lrc_ase.training.processes import Processes
from lrc_ase.training.progress import EpochRecord, Progress
from lrc_ase.training.recorded_loss import RecordedLoss
from lrc_ase.training.schedule import learning_rate
from lrc_ase.training.steps import batch_gradient, mean_errors, trained_parameters

__all__ = ["EpochRecord", "Observer", "Progress", "StageLoop", "TrainingDiverged"]

MAX_REWINDS = 10
RATE_AFTER_REWIND = 0.5
AS_GOOD = 1.01
"""The best epoch is the latest within this factor of the lowest validation loss: the difference is noise for some
hundred validation frames, and later steps are smaller."""


class TrainingDiverged(RuntimeError):
    """Error of a stage whose loss stayed non-finite after repeated reductions of the step size."""


class _NonFiniteLossError(ArithmeticError):
    pass


class Observer(Protocol):
    """Interface of the code around the loop: progress bar, files, interruption."""

    def step_done(self, loop: StageLoop) -> None:
        """Handle the end of a step; an exception stops the loop."""

    def epoch_done(self, loop: StageLoop, record: EpochRecord) -> None:
        """Handle the end of an epoch."""

    def log(self, text: str) -> None:
        """Show a message to the user."""


class StageLoop:
    """Training of one model, or of the members of an ensemble side by side, on one set of graphs.

    Members see the same batches without the frames in `left_out`, a collection for each member. The state of the
    training is in `tensors` and `progress`: a loop restored from them continues exactly as the original loop.
    """

    def __init__(
        self,
        model: ShortRangeModel,
        stage: StageConfiguration,
        train_graphs: Sequence[LabelledGraph],
        validation_graphs: Sequence[LabelledGraph],
        *,
        force_scale: float,
        seed: int,
        left_out: Sequence[Collection[int]] | None = None,
        processes: Processes | None = None,
        clock: CompilationClock | None = None,
    ) -> None:
        self.model = model
        self.stage = stage
        self.train_graphs = train_graphs
        self.validation_graphs = validation_graphs
        self.force_scale = force_scale
        self.seed = seed
        self.left_out = left_out or [()] * len(members_of(model))
        self.processes = processes or Processes()
        self.clock = clock or CompilationClock()
        """Clock of the compilation of kernels, whose time does not count."""
        self.has_compiled = next(model.parameters()).device.type == "cpu"
        """False before the first step on a GPU, which compiles and records: all of it does not count."""
        self.n_atoms_done = 0
        """Number of atoms trained on since the loop was created, over all members and processes."""
        self.fetcher = Fetcher(train_graphs)
        self.averaged = copy.deepcopy(model)
        """Model with the exponential moving average of the weights, which is validated and saved."""
        self.best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        """Mean weights of the best epoch, see `AS_GOOD`."""
        for member in members_of(model):
            for name, parameter in member.named_parameters():
                parameter.requires_grad_(stage.train == "all" or not name.startswith("long_range."))
        self.recorded = self._recorded(members_of(model), train_graphs, gradient=True)
        self.recorded_validation = self._recorded([self.averaged], validation_graphs, gradient=False)
        self.optimizer = build_optimizer(stage, trained_parameters(model))
        self.progress = Progress()
        self.n_batches = math.ceil(len(train_graphs) / stage.frames_per_step)

    def run(self, observer: Observer) -> None:
        """Train until the last epoch or the time limit of the stage."""
        good_state = self._snapshot()  # a copy in memory: training goes back to it after a loss that is not finite
        while not self.finished:
            try:
                record = self._epoch(observer)
            except _NonFiniteLossError as error:
                self._rewind(good_state, observer, str(error))
                continue
            good_state = self._snapshot()
            observer.epoch_done(self, record)

    @property
    def finished(self) -> bool:
        """Return True when all epochs are done, the time is up, or the validation loss no longer falls."""
        return self.progress.epoch >= self.n_epochs or self.progress.stopped_by is not None

    @property
    def stop_text(self) -> str | None:
        """Return a phrase on the limit that ended the stage before its last epoch, else None."""
        progress, stage = self.progress, self.stage
        if progress.stopped_by is None or progress.epoch >= self.n_epochs:
            return None
        count, unit = (
            (stage.time_limit, "minute") if progress.stopped_by == "time_limit" else (stage.patience, "validation")
        )
        limit = f"{count:g} {unit}{'' if count == 1 else 's'}"
        return f"stopped by {progress.stopped_by} ({limit}) after {progress.epoch} of {self.n_epochs} epochs"

    def stop_when_due(self) -> None:
        """Set `progress.stopped_by` if the stage has reached its time limit or its patience."""
        progress, stage = self.progress, self.stage
        if stage.time_limit is not None and progress.seconds > 60 * stage.time_limit:
            progress.stopped_by = "time_limit"
        elif stage.patience is not None and progress.validations_since_lowest >= stage.patience:
            progress.stopped_by = "patience"

    @property
    def rate(self) -> float:
        """Return the step size of the latest step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    @property
    def next_rate(self) -> float:
        """Return the step size that the next step would have now."""
        return self._rate(self.progress.step, self.progress.seconds)

    @property
    def n_epochs(self) -> int:
        """Return the number of epochs of the stage."""
        assert self.stage.epochs is not None  # filled in by `prepare`
        return self.stage.epochs

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, mean weights, best weights and optimizer state, not copied."""
        return {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"averaged.{name}": tensor for name, tensor in self.averaged.state_dict().items()},
            **{f"best.{name}": tensor for name, tensor in self.best.items()},
            **{f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()},
        }

    def restore(self, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Restore a state of `tensors` and `progress`.

        CheckpointError names a tensor that does not fit the model, or reports another optimizer.
        """
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "averaged": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            if part not in parts:
                raise CheckpointError(f"the checkpoint does not fit the model: unknown tensor '{name:.100}'")
            parts[part][rest] = tensor
        for part in ("model", "averaged", "best"):
            check_fit(part, self.model.state_dict(), parts[part])
        self.model.load_state_dict(parts["model"])
        self.averaged.load_state_dict(parts["averaged"])
        current = self.model.state_dict()
        self.best = {name: tensor.to(current[name].device, copy=True) for name, tensor in parts["best"].items()}
        try:
            restore_optimizer(self.optimizer, parts["optimizer"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:  # of torch, or a missing tensor
            raise CheckpointError(
                f"the checkpoint does not fit the optimizer ({type(error).__name__}: {error!s:.100}): start anew"
            ) from error
        self.progress = progress

    def best_model(self) -> ShortRangeModel:
        """Return a copy of the model with the best weights."""
        model = copy.deepcopy(self.averaged)
        model.load_state_dict(self.best)
        return model.eval()

    def _epoch(self, observer: Observer) -> EpochRecord:
        """Train on the remaining batches of the current epoch and return its record."""
        progress = self.progress
        batches = batch_indices(len(self.train_graphs), self.stage.frames_per_step, self.seed, progress.epoch)
        self.model.train()
        while progress.batch < len(batches):
            begin = self._now()
            following = batches[progress.batch + 1] if progress.batch + 1 < len(batches) else []
            self._step(self.fetcher.batch(batches[progress.batch], following))
            if not self.has_compiled:  # Triton tells nobody how long it takes
                self.clock.seconds += self._now() - begin
                self.has_compiled = True
            progress.seconds += self._now() - begin
            observer.step_done(self)
        return self._finish_epoch()

    def _step(self, graphs: Mapping[int, LabelledGraph]) -> None:
        """Take a step of the optimizer on a batch of graphs by their index in the training set."""
        progress, stage = self.progress, self.stage
        self.optimizer.zero_grad(set_to_none=True)
        pending, norms = [], []
        gradient = partial(batch_gradient, n_parts=stage.accumulate, step=progress.step, processes=self.processes)
        for member, hidden, recorded in zip(members_of(self.model), self.left_out, self.recorded, strict=True):
            batch = [graph for index, graph in graphs.items() if index not in hidden]
            if not batch:
                continue
            errors = recorded(batch) if recorded else gradient(member, batch, stage.loss, self.force_scale)
            self.processes.add_up_gradients(member.parameters())
            norms.append(nn.utils.clip_grad_norm_(member.parameters(), stage.gradient_clip or math.inf))
            pending.append(errors)
            self.n_atoms_done += sum(graph.graph.n_atoms for graph in batch)
        sums = ErrorSums()
        for errors in pending:
            sums += errors()
        # all processes take their step size from the clock of the first
        seconds = progress.seconds if self.processes.is_first else 0.0
        *numbers, seconds = self.processes.add_up_numbers([*sums.numbers(), seconds])
        sums = ErrorSums.from_numbers(numbers)
        # before the step: weights stay finite, and all processes raise together, as they share the sums
        if not math.isfinite(sums.loss + float(sum(norms))):
            raise _NonFiniteLossError(f"loss or gradient not finite in epoch {progress.epoch + 1}")
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(progress.step, seconds)
        self.optimizer.step()
        self._average()
        progress.sums += sums
        progress.batch += 1
        progress.step += 1

    def _recorded(
        self, models: Sequence[ShortRangeModel], graphs: Sequence[LabelledGraph], *, gradient: bool
    ) -> list[RecordedLoss | None]:
        """Return what computes the loss of each model by a recording, None where nothing can."""
        size = common_size(models[0], self.stage, graphs) if self.processes.size == 1 else None
        if size is None:
            return [None] * len(models)
        arguments = self.stage.loss, self.force_scale, size
        return [RecordedLoss(model, *arguments, gradient=gradient) for model in models]

    def _rate(self, step: int, seconds: float) -> float:
        """Return the step size of step number `step`, reduced by rewinds."""
        n_steps = self.n_epochs * self.n_batches
        return learning_rate(self.stage, step, n_steps, seconds=seconds) * self.progress.rate_factor

    def _now(self) -> float:
        """Return the seconds of a clock that stops while kernels are compiled."""
        return time.monotonic() - self.clock.seconds

    @torch.no_grad()
    def _average(self) -> None:
        """Update the exponential moving average of the weights."""
        # a young average forgets its start faster: initial weights would otherwise stay in it for 1 / (1 - decay) steps
        decay = min(self.stage.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
        for mean, current in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(current, 1 - decay)
        # buffers, such as a calibration or the state of random turns, have no mean
        for kept, buffer in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            kept.copy_(buffer)

    def _finish_epoch(self) -> EpochRecord:
        """Validate, keep the weights if they are the best, and return the record of the epoch."""
        progress, stage = self.progress, self.stage
        begin = self._now()
        epoch = progress.epoch + 1
        rate = self.rate
        progress.seconds = self.processes.of_first(progress.seconds)
        self.stop_when_due()
        # whatever ends the stage, its last epoch is validated: the next stage must not get untrained weights
        is_last = epoch == self.n_epochs or progress.stopped_by is not None
        validation = None
        improved = not self.validation_graphs  # then the last weights are the best
        if self.validation_graphs and (epoch % stage.validate_every == 0 or is_last):
            validation = mean_errors(
                self.averaged,
                self.validation_graphs,
                stage.loss,
                self.force_scale,
                batch_size=stage.frames_per_step,
                processes=self.processes,
                recorded=self.recorded_validation[0],
            )
            if not math.isfinite(validation["loss"]):
                raise _NonFiniteLossError(f"validation loss not finite in epoch {epoch}")
            improved = self._compare(validation["loss"], epoch)
        if improved:
            progress.best_score = None if validation is None else validation["loss"]
            progress.best_epoch = epoch
            self.best = {name: tensor.clone() for name, tensor in self.averaged.state_dict().items()}
        train = progress.sums.metrics()
        progress.seconds = self.processes.of_first(progress.seconds + self._now() - begin)
        progress.epoch, progress.batch, progress.sums = epoch, 0, ErrorSums()
        return EpochRecord(
            epoch, rate, progress.seconds, train, validation, improved, stage=stage.name, n_epochs=self.n_epochs
        )

    def _compare(self, loss: float, epoch: int) -> bool:
        """Record a validation loss; return True if it lies within a factor `AS_GOOD` of the lowest one."""
        progress = self.progress
        if progress.lowest_score is None or loss < progress.lowest_score:
            progress.lowest_score, progress.lowest_epoch, progress.validations_since_lowest = loss, epoch, 0
        else:
            progress.validations_since_lowest += 1
            self.stop_when_due()
        return loss <= AS_GOOD * progress.lowest_score

    def _snapshot(self) -> tuple[dict[str, Tensor], Progress]:
        """Return a copy of the whole state."""
        return {name: tensor.clone() for name, tensor in self.tensors().items()}, copy.deepcopy(self.progress)

    def _rewind(self, state: tuple[dict[str, Tensor], Progress], observer: Observer, reason: str) -> None:
        """Restore a state with a reduced step size; raise TrainingDiverged after `MAX_REWINDS`."""
        rewinds = self.progress.rewinds + 1
        factor = self.progress.rate_factor * RATE_AFTER_REWIND
        if rewinds > MAX_REWINDS:
            raise TrainingDiverged(
                f"stage '{self.stage.name}': {reason}, after {MAX_REWINDS} rewinds with ever smaller steps; "
                "check the labels for outliers, or lower `learning_rate`"
            )
        seconds = self.progress.seconds  # time that was spent counts, or a time limit would never end the stage
        tensors, progress = state
        self.restore(tensors, copy.deepcopy(progress))
        self.progress.rewinds, self.progress.rate_factor, self.progress.seconds = rewinds, factor, seconds
        observer.log(f"{reason}: back to the end of epoch {progress.epoch}, learning rate times {factor:g} from here")
