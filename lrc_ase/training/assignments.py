"""Assignment of values to keys of a configuration, as by ``--set KEY=VALUE``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lrc_ase.training.configuration import ConfigurationError, TrainingConfiguration, parse_configuration
from lrc_ase.training.presets import without_preset_keys
from lrc_ase.training.yaml_reading import read_yaml

__all__ = ["changed_configuration", "parse_assignment"]


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
    changes = _plain(changes)  # a copy: keys are assigned inside of mappings that belong to the caller
    # whole sections before keys in them
    for key in sorted(changes, key=lambda key: (len(_parts(key)), key != "model.preset")):
        if key == "model.preset" or (key == "model" and isinstance(changes[key], str)):
            model = content.get("model") or {}
            # values of the configuration's own preset are plain values by now, and would win over those of the new one
            kept = model if isinstance(changes.get("model"), Mapping) else without_preset_keys(model)
            content["model"] = {**kept, "preset": changes[key]}
        else:
            _assign(content, _parts(key), changes[key], key)
    return parse_configuration(content, folder=os.curdir, source=source)


def _plain(value: Any) -> Any:
    """Return nested mappings and lists as new ones, with paths as text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


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
        if not rest:
            raise ConfigurationError(f"'{key:.80}' names whole entries: name a key in them, such as data.*.keys.energy")
        for item in content.values():
            _assign(item, rest, value, key)
    elif not rest:
        if key.endswith("descriptor.name") and content.get("name", "sphere") != value:
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
