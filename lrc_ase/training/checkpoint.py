"""Checkpoints: the state of a training run as tensors and JSON in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from lrc_ase.files.bounded_json import first_mistake, json_object
from lrc_ase.files.tensors import TensorFileError, digest, read_tensors, write_tensors
from lrc_ase.training.progress import Progress

__all__ = ["CheckpointError", "check_fit", "load_checkpoint", "save_checkpoint"]

FORMAT_VERSION = 3
HEADER_KEY = "lrc_ase_checkpoint"
DIGEST_KEY = "digest"
"""Metadata entry with the SHA-256 of values and tensors; absent from checkpoints of lrc-ase 0.1."""


class CheckpointError(ValueError):
    """Error about a checkpoint that is damaged, foreign, of another format, or does not fit the model."""


def save_checkpoint(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON `values` atomically. Floats come back bit-equal."""
    text = json.dumps({"format_version": FORMAT_VERSION, **values})
    write_tensors(path, tensors, {HEADER_KEY: text, DIGEST_KEY: digest(tensors, text)})


def load_checkpoint(
    path: str | os.PathLike[str], *, n_stages: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and values that `save_checkpoint` wrote.

    With `n_stages` the values must be `stage`, `progress` and `fingerprint` of a run with that number of stages.

    Raises
    ------
    CheckpointError
        The file is missing, truncated, changed after it was written, no checkpoint, of another format version, or holds
        other values; one line with file and key.
    """
    try:
        tensors, metadata = read_tensors(path)
    except TensorFileError as error:
        raise CheckpointError(str(error)) from error
    if HEADER_KEY not in metadata:
        raise CheckpointError(f"{path} is no checkpoint of lrc-ase")
    try:
        values = json_object(metadata[HEADER_KEY])
    except ValueError as error:
        raise CheckpointError(f"{path}: header: {error}") from error
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {version!r:.20}, this lrc-ase continues version {FORMAT_VERSION}: "
            "resume with the version of lrc-ase that began the run, or start anew"
        )
    if metadata.get(DIGEST_KEY) not in (None, digest(tensors, metadata[HEADER_KEY])):
        raise CheckpointError(
            f"{path} has changed since it was written: its digest does not fit its content; start anew"
        )
    if n_stages is not None:
        try:
            _check_run(values, n_stages)
        except ValueError as error:
            raise CheckpointError(f"{path}: header: {error}") from error
    return tensors, values


def check_fit(part: str, expected: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless names and shapes of the weights in a checkpoint are those of the model."""
    for name in sorted(expected.keys() | stored.keys()):
        shapes = [list(tensors[name].shape) if name in tensors else None for tensors in (expected, stored)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"the checkpoint does not fit the model: tensor '{part}.{name:.100}' must have shape {shapes[0]}, got "
                f"{shapes[1]}; resume with the configuration and the lrc-ase that began the run"
            )


class _RunValues(BaseModel):
    """JSON part of the checkpoint of a training run."""

    model_config = ConfigDict(strict=True, extra="forbid")

    stage: int = Field(ge=0)
    progress: dict[str, Any]
    fingerprint: str


def _check_run(values: Mapping[str, Any], n_stages: int) -> None:
    """Raise ValueError unless the values are those of a run with `n_stages` stages."""
    try:
        checked = _RunValues.model_validate(values)
    except ValidationError as error:
        raise ValueError(first_mistake(error)) from error
    if checked.stage >= n_stages:
        raise ValueError(f"stage: the run has {n_stages} stages, the checkpoint is of stage {checked.stage + 1}")
    Progress.from_json(checked.progress)
