"""Options of `train`, of ``lrc-ase train`` and of their docs: one list of short names for keys of a configuration."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, get_args, get_type_hints

from lrc_ase.dataset import LabelKeys
from lrc_ase.training.data_arguments import Paths

__all__ = ["Option", "TrainOptions", "flag", "label_changes", "option_keys", "options", "with_options"]


@dataclass(frozen=True)
class Option:
    """An option: the key of the configuration that it sets, and how the command line shows it."""

    key: str
    """Dotted key, as in `changed_configuration`."""
    metavar: str
    """Word that stands for the value in help texts; nothing for a switch."""
    help: str
    """Meaning and unit."""
    panel: str
    """Heading of the help text under which the option stands."""
    flag: str = ""
    """Name on the command line if it is not that of the keyword."""


_DATA, _MODEL, _TRAINING, _MACHINE = "Data", "Model", "Training", "Machine"


class TrainOptions(TypedDict, total=False):
    """Keywords of `train`, and options of ``lrc-ase train``, for the keys of a configuration that change most often.

    None leaves the value of the configuration, or the default. Any other key is set by `settings`, or by ``--set``.
    """

    model: Annotated[
        str | None,
        Option(
            "model.preset",
            "fast|accurate",
            "Preset: fast (one block, the default) or accurate (two blocks, lower errors, 2.6 times the cost).",
            _MODEL,
        ),
    ]
    cutoff: Annotated[
        float | None,
        Option("model.cutoff", "ANGSTROM", "Range of the short-range part, Angstrom; 5 if not given.", _MODEL),
    ]
    start: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "start",
            "POTENTIAL",
            "Potential (file, run folder, shipped name) to start from; unknown elements are added.",
            _MODEL,
            "--from",
        ),
    ]
    ensemble: Annotated[
        int | None, Option("ensemble", "N", "Members trained side by side; their spread is the uncertainty.", _MODEL)
    ]
    epochs: Annotated[
        int | None,
        Option(
            "stages.epochs",
            "N",
            "Passes over the frames in every stage; with --resume, those of the longer run.",
            _TRAINING,
        ),
    ]
    batch_size: Annotated[int | None, Option("stages.batch_size", "N", "Frames per step of the optimizer.", _TRAINING)]
    patience: Annotated[
        int | None,
        Option("stages.patience", "N", "Validations without progress after which a stage ends.", _TRAINING),
    ]
    time_limit: Annotated[
        float | None,
        Option("stages.time_limit", "MINUTES", "Minutes after which a stage ends, its step size annealed.", _TRAINING),
    ]
    seed: Annotated[int | None, Option("seed", "N", "Seed of weights, split and shuffling.", _TRAINING)]
    watch: Annotated[
        Paths | None,
        Option(
            "watch",
            "FRAMES",
            "Frames whose errors are logged but not trained on, such as old frames with --from.",
            _DATA,
        ),
    ]
    cache: Annotated[
        str | os.PathLike[str] | None,
        Option("cache", "FOLDER", "Folder that keeps large sets on disk, prepared once for all runs.", _DATA),
    ]
    skip_unlabelled: Annotated[
        bool | None, Option("skip_unlabelled", "", "Leave out frames without any label, and count them.", _DATA)
    ]
    device: Annotated[str | None, Option("device", "NAME", "Device of torch: cpu, cuda, cuda:1.", _MACHINE)]
    dtype: Annotated[str | None, Option("dtype", "TYPE", "float32 or float64.", _MACHINE)]
    n_threads: Annotated[int | None, Option("n_threads", "N", "Threads of torch on the CPU.", _MACHINE, "--threads")]


def options() -> Iterator[tuple[str, Any, Option]]:
    """Yield keyword, type and description of each option."""
    for name, annotation in get_type_hints(TrainOptions, include_extras=True).items():
        kind, option = get_args(annotation)
        yield name, kind, option


def flag(name: str, option: Option) -> str:
    """Return the name of an option on the command line.

    >>> flag("batch_size", Option("stages.batch_size", "N", "", ""))
    '--batch-size'
    """
    return option.flag or f"--{name.replace('_', '-')}"


def option_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys and values of the options that are not None; TypeError suggests the nearest option.

    >>> option_keys({"epochs": 10, "cutoff": None})
    {'stages.epochs': 10}
    """
    keys = {name: option.key for name, _, option in options()}
    for name in values:
        if name not in keys:
            near = difflib.get_close_matches(name, keys, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "`settings` takes any key of the configuration"
            raise TypeError(f"train() got an unexpected keyword argument '{name:.80}'; {hint}")
    return {keys[name]: value for name, value in values.items() if value is not None}


def label_changes(keys: LabelKeys | None) -> dict[str, Any]:
    """Return dotted keys and values that name labels in all data sets."""
    named = {} if keys is None else keys.model_dump(exclude_none=True)
    return {f"data.*.keys.{label}": name for label, name in named.items()}


def with_options(
    signature: inspect.Signature, annotate: Callable[[str, Any, Option], Any] = lambda name, kind, option: kind
) -> inspect.Signature:
    """Return a signature with one keyword for each option in place of ``**options``.

    `annotate` returns the annotation of a keyword from its name, type and description.
    """
    explicit = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    spelled_out = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotate(name, kind, option))
        for name, kind, option in options()
    ]
    return signature.replace(parameters=[*explicit, *spelled_out])
