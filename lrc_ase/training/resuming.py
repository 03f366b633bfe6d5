"""Configuration of a resumed run: that of its folder, with longer stages if requested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lrc_ase.files.counted import counted
from lrc_ase.training.assignments import changed_configuration
from lrc_ase.training.checkpoint import load_checkpoint
from lrc_ase.training.completion import default_patience
from lrc_ase.training.configuration import (
    ConfigurationError,
    TrainingConfiguration,
    load_configuration,
    write_configuration,
)
from lrc_ase.training.continuation import differences
from lrc_ase.training.progress import Progress
from lrc_ase.training.run_folder import RunFolder

__all__ = ["LENGTHENING", "check_changes", "resumed_configuration", "same_configuration"]

LENGTHENING = ("epochs", "patience", "time_limit")
"""Keys of a stage that change its length and do not affect the training so far."""
_FREE = ("device", "n_threads", "checkpoint_every", "tensorboard")
"""Keys that do not affect the result."""


def resumed_configuration(
    folder: RunFolder, changes: Mapping[str, Any], *, is_first: bool = True
) -> TrainingConfiguration:
    """Return the configuration of the run in a folder, with `changes` by dotted keys.

    The first of several processes writes it to the folder.

    Changes of ``stages.epochs``, ``stages.patience`` and ``stages.time_limit`` apply to the current stage (the last one
    of a finished run) and to later stages. Finished stages do not change. With other epochs, a stage loses the patience
    that was derived from its default length.

    Raises
    ------
    ConfigurationError
        `changes` holds a value that is not valid.
    """
    stored = load_configuration(folder.configuration)
    stage, progress = _position(folder)
    keys: dict[str, Any] = {}
    for key, value in changes.items():
        if key.removeprefix("stages.") in LENGTHENING:
            keys |= {
                f"stages[{index}].{key.removeprefix('stages.')}": value for index in range(stage, len(stored.stages))
            }
        else:
            keys[key] = value
    for index, each in enumerate(stored.stages[stage:], start=stage):
        # steps are large again in a longer stage: its loss falls below the lowest so far near its end at the earliest
        if (
            "stages.epochs" in changes
            and each.epochs
            and each.patience == default_patience(each.epochs, each.validate_every)
        ):
            keys = {f"stages[{index}].patience": None, **keys}
    resumed = changed_configuration(stored, keys, source="resumed run")
    n_epochs = resumed.stages[stage].epochs
    if n_epochs is not None and n_epochs < progress.epoch:
        raise ConfigurationError(
            f"stage '{resumed.stages[stage].name}' has {counted(progress.epoch, 'epoch')} behind it: "
            f"`epochs` must be at least that, got {n_epochs}"
        )
    if is_first and resumed.stages != stored.stages:
        write_configuration(folder.configuration, resumed)
    return resumed


def same_configuration(folder: RunFolder, requested: TrainingConfiguration) -> TrainingConfiguration:
    """Return the configuration of the run in a folder, with those values of `requested` that do not affect the result.

    Raises
    ------
    ConfigurationError
        `requested` differs from the configuration of the run in another key.
    """
    stored = load_configuration(folder.configuration)
    _check_same(requested, stored, folder)
    return stored.model_copy(update=requested.model_dump(include=set(_FREE) & requested.model_fields_set))


def check_changes(keys: Iterable[str]) -> None:
    """Raise ConfigurationError if a resumed run cannot change one of the dotted keys."""
    for key in keys:
        if key.removeprefix("stages.") not in (*LENGTHENING, *_FREE):
            raise ConfigurationError(
                f"--resume alone takes everything from the run folder, '{key}' too: leave the other options out; "
                f"only {', '.join((*LENGTHENING, *_FREE))} may change"
            )


def _position(folder: RunFolder) -> tuple[int, Progress]:
    """Return the index and the progress of the current stage."""
    if not folder.checkpoint.exists():
        return 0, Progress()
    _, values = load_checkpoint(folder.checkpoint)
    return values["stage"], Progress.from_json(values["progress"])


def _check_same(requested: TrainingConfiguration, stored: TrainingConfiguration, folder: RunFolder) -> None:
    """Raise ConfigurationError if a configuration differs from the stored one in a key that affects the result."""
    exclude = {*_FREE, "remarks"}
    if isinstance(requested.references, str):  # the stored configuration has the energies that followed from the word
        exclude.add("references")
    changed = sorted(differences(_set_keys(requested, exclude), stored.model_dump(exclude=exclude)))
    if changed:
        longer = any(key.rpartition(".")[2] in LENGTHENING for key in changed)
        raise ConfigurationError(
            f"the configuration differs from that of the run in {folder.path} in {', '.join(changed[:5])}: "
            "resume without a configuration, or start in another folder"
            + ("; --resume --epochs (--time-limit, --patience) makes a run longer" if longer else "")
        )


def _set_keys(requested: TrainingConfiguration, exclude: set[str]) -> dict[str, Any]:
    """Return the content of a configuration, None for keys whose defaults yield to the potential to start from."""
    content = requested.model_dump(exclude=exclude)
    if requested.start is None:
        return content
    content["model"] = requested.model.model_dump(exclude_unset=True)
    content["ensemble"] = None if requested.ensemble == 1 else requested.ensemble
    for stage, keys in zip(requested.stages, content["stages"], strict=True):
        if "learning_rate" not in stage.model_fields_set:
            keys["learning_rate"] = None
    return content
