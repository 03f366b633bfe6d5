"""Configuration from the data arguments of `train` and ``lrc-ase train``: frames, two-scale sets, or a YAML file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lrc_ase.training.configuration import (
    ConfigurationError,
    TrainingConfiguration,
    load_configuration,
    parse_configuration,
)

__all__ = ["Paths", "absolute_paths", "as_configuration", "default_configuration"]

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

    Two-scale training has two stages (section 5 of doi:10.48550/arXiv.2010.05295). The first trains the short-range
    part on many small cells and leaves the long-range part at its initial weights. The second trains both parts on a
    few large cells. `validation` belongs to `files` or to `large`. Each argument is one path or several.
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
        {"data": "large", "batch_size": 1, "learning_rate": 3e-3},  # steps of one frame are noisy
    ]
    return parse_configuration({"data": data, "stages": stages})


def as_configuration(
    data: TrainingConfiguration | Paths,
    *,
    small: Paths = (),
    large: Paths = (),
    validation: Paths = (),
    short_range: bool = False,
) -> TrainingConfiguration:
    """Return `data` if it is a configuration, that of a YAML file, or the default configuration for files of frames."""
    paths = [] if isinstance(data, TrainingConfiguration) else absolute_paths(data)
    yaml = [path for path in paths if path.endswith((".yaml", ".yml"))]
    if not yaml and not isinstance(data, TrainingConfiguration):
        return default_configuration(paths, small=small, large=large, validation=validation, short_range=short_range)
    if len(paths) > 1 or any((small, large, validation)) or short_range:
        raise ConfigurationError("a configuration stands alone: name frames and validation in it")
    return data if isinstance(data, TrainingConfiguration) else load_configuration(yaml[0])


def absolute_paths(paths: Paths) -> list[str]:
    """Return one path or several as absolute paths."""
    several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    return [os.path.abspath(path) for path in several]
