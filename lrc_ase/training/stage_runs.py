"""Stages of a run, one after the other: logging, saving and restoring around the training loops."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lrc_ase.compiled.compilation_time import CompilationClock
from lrc_ase.dataset import LabelledGraph, Lazy, joined
from lrc_ase.dataset.distinct_names import distinct_names
from lrc_ase.files.counted import counted
from lrc_ase.files.potential_file import Potential, load_potential, save_potential
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.equivariance import rotation_error
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.structures.domain import DOMAIN_KEY
from lrc_ase.structures.graph import collate
from lrc_ase.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from lrc_ase.training.final_errors import TRAINING, VALIDATION, errors_of_parts, table_of_errors, verdict
from lrc_ase.training.interruption import StopWish, TrainingInterrupted, catch_signals
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.members import calibrate, calibration_text, left_out_frames
from lrc_ase.training.monitor import Monitor
from lrc_ase.training.prepare import Prepared, model_settings
from lrc_ase.training.processes import Processes
from lrc_ase.training.progress import EpochRecord, Progress
from lrc_ase.training.run_folder import RunFolder, RunFolderError
from lrc_ase.training.untrained import new_model, next_model
from lrc_ase.training.watch import Watch

__all__ = ["Run"]

SECONDS_BETWEEN_FILES = 10.0
"""Shortest time between files written at ends of epochs; the last epoch and an interruption always write them."""
N_ROTATED = 4
"""Number of frames and of rotations for the error of a potential under rotation."""


class Run:
    """Training run through all its stages; the observer of their loops."""

    def __init__(
        self,
        folder: RunFolder,
        prepared: Prepared,
        monitor: Monitor,
        device: torch.device,
        processes: Processes,
        clock: CompilationClock,
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> None:
        self.folder = folder
        self.prepared = prepared
        self.configuration = prepared.configuration
        self.monitor = monitor
        self.device = device
        self.processes = processes
        self.clock = clock
        self.on_epoch = on_epoch
        self.stage_index = 0
        self.stop = StopWish()
        """Wish of the user. One for all stages: a signal during the last validation of a stage stops the next one."""
        self.unsaved: EpochRecord | None = None
        """Epoch with the best mean weights, if they are not yet written."""
        self.last_checkpoint = time.monotonic()
        self.remarks = list(prepared.remarks)
        self.watch = Watch(prepared.watched, prepared.force_scale, device, processes)

    def go(self, *, resume: bool, lengthened: bool = False) -> Path:
        """Train the stages that are not finished and return the path of the potential.

        `lengthened` says that the configuration of a resumed run was changed, so that an ended stage may continue.
        """
        tensors, values = None, None
        if resume and self.folder.checkpoint.exists():
            tensors, values = load_checkpoint(self.folder.checkpoint, n_stages=len(self.configuration.stages))
            if values["fingerprint"] != self.prepared.fingerprint:
                raise CheckpointError(
                    f"the training frames changed since the run in {self.folder.path} began: start anew"
                )
            self.stage_index = values["stage"]
            progress = Progress.from_json(values["progress"])
            names = tuple(stage.name for stage in self.configuration.stages)
            if self.processes.is_first:
                self.folder.forget_metrics_after(names[: self.stage_index], names[self.stage_index], progress.epoch)
            if self.stage_index:
                previous = self.folder.stage_potential(names[self.stage_index - 1])
                for remark in load_potential(previous).description["remarks"]:
                    self._remark(remark)
            self.monitor.log(f"resumed in stage '{names[self.stage_index]}' after epoch {progress.epoch}")
        elif resume:
            if self.processes.is_first:
                self.folder.forget_metrics_after((), "", 0)
            self.monitor.log("resumed from the beginning: the run had no checkpoint yet")
        self.processes.wait()  # until all have read what the first will write anew
        model: ShortRangeModel | None = None
        if self.configuration.start is not None:
            model = load_potential(self.configuration.start).model.to(self._dtype).requires_grad_(True)
            if line := self.watch.begin(model.to(self.device), self.configuration.stages[0]):
                self.monitor.log(line)
        for index in range(self.stage_index, len(self.configuration.stages)):
            self.stage_index = index
            loop = self._loop(model)
            if tensors is not None and values is not None:
                loop.restore(tensors, Progress.from_json(values["progress"]))
                tensors = values = None
                if lengthened:
                    self._lengthen(loop)
            model = self._run_stage(loop)
        self.monitor.log(f"finished: {self.folder.potential}")
        self.processes.wait()
        return self.folder.potential

    @property
    def _dtype(self) -> torch.dtype:
        """Return the floating-point type of the training."""
        dtype: torch.dtype = getattr(torch, self.configuration.dtype)
        return dtype

    def _loop(self, previous: ShortRangeModel | None) -> StageLoop:
        """Return the loop of the current stage, with a new model or one extended from the previous stage."""
        configuration = self.configuration
        stage = configuration.stages[self.stage_index]
        settings = model_settings(configuration, full_range=stage.model == "full-range")
        seed = configuration.seed + self.stage_index
        if previous is None:
            model = new_model(settings, n_members=configuration.ensemble, seed=seed)
        else:
            model = next_model(previous, settings, n_members=configuration.ensemble, seed=seed)
        model.to(device=self.device, dtype=self._dtype)
        sets = [self.prepared.data_sets[name] for name in configuration.sets_of(stage)]
        train_graphs = self._on_device([data_set.train_graphs for data_set in sets])
        return StageLoop(
            model,
            stage,
            train_graphs,
            self._on_device([data_set.validation_graphs for data_set in sets]),
            force_scale=self.prepared.force_scale,
            seed=seed,
            left_out=left_out_frames(
                len(train_graphs), configuration.ensemble, configuration.leave_out, configuration.seed
            ),
            processes=self.processes,
            clock=self.clock,
        )

    def _lengthen(self, loop: StageLoop) -> None:
        """Let an ended stage continue if its limits allow, and log the change of its learning rate."""
        before, progress = loop.rate, loop.progress
        progress.stopped_by = None
        loop.stop_when_due()
        if loop.stop_text is not None:
            self.monitor.log(
                f"stage '{loop.stage.name}' trains no further: {loop.stop_text}; raise {progress.stopped_by} as well"
            )
        elif not loop.finished:
            self.monitor.log(
                f"stage '{loop.stage.name}' goes on from epoch {progress.epoch} to {loop.n_epochs}; its schedule is "
                f"that of the longer stage: the learning rate was {before:.2e} and is {loop.next_rate:.2e} now"
            )

    def _on_device(self, parts: Sequence[Sequence[LabelledGraph]]) -> Sequence[LabelledGraph]:
        """Join graphs and move them to the device; graphs on disk are moved when they are read."""
        graphs = joined(parts)
        if isinstance(graphs, Lazy):
            return Lazy(len(graphs), lambda index: graphs[index].to(self.device))
        return [graph.to(self.device) for graph in graphs]

    def _run_stage(self, loop: StageLoop) -> ShortRangeModel:
        """Train a stage to its end, write its potential and return the model with the best weights."""
        stage, progress = loop.stage, loop.progress
        if not loop.finished:
            self.monitor.stage(loop)
            total = loop.n_epochs * loop.n_batches
            with (
                self.monitor.task_shown(stage.name, total=total, completed=progress.step),
                catch_signals(self.stop),
            ):
                loop.run(self)
        best = loop.best_model()
        calibration = self._calibrate(best, loop) if isinstance(best, Ensemble) else {}
        progress = loop.progress
        if loop.stop_text is not None:
            self._remark(f"stage '{stage.name}': {loop.stop_text}")
        score = "" if progress.best_score is None else f", validation loss {progress.best_score:.3e}"
        self.monitor.log(
            f"stage '{stage.name}' done, {loop.stop_text or counted(progress.epoch, 'epoch')}: "
            f"best epoch {progress.best_epoch}{score}"
        )
        errors = self._final_errors(best, loop) if self._is_last_stage else {}
        if self.processes.is_first:
            path = self._potential_path(loop)
            description = load_potential(path).description | calibration | errors | {"remarks": self.remarks}
            save_potential(path, Potential(best, self.prepared.references, description))
        if line := self.watch.end(best, stage):
            self.monitor.log(line)
        return best

    def _final_errors(self, best: ShortRangeModel, loop: StageLoop) -> dict[str, Any]:
        """Log the errors of the finished potential, and return them as an entry of its description."""
        parts = {TRAINING: loop.train_graphs, VALIDATION: loop.validation_graphs, "watched": self.watch.graphs}
        tests = self.prepared.tests
        for path, name in distinct_names([*tests]).items():
            parts[f"test {name}"] = self._on_device([tests[path]])
        errors = errors_of_parts(best, parts, loop.stage, self.prepared.force_scale, self.processes)
        self.monitor.log(f"errors of the potential:\n{table_of_errors(errors)}")
        self.monitor.log(verdict(errors))
        return {"errors": errors}

    def _calibrate(self, best: Ensemble, loop: StageLoop) -> dict[str, Any]:
        """Calibrate the deviations, and return the calibration as an entry of the description."""
        calibration = calibrate(best, loop.validation_graphs)
        loop.best |= {name: buffer.clone() for name, buffer in best.named_buffers(recurse=False)}
        if not loop.validation_graphs:
            remark = "the deviations of the ensemble are not calibrated, as there were no validation frames"
            self._remark(remark)
            self.monitor.log(f"note: {remark}")
        else:
            self.monitor.log(calibration_text(calibration))
        return {"calibration": calibration}

    def _remark(self, text: str) -> None:
        """Add a remark for the user to the potential files, once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def step_done(self, loop: StageLoop) -> None:
        """Show progress; write a checkpoint if one is due; stop after a signal."""
        progress = loop.progress
        self.monitor.step(loop)
        if self.processes.any(self.stop.signal_name is not None):
            self._save(loop)
            message = (
                f"stopped by {self.stop.signal_name or 'a signal'} in epoch {progress.epoch + 1} of stage "
                f"'{loop.stage.name}'; the state is kept in {self.folder.path}, go on with --resume"
            )
            if progress.best_epoch == 0:
                first = min(loop.stage.validate_every, loop.n_epochs)
                message += f" (this stage has no potential yet: its first validation comes after epoch {first})"
            if self.processes.is_first:
                self.folder.log(message)
            self.processes.wait()  # for the first to have written
            raise TrainingInterrupted(message)
        if time.monotonic() - self.last_checkpoint > 60 * self.configuration.checkpoint_every:
            self._save(loop)

    def epoch_done(self, loop: StageLoop, record: EpochRecord) -> None:
        """Record an epoch, write files if they are due, and call `on_epoch`."""
        watched = self.watch.errors(loop.averaged, loop.stage) if record.validation else None
        self.monitor.epoch(loop, record, watched)
        if record.improved:
            self.unsaved = record
        # epochs of small sets are over faster than files are written
        if loop.finished or time.monotonic() - self.last_checkpoint > SECONDS_BETWEEN_FILES:
            self._save(loop)
        if self.on_epoch is not None and self.processes.is_first:
            self.on_epoch(record)

    def log(self, text: str) -> None:
        self.monitor.log(text)

    def _save(self, loop: StageLoop) -> None:
        """Write the checkpoint, and the potential if it improved; only the first process writes."""
        self.last_checkpoint = time.monotonic()
        if not self.processes.is_first:
            return
        try:
            if self.unsaved is not None:
                self._save_potential(loop, self.unsaved)
                self.unsaved = None
            self._save_checkpoint(loop)
        except OSError as error:
            raise RunFolderError(
                f"cannot write {error.filename}: {error.strerror}; the last checkpoint is kept: make room and go on "
                "with --resume"
            ) from error

    def _save_potential(self, loop: StageLoop, record: EpochRecord) -> None:
        """Write the potential with the best weights and its description."""
        description: dict[str, Any] = {
            "stage": loop.stage.name,
            "epoch": record.epoch,
            "validation": record.validation,
            "training_set": {
                name: {
                    "files": [Path(file.path).name for file in self.configuration.data[name].train],
                    "n_train": len(data_set.train),
                    "n_validation": len(data_set.validation),
                }
                for name, data_set in self.prepared.data_sets.items()
            },
            DOMAIN_KEY: self.prepared.domain,
            "remarks": self.remarks,
        }
        model = loop.best_model()
        if not model.descriptor.rotation_invariant:
            graphs = loop.validation_graphs or loop.train_graphs
            few = collate([labelled.graph for labelled in graphs[:N_ROTATED]])
            error = rotation_error(model, few, n_rotations=N_ROTATED, generator=torch.Generator().manual_seed(0))
            description["rotation_error"] = asdict(error)
        save_potential(self._potential_path(loop), Potential(model, self.prepared.references, description))

    @property
    def _is_last_stage(self) -> bool:
        """Return True in the last stage, whose potential is that of the run."""
        return self.stage_index == len(self.configuration.stages) - 1

    def _potential_path(self, loop: StageLoop) -> Path:
        """Return the path of the potential of the current stage."""
        return self.folder.potential if self._is_last_stage else self.folder.stage_potential(loop.stage.name)

    def _save_checkpoint(self, loop: StageLoop) -> None:
        """Write the state of the loop, from which a resumed run continues."""
        values = {
            "stage": self.stage_index,
            "progress": loop.progress.to_json(),
            "fingerprint": self.prepared.fingerprint,
        }
        save_checkpoint(self.folder.checkpoint, loop.tensors(), values)
