"""A training run from its configuration to the finished potential, with all that must survive an interruption."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lrc_ase.domain import DOMAIN_KEY
from lrc_ase.equivariance import rotation_error
from lrc_ase.graph import collate
from lrc_ase.model import ShortRangeModel, build_model, extend_to_full_range
from lrc_ase.potential_file import Potential, save_potential
from lrc_ase.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from lrc_ase.training.configuration import (
    ConfigurationError,
    TrainingConfiguration,
    differences,
    load_configuration,
    write_configuration,
)
from lrc_ase.training.interruption import StopWish, TrainingInterrupted, catch_signals
from lrc_ase.training.loop import EpochRecord, StageLoop
from lrc_ase.training.loop import Progress as StageProgress
from lrc_ase.training.prepare import Prepared, describe, model_settings, prepare
from lrc_ase.training.run_folder import RunFolder

__all__ = ["TrainingInterrupted", "train"]

SECONDS_BETWEEN_FILES = 10.0
"""Time between the files written at ends of epochs; the last epoch and an interruption write them anyway."""
N_ROTATED = 4
"""Frames and rotations by which a potential's error under rotation is measured."""


def train(
    configuration: TrainingConfiguration | None,
    run_folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train a potential and leave everything about it in `run_folder`.

    Parameters
    ----------
    configuration
        What to do. When resuming it may be None: the folder's own configuration holds, and a given one must agree.
    run_folder
        Made if absent. See `RunFolder` and docs for what it holds.
    resume
        Go on with the run in the folder from its checkpoint. On the CPU the result is that of an uninterrupted run.
    quiet
        Nothing on the console; the log file is written all the same.

    Returns
    -------
    Path
        The potential of the last stage with the lowest validation loss.

    Raises
    ------
    RunFolderError
        The folder already holds a run, holds none to resume, or cannot be written to.
    TrainingInterrupted
        Ctrl-C or SIGTERM came; the last state is kept.
    """
    folder = RunFolder(run_folder)
    if resume:
        folder.check_run()
        stored = load_configuration(folder.configuration)
        if configuration is not None:
            _check_same(configuration, stored, folder)
        configuration = stored
    elif configuration is None:
        raise ValueError("`configuration` may be None only together with resume=True")
    else:
        folder.check_free()
    device = _device(configuration.device)
    console = Console(quiet=quiet)
    with _threads(configuration.n_threads), _progress_bar(console) as bar:
        task = bar.add_task("reading frames", total=None, loss="", validation="")
        prepared = prepare(
            configuration, lambda done, total: bar.update(task, completed=done, total=total, description="neighbors")
        )
        bar.remove_task(task)
        folder.create()
        run = _Run(folder, prepared, console, bar, device)
        if not resume:
            write_configuration(folder.configuration, prepared.configuration)
            for line in describe(prepared):
                run.log(line)
        return run.go(resume=resume)


class _Run:
    """Carries a run through its stages; the observer of their loops."""

    def __init__(
        self, folder: RunFolder, prepared: Prepared, console: Console, bar: Progress, device: torch.device
    ) -> None:
        self.folder = folder
        self.prepared = prepared
        self.configuration = prepared.configuration
        self.console = console
        self.bar = bar
        self.device = device
        self.stage_index = 0
        self.stop = StopWish()
        self.unsaved: EpochRecord | None = None
        """Epoch whose mean weights are the best and not yet written."""
        self.last_checkpoint = time.monotonic()
        self.task: TaskID | None = None

    def go(self, *, resume: bool) -> Path:
        tensors, values = None, None
        if resume and self.folder.checkpoint.exists():
            tensors, values = load_checkpoint(self.folder.checkpoint)
            if values["fingerprint"] != self.prepared.fingerprint:
                raise CheckpointError(
                    f"the training frames changed since the run in {self.folder.path} began: start anew"
                )
            self.stage_index = values["stage"]
            progress = StageProgress.from_json(values["progress"])
            names = tuple(stage.name for stage in self.configuration.stages)
            self.folder.forget_metrics_after(names[: self.stage_index], names[self.stage_index], progress.epoch)
            self.log(f"resumed in stage '{names[self.stage_index]}' after epoch {progress.epoch}")
        elif resume:
            self.folder.forget_metrics_after((), "", 0)
            self.log("resumed from the beginning: the run had no checkpoint yet")
        model: ShortRangeModel | None = None
        for index in range(self.stage_index, len(self.configuration.stages)):
            self.stage_index = index
            loop = self._loop(model)
            if tensors is not None and values is not None:
                loop.restore(tensors, StageProgress.from_json(values["progress"]))
                tensors = values = None
            model = self._run_stage(loop)
        self.log(f"finished: {self.folder.potential}")
        return self.folder.potential

    def _loop(self, previous: ShortRangeModel | None) -> StageLoop:
        """Loop of the current stage, its model new or grown from the one before."""
        stage = self.configuration.stages[self.stage_index]
        settings = model_settings(self.configuration, full_range=stage.model == "full-range")
        generator = torch.Generator().manual_seed(self.configuration.seed + self.stage_index)
        if previous is None:
            model = build_model(settings, generator=generator)
        elif settings.long_range is not None and previous.settings.long_range is None:
            model = extend_to_full_range(previous.cpu(), settings.long_range, generator=generator)
        else:
            model = previous
        model.to(device=self.device, dtype=getattr(torch, self.configuration.dtype))
        sets = [self.prepared.data_sets[name] for name in self.configuration.sets_of(stage)]
        return StageLoop(
            model,
            stage,
            [graph.to(self.device) for data_set in sets for graph in data_set.train_graphs],
            [graph.to(self.device) for data_set in sets for graph in data_set.validation_graphs],
            force_scale=self.prepared.force_scale,
            seed=self.configuration.seed + self.stage_index,
        )

    def _run_stage(self, loop: StageLoop) -> ShortRangeModel:
        stage, progress = loop.stage, loop.progress
        if not loop.finished:
            n_parameters = sum(parameter.numel() for parameter in loop.model.parameters())
            self.log(f"stage '{stage.name}': {stage.model} model, {n_parameters} parameters, {loop.n_epochs} epochs")
            self.task = self.bar.add_task(
                stage.name, total=loop.n_epochs * loop.n_batches, completed=progress.step, loss="", validation=""
            )
            with catch_signals() as self.stop:
                loop.run(self)
            self.bar.remove_task(self.task)
        best = loop.best_model()
        score = "" if loop.progress.best_score is None else f", validation loss {loop.progress.best_score:.3e}"
        self.log(f"stage '{stage.name}' done: best epoch {loop.progress.best_epoch}{score}")
        return best

    def step_done(self, loop: StageLoop) -> None:
        progress = loop.progress
        assert self.task is not None
        self.bar.update(
            self.task,
            completed=progress.step,
            description=f"{loop.stage.name} {progress.epoch + 1}/{loop.n_epochs}",
            loss=f"loss {progress.sums.loss / max(progress.sums.n_structures, 1):.2e}",
        )
        if self.stop.signal_name is not None:
            self._save(loop)
            message = (
                f"stopped by {self.stop.signal_name} in epoch {progress.epoch + 1} of stage '{loop.stage.name}'; "
                f"the state is kept in {self.folder.path}, go on with --resume"
            )
            self.folder.log(message)
            raise TrainingInterrupted(message)
        if time.monotonic() - self.last_checkpoint > 60 * self.configuration.checkpoint_every:
            self._save(loop)

    def epoch_done(self, loop: StageLoop, record: EpochRecord) -> None:
        validation = record.validation or {}
        self.folder.add_metrics(
            {
                "stage": loop.stage.name,
                "epoch": record.epoch,
                "learning_rate": f"{record.learning_rate:.4e}",
                "seconds": f"{record.seconds:.2f}",
                **{f"train_{name}": f"{value:.6g}" for name, value in record.train.items()},
                **{f"validation_{name}": f"{value:.6g}" for name, value in validation.items()},
            }
        )
        line = (
            f"{loop.stage.name} epoch {record.epoch}: train {_errors(record.train)}"
            + (f"; validation {_errors(validation)}" if validation else "")
            + (" *" if record.improved and validation else "")
        )
        self.folder.log(line)
        if not self.console.is_terminal and record.epoch % math.ceil(loop.n_epochs / 20) == 0:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)  # no bar to be seen there
        if validation:
            assert self.task is not None
            shown = f"validation {validation['energy_rmse']:.2f} meV/atom {validation['forces_rmse']:.1f} meV/Angstrom"
            self.bar.update(self.task, validation=shown)
        if record.improved:
            self.unsaved = record
        # epochs of small sets are over faster than files are written
        if loop.finished or time.monotonic() - self.last_checkpoint > SECONDS_BETWEEN_FILES:
            self._save(loop)

    def log(self, text: str) -> None:
        self.folder.log(text)
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _save(self, loop: StageLoop) -> None:
        """Write the potential, if there is a better one, and the checkpoint."""
        if self.unsaved is not None:
            self._save_potential(loop, self.unsaved)
            self.unsaved = None
        self._save_checkpoint(loop)

    def _save_potential(self, loop: StageLoop, record: EpochRecord) -> None:
        is_last = self.stage_index == len(self.configuration.stages) - 1
        path = self.folder.potential if is_last else self.folder.stage_potential(loop.stage.name)
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
            "remarks": list(self.prepared.remarks),
        }
        model = loop.best_model()
        if not model.descriptor.rotation_invariant:
            graphs = loop.validation_graphs or loop.train_graphs
            few = collate([labelled.graph for labelled in graphs[:N_ROTATED]])
            error = rotation_error(model, few, n_rotations=N_ROTATED, generator=torch.Generator().manual_seed(0))
            description["rotation_error"] = asdict(error)
        save_potential(path, Potential(model, self.prepared.references, description))

    def _save_checkpoint(self, loop: StageLoop) -> None:
        values = {
            "stage": self.stage_index,
            "progress": loop.progress.to_json(),
            "fingerprint": self.prepared.fingerprint,
        }
        save_checkpoint(self.folder.checkpoint, loop.tensors(), values)
        self.last_checkpoint = time.monotonic()


def _errors(metrics: Mapping[str, float]) -> str:
    return (
        f"loss {metrics['loss']:.3e}, energy {metrics['energy_rmse']:.2f} meV/atom, "
        f"forces {metrics['forces_rmse']:.1f} meV/Angstrom (RMSE)"
    )


def _check_same(given: TrainingConfiguration, stored: TrainingConfiguration, folder: RunFolder) -> None:
    """Refuse to resume with a configuration that asks for something else."""
    exclude = {"device", "n_threads", "checkpoint_every"}
    if isinstance(given.references, str):
        exclude.add("references")
    changed = sorted(differences(given.model_dump(exclude=exclude), stored.model_dump(exclude=exclude)))
    if changed:
        raise ConfigurationError(
            f"the configuration differs from that of the run in {folder.path} in {', '.join(changed)}: "
            "resume without a configuration, or start in another folder"
        )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"device '{name}' cannot be used here: {reason}") from error
    return device


@contextmanager
def _threads(n_threads: int | None) -> Iterator[None]:
    previous = torch.get_num_threads()
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def _progress_bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[validation]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
