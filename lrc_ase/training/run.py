"""Training run from its configuration to the finished potential, in a folder that survives interruptions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lrc_ase.compiled.compilation_time import compilation_timed
from lrc_ase.dataset import LabelKeys
from lrc_ase.training.configuration import TrainingConfiguration, write_configuration
from lrc_ase.training.frame_files import FrameFiles, FramesOrPaths, paths_alone
from lrc_ase.training.interruption import TrainingInterrupted
from lrc_ase.training.machine import device_of_process, threads
from lrc_ase.training.monitor import Monitor
from lrc_ase.training.options import as_configuration, changed_configuration, option_keys
from lrc_ase.training.prepare import describe, prepare
from lrc_ase.training.processes import joined_processes
from lrc_ase.training.progress import EpochRecord
from lrc_ase.training.resuming import check_changes, resumed_configuration
from lrc_ase.training.run_folder import RunFolder
from lrc_ase.training.stage_runs import Run

__all__ = ["TrainingInterrupted", "train"]


def train(
    data: TrainingConfiguration | FramesOrPaths | None,
    run_folder: str | os.PathLike[str],
    *,
    validation: FramesOrPaths = (),
    test: FramesOrPaths | None = None,
    short_range: bool = False,
    cutoff: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    patience: int | None = None,
    time_limit: float | None = None,
    ensemble: int | None = None,
    start: str | os.PathLike[str] | None = None,
    keys: LabelKeys | None = None,
    seed: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    n_threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    quiet: bool = False,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Path:
    """Train a potential and write it, its log, metrics and checkpoint to `run_folder`.

    Options that are None keep the values of the configuration, or the defaults of ``lrc-ase train`` without one.

    Parameters
    ----------
    data
        Frames to train on: `Atoms` with labels, files (wildcards and ``@`` slices allowed), one YAML file, or a
        configuration. `Atoms` are written to the run folder. None only with `resume`.
    run_folder
        Folder of the run, created if absent; see `RunFolder` for its files.
    validation
        Frames to validate on; by default a part of the training frames.
    test
        Frames whose errors are reported at the end. They influence nothing.
    short_range
        True trains a model without the long-range part.
    cutoff
        Range of the short-range part, Angstrom.
    epochs
        Passes over the frames in every stage. With `resume`: epochs of the longer run.
    batch_size
        Frames per step of the optimizer.
    patience
        Validations without a lower loss after which a stage ends.
    time_limit
        Minutes after which a stage ends, with its step size annealed.
    ensemble
        Members trained side by side.
    start
        Potential to start from: file, run folder or shipped name.
    keys
        Names of the labels in `data` and `validation`.
    seed, device, dtype, n_threads
        As in the configuration.
    settings
        Any other key of the configuration, dotted, such as ``{"stages.loss.energy": 5.0}``.
    resume
        Continue the run in the folder from its checkpoint. On the CPU the result is that of an uninterrupted run.
        `epochs`, `patience` and `time_limit` apply to the stage that was interrupted, and to later ones.
    quiet
        True prints nothing; the log file is written in any case.
    on_epoch
        Called with the `EpochRecord` of each epoch. An exception ends the training, which `resume` can continue.

    Returns
    -------
    Path
        The potential of the last stage with the lowest validation loss.

    Raises
    ------
    ConfigurationError
        An option has no valid value, or cannot be changed when resuming.
    InUseError
        Another process trains in the folder.
    RunFolderError
        The folder already holds a run, holds none to resume, or cannot be written to.
    TrainingInterrupted
        Ctrl-C or SIGTERM ended the training; the last state is in the checkpoint.
    """
    folder = RunFolder(run_folder)
    is_first = os.environ.get("RANK", "0") == "0"
    changes = option_keys(
        cutoff=cutoff,
        epochs=epochs,
        batch_size=batch_size,
        patience=patience,
        time_limit=time_limit,
        ensemble=ensemble,
        start=start,
        seed=seed,
        device=device,
        dtype=dtype,
        n_threads=n_threads,
    ) | dict(settings or {})
    with ExitStack() as stack:
        if is_first:  # of several processes the first one writes
            stack.enter_context(folder.locked())
        if resume:
            check_changes(changes)
            folder.check_run()
            if not isinstance(data, TrainingConfiguration | None):
                data = as_configuration(paths_alone(data))
            configuration = resumed_configuration(data, folder, changes)
        elif data is None:
            raise ValueError("`data` may be None only together with resume=True")
        else:
            if is_first:
                folder.check_free()
            files = stack.enter_context(FrameFiles(folder, keys))
            if not isinstance(data, TrainingConfiguration):
                data = files.paths("training", data)
            changes |= {} if test is None else option_keys(test=files.paths("test", test))
            configuration = as_configuration(
                data, validation=files.paths("validation", validation), short_range=short_range
            )
            # labels of frames from memory were written under ASE's names
            changes |= {} if files.written else option_keys(keys=keys)
            configuration = changed_configuration(configuration, changes, source="train")
        return _train(configuration, folder, resume=resume, lengthened=bool(changes), quiet=quiet, on_epoch=on_epoch)


def _train(
    configuration: TrainingConfiguration,
    folder: RunFolder,
    *,
    resume: bool,
    lengthened: bool,
    quiet: bool,
    on_epoch: Callable[[EpochRecord], None] | None,
) -> Path:
    """Train in a folder that the caller has locked."""
    device = device_of_process(configuration.device)
    with threads(configuration.n_threads), joined_processes(device) as processes:
        monitor = Monitor(folder, is_first=processes.is_first, quiet=quiet, tensorboard=configuration.tensorboard)
        with monitor.bar, compilation_timed(monitor.compiling) as clock:
            with monitor.task_shown("reading frames"):
                if configuration.cache is not None and not processes.is_first:
                    processes.wait()  # for the first to have filled the cache
                prepared = prepare(configuration, monitor.reading, monitor.caching)
                if configuration.cache is not None and processes.is_first:
                    processes.wait()
            processes.wait()  # until all have looked at the folder
            if processes.is_first:
                folder.create()
                if not resume:
                    write_configuration(folder.configuration, prepared.configuration)
                    for line in describe(prepared):
                        # what the data report could look at fills screens: the log keeps it
                        monitor.log(line, shown=not line.startswith(("checked: ", "not checked: ")))
            try:
                run = Run(folder, prepared, monitor, device, processes, clock, on_epoch)
                return run.go(resume=resume, lengthened=lengthened)
            finally:
                monitor.close()
