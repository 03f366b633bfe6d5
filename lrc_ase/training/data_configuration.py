"""Configuration of the data sets of a training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lrc_ase.dataset import LabelKeys
from lrc_ase.models.settings import Settings

__all__ = ["DataSetConfiguration", "DataSets", "OneOrMany", "TrainFile"]


def _one_or_many(value: Any) -> Any:
    """Return a single item as a list of one, and none as an empty one."""
    if value is None:
        return []
    return [value] if isinstance(value, (str, os.PathLike, Mapping)) else value


class TrainFile(Settings):
    """A file, a wildcard pattern or an ASE slice of a file (``frames.traj@::10``) with labelled frames."""

    path: str
    """Any format of ASE. Relative paths start from the folder of the configuration file."""
    weight: float = Field(1.0, ge=0)
    """Factor of the loss of these frames."""


def _train_file(value: Any) -> Any:
    """Return the settings of a file for which only the path is named."""
    return {"path": os.fspath(value)} if isinstance(value, (str, os.PathLike)) else value


class DataSetConfiguration(Settings):
    """Frames to which stages refer by one name."""

    train: Annotated[tuple[Annotated[TrainFile, BeforeValidator(_train_file)], ...], BeforeValidator(_one_or_many)] = (
        Field(min_length=1)
    )
    """Files to train on: paths, or `path` and `weight` each."""
    validation: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = ()
    """Files to validate on. Empty: a part of the training frames is set aside."""
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    """Part of the training frames set aside for validation, where `validation` names no file: at random, or in blocks
    with gaps where frames are consecutive pieces of a trajectory. The log says which."""
    keys: LabelKeys = LabelKeys()
    """Names of the labels in the files; common names are tried unless one is given."""
    config_type_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Weights by ``info["config_type"]``; each multiplies the loss of the training frames of that type."""


def _data_set(value: Any) -> Any:
    """Return the settings of a data set for which only files are named."""
    return {"train": value} if isinstance(value, (str, os.PathLike, list, tuple)) else value


_HELD_OUT = ("test", "validation", "val", "valid", "watch")  # not names of data sets to train on


def _data_sets(value: Any) -> Any:
    """Return data sets by name; files alone, or the keys of a single data set, become the set `frames`."""
    if isinstance(value, (str, os.PathLike, list, tuple)):
        return {"frames": {"train": value}}
    if not isinstance(value, Mapping):
        return value
    files = value.get("train")
    if value.keys() <= DataSetConfiguration.model_fields.keys() and files is not None:
        # `train` is a key of a data set, but may also be the name of one
        return value if isinstance(files, Mapping) and "train" in files else {"frames": value}
    if names := [name for name in value if name in _HELD_OUT]:
        raise ValueError(
            f"'{names[0]}' would be one more data set to train on: files to validate on are `data: {{train: ..., "
            "validation: ...}`, files that no training sees `test: ...` beside `data`"
        )
    return value


DataSets = Annotated[
    dict[str, Annotated[DataSetConfiguration, BeforeValidator(_data_set)]], BeforeValidator(_data_sets)
]
"""Data sets by name, or what stands for them in a file."""
OneOrMany = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
"""Several texts, or one."""
