"""Conversion of the arguments of `train` and ``lrc-ase train`` to a configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lrc_ase.dataset import LabelKeys
from lrc_ase.files.pretrained import absolute_potential
from lrc_ase.training.configuration import (
    ConfigurationError,
    TrainingConfiguration,
    load_configuration,
    parse_configuration,
)
from lrc_ase.training.yaml_reading import read_yaml

__all__ = [
    "Paths",
    "absolute_paths",
    "as_configuration",
    "changed_configuration",
    "default_configuration",
    "option_keys",
    "parse_assignment",
]

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""One path or several."""


def default_configuration(
    files: Paths = (),
    *,
    small: Paths = (),
    large: Paths = (),
    validation: Paths = (),
    short_range: bool = False,
) -> TrainingConfiguration:
    """Return a configuration with defaults, for one stage on `files` or two-scale training on `small` and `large`.

    Two-scale training (section 5 of doi:10.48550/arXiv.2010.05295) trains the short-range part on many small cells
    while the long-range part keeps its initial weights, then both parts on a few large cells. `validation` belongs to
    `files` or to `large`. Each argument is one path or several.
    """
    files, small, large, validation = (absolute_paths(paths) for paths in (files, small, large, validation))
    if bool(files) == bool(small or large):
        raise ConfigurationError("training needs either data files, or both small and large ones")
    if files:
        model = "short-range" if short_range else "full-range"
        data_sets = {"frames": {"train": files, "validation": validation}}
        return parse_configuration({"data": data_sets, "stages": [{"model": model}]})
    if not (small and large) or short_range:
        raise ConfigurationError("two-scale training needs small and large files and ends in a full-range model")
    data = {
        "small": {"train": small},
        "large": {"train": large, "validation": validation},
    }
    stages = [
        {"data": "small", "train": "short-range-part"},
        {"data": "large", "batch_size": 1},
    ]
    return parse_configuration({"data": data, "stages": stages})


def as_configuration(
    data: TrainingConfiguration | Paths, *, validation: Paths = (), short_range: bool = False
) -> TrainingConfiguration:
    """Return `data` if it is a configuration, that of a YAML file, or the default configuration for files of frames."""
    paths = [] if isinstance(data, TrainingConfiguration) else absolute_paths(data)
    yaml = [path for path in paths if path.endswith((".yaml", ".yml"))]
    if paths and not yaml:
        return default_configuration(paths, validation=validation, short_range=short_range)
    if validation or short_range or len(paths) > 1:
        raise ConfigurationError("a configuration stands alone: name frames and validation in it")
    return data if isinstance(data, TrainingConfiguration) else load_configuration(yaml[0])


def absolute_paths(paths: Paths) -> list[str]:
    """Return one path or several as absolute paths."""
    several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    return [os.path.abspath(path) for path in several]


def option_keys(
    *,
    cutoff: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    patience: int | None = None,
    time_limit: float | None = None,
    ensemble: int | None = None,
    start: str | os.PathLike[str] | None = None,
    watch: Paths | None = None,
    test: Paths | None = None,
    cache: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    n_threads: int | None = None,
    keys: LabelKeys | None = None,
    skip_unlabelled: bool | None = None,
) -> dict[str, Any]:
    """Return dotted keys and values of the options of ``lrc-ase train`` and `train` that are not None."""
    values: dict[str, Any] = {
        "model.cutoff": cutoff,
        "stages.epochs": epochs,
        "stages.batch_size": batch_size,
        "stages.patience": patience,
        "stages.time_limit": time_limit,
        "ensemble": ensemble,
        "start": None if start is None else absolute_potential(start, os.curdir),
        "watch": None if watch is None else absolute_paths(watch),
        "test": None if test is None else absolute_paths(test),
        "cache": None if cache is None else os.path.abspath(cache),
        "seed": seed,
        "device": device,
        "dtype": dtype,
        "n_threads": n_threads,
        "skip_unlabelled": skip_unlabelled,
    }
    named = {} if keys is None else keys.model_dump(exclude_none=True)
    values |= {f"data.*.keys.{label}": name for label, name in named.items()}
    return {key: value for key, value in values.items() if value is not None}


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``KEY=VALUE``, the value in YAML.

    >>> parse_assignment("stages.loss.energy=5")
    ('stages.loss.energy', 5)
    >>> parse_assignment("model.hidden=[64, 64]")
    ('model.hidden', [64, 64])
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(f"--set needs KEY=VALUE, such as stages.loss.energy=5, got '{text:.80}'")
    try:
        return key.strip(), read_yaml(value)
    except ValueError as error:
        raise ConfigurationError(f"--set {key.strip():.80}: the value {error}") from error


