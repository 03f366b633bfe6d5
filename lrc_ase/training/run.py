"""A training run from its configuration to the finished potential, with all that must survive an interruption."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

from lrc_ase.compiled.compilation_time import compilation_timed
from lrc_ase.training.configuration import (
    ConfigurationError,
    TrainingConfiguration,
    differences,
    load_configuration,
    write_configuration,
)
from lrc_ase.training.interruption import TrainingInterrupted
from lrc_ase.training.machine import device_of_process, threads
from lrc_ase.training.monitor import Monitor
from lrc_ase.training.prepare import describe, prepare
from lrc_ase.training.processes import joined_processes
from lrc_ase.training.run_folder import RunFolder
from lrc_ase.training.stage_runs import Run

__all__ = ["TrainingInterrupted", "train"]


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
    InUseError
        Another process trains in the folder.
    RunFolderError
        The folder already holds a run, holds none to resume, or cannot be written to.
    TrainingInterrupted
        Ctrl-C or SIGTERM came; the last state is kept.
    """
    folder = RunFolder(run_folder)
    is_first = os.environ.get("RANK", "0") == "0"
    with folder.locked() if is_first else nullcontext():  # of several processes the first one writes
        if resume:
            folder.check_run()
            stored = load_configuration(folder.configuration)
            if configuration is not None:
                _check_same(configuration, stored, folder)
            configuration = stored
        elif configuration is None:
            raise ValueError("`configuration` may be None only together with resume=True")
        elif is_first:
            folder.check_free()
        return _train(configuration, folder, resume=resume, quiet=quiet)


def _train(configuration: TrainingConfiguration, folder: RunFolder, *, resume: bool, quiet: bool) -> Path:
    """Train in a folder that is locked."""
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
                        monitor.log(line)
            try:
                return Run(folder, prepared, monitor, device, processes, clock).go(resume=resume)
            finally:
                monitor.close()


def _check_same(given: TrainingConfiguration, stored: TrainingConfiguration, folder: RunFolder) -> None:
    """Refuse to resume with a configuration that asks for something else."""
    exclude = {"device", "n_threads", "checkpoint_every", "remarks"}
    if isinstance(given.references, str):
        exclude.add("references")
    changed = sorted(differences(given.model_dump(exclude=exclude), stored.model_dump(exclude=exclude)))
    if changed:
        raise ConfigurationError(
            f"the configuration differs from that of the run in {folder.path} in {', '.join(changed)}: "
            "resume without a configuration, or start in another folder"
        )
