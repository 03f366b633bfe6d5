"""Training run from its configuration to the finished potential, in a folder that survives interruptions."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrc_ase.compiled.compilation_time import compilation_timed
from lrc_ase.dataset import LabelKeys
from lrc_ase.training.assignments import changed_configuration
from lrc_ase.training.configuration import TrainingConfiguration, write_configuration
from lrc_ase.training.data_arguments import as_configuration
from lrc_ase.training.frame_files import FrameFiles, FramesOrPaths
from lrc_ase.training.interruption import TrainingInterrupted
from lrc_ase.training.machine import device_of_process, threads
from lrc_ase.training.monitor import Monitor
from lrc_ase.training.options import TrainOptions, label_changes, option_keys, with_options
from lrc_ase.training.prepare import describe, prepare
from lrc_ase.training.processes import joined_processes
from lrc_ase.training.progress import EpochRecord
from lrc_ase.training.resuming import check_changes, resumed_configuration, same_configuration
from lrc_ase.training.run_folder import RunFolder
from lrc_ase.training.stage_runs import Run

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TrainingInterrupted", "train"]


def train(
    data: TrainingConfiguration | FramesOrPaths | None,
    run_folder: str | os.PathLike[str],
    *,
    small: FramesOrPaths = (),
    large: FramesOrPaths = (),
    validation: FramesOrPaths = (),
    test: FramesOrPaths | None = None,
    short_range: bool = False,
    keys: LabelKeys | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    quiet: bool = False,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    **options: Unpack[TrainOptions],
) -> Path:
    """Train a potential and write it, its log, metrics and checkpoint to `run_folder`.

    Parameters
    ----------
    data
        Frames to train on: `Atoms` with labels, files (wildcards and ``@`` slices allowed), one YAML file, or a
        configuration. `Atoms` are written to the run folder. None only with `resume`, or with `small` and `large`.
    run_folder
        Folder of the run, created if absent; see `RunFolder` for its files.
    small, large
        Frames of small and of large cells for two-scale training, in place of `data`.
    validation
        Frames to validate on, of `data` or `large`; by default a part of the training frames.
    test
        Frames whose errors are reported at the end. They influence nothing.
    short_range
        True trains a model without the long-range part.
    keys
        Names of the labels in all frames: of `Atoms` and of files, though not of both among training and validation
        frames, nor of both among test and watched ones.
    settings
        Any key of the configuration, dotted, such as ``{"stages.loss.energy": 5.0}``.
    resume
        Continue the run in the folder from its checkpoint. On the CPU the result is that of an uninterrupted run.
        `epochs`, `patience` and `time_limit` apply to the stage that was interrupted, and to later ones.
    quiet
        True prints nothing; the log file is written in any case.
    on_epoch
        Called with the `EpochRecord` of each epoch. An exception ends the training, which `resume` can continue.
    **options
        Keys of the configuration that change most often, see `TrainOptions`: `model`, `cutoff`, `epochs`,
        `batch_size`, ... None keeps the value of the configuration, or the default.

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
    if data is None and not resume and not (small or large):
        raise ValueError("`data` may be None only together with resume=True, or with `small` and `large`")
    folder = RunFolder(run_folder)
    is_first = os.environ.get("RANK", "0") == "0"
    changes = option_keys(options) | dict(settings or {})
    resume_alone = resume and all(_is_empty(frames) for frames in (data, small, large))
    if resume_alone:
        others = {"validation": validation, "test": test, "short_range": short_range}
        check_changes([*changes, *label_changes(keys), *(name for name, value in others.items() if value)])
    with ExitStack() as stack:
        if is_first:  # of several processes the first one writes
            stack.enter_context(folder.locked())
        if resume:
            folder.check_run()
        elif is_first:
            folder.check_free()
        if resume_alone:
            configuration = resumed_configuration(folder, changes, is_first=is_first)
            return _train(configuration, folder, resume=True, lengthened=bool(changes), quiet=quiet, on_epoch=on_epoch)
        files = stack.enter_context(FrameFiles(folder, keys, may_write=not resume, is_first=is_first))
        changes |= {} if test is None else {"test": files.paths("test", test)}
        requested = as_configuration(
            data if isinstance(data, TrainingConfiguration) else files.paths("training", data or ()),
            small=files.paths("small", small),
            large=files.paths("large", large),
            validation=files.paths("validation", validation),
            short_range=short_range,
        )
        changes |= files.label_changes(watches=bool(changes.get("watch")))
        configuration = changed_configuration(requested, changes, source="options")
        if resume:
            configuration = same_configuration(folder, configuration)
        return _train(configuration, folder, resume=resume, quiet=quiet, on_epoch=on_epoch)


train.__signature__ = with_options(inspect.signature(train))  # type: ignore[attr-defined]


def _is_empty(frames: TrainingConfiguration | FramesOrPaths | None) -> bool:
    """Return True if an argument names no frames."""
    return frames is None or (isinstance(frames, Sequence) and len(frames) == 0)


def _train(
    configuration: TrainingConfiguration,
    folder: RunFolder,
    *,
    resume: bool,
    quiet: bool,
    on_epoch: Callable[[EpochRecord], None] | None,
    lengthened: bool = False,
) -> Path:
    """Train in a folder that the caller has locked."""
    device = device_of_process(configuration.device)
    with threads(configuration.n_threads), joined_processes(device) as processes:
        monitor = Monitor(folder, is_first=processes.is_first, quiet=quiet, tensorboard=configuration.tensorboard)
        processes.wait()  # for the first to have written frames from memory
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