def changed_configuration(
    configuration: TrainingConfiguration, changes: Mapping[str, Any], *, source: str = "command line"
) -> TrainingConfiguration:
    """Return a configuration with values replaced by dotted keys.

    Keys are written as in error messages: ``model.cutoff``, ``stages[0].epochs``, ``data.frames.keys.energy``. The name
    of a stage may replace its index (``stages.full-range.epochs``). Without either the key holds for all stages
    (``stages.epochs``). ``*`` stands for every data set (``data.*.keys.energy``). Relative paths start from the working
    folder.

    Raises
    ------
    ConfigurationError
        A key is unknown (the message names the nearest one), or its value is not valid.
    """
    content = configuration.model_dump(mode="json", exclude_unset=True)
    # whole sections before keys in them
    for key in sorted(changes, key=lambda key: len(_parts(key))):
        _assign(content, _parts(key), _absolute(key, changes[key]), key)
    return parse_configuration(content, source=source)


def _parts(key: str) -> list[str]:
    """Split a dotted key.

    >>> _parts("stages[0].loss.energy")
    ['stages', '0', 'loss', 'energy']
    """
    # "[...]" is how messages write any index: all entries
    parts = re.sub(r"\[([^\[\]]*)\]", r".\1", key.replace("[...]", "")).split(".")
    if not all(parts):
        raise ConfigurationError(f"'{key:.80}' is no key: expected names with dots between, such as model.cutoff")
    return parts


def _assign(content: Any, parts: Sequence[str], value: Any, key: str) -> None:
    """Set a value inside nested mappings and lists; absent mappings on the way are created."""
    first, rest = parts[0], parts[1:]
    if isinstance(content, list):  # stages or files: one by index or name, or all
        items, rest = _chosen(content, parts, key)
        if not rest and items is not content:
            raise ConfigurationError(f"'{key:.80}' names a whole entry of a list: name a key in it")
        for item in items:
            _assign(item, rest, value, key)
    elif not isinstance(content, dict):
        raise ConfigurationError(f"'{key:.80}': there is nothing below a plain value")
    elif first == "*":
        for item in content.values():
            _assign(item, rest, value, key)
    elif not rest:
        if key.endswith("descriptor.name") and content.get("name") != value:
            content.clear()  # settings of another descriptor
        content[first] = value
    else:
        if content.get(first) is None:
            content[first] = {}
        _assign(content[first], rest, value, key)


def _chosen(items: list[Any], parts: Sequence[str], key: str) -> tuple[list[Any], Sequence[str]]:
    """Return the items of a list that the first part of a key selects, and the remaining parts of the key."""
    first = parts[0]
    if first.isdecimal():
        if int(first) >= len(items):
            raise ConfigurationError(f"'{key:.80}': there are only {len(items)} entries, counted from 0")
        return [items[int(first)]], parts[1:]
    named = [item for item in items if isinstance(item, Mapping) and item.get("name") == first]
    return (named, parts[1:]) if named else (items, parts)


_PATHS = ("cache", "watch", "test", "train", "validation", "path")


def _absolute(key: str, value: Any) -> Any:
    """Make the paths in the value of a key that holds paths absolute."""
    if key == "start" and value is not None:
        return absolute_potential(value, os.curdir)
    if key.rsplit(".", 1)[-1] not in _PATHS or key.startswith("stages"):
        return value
    if isinstance(value, (str, os.PathLike)):
        return os.path.abspath(value)
    return [os.path.abspath(item) if isinstance(item, (str, os.PathLike)) else item for item in value or ()]
