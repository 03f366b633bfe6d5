"""The state of a training run on disk: tensors and JSON in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lrc_ase.files.potential_file import read_tensors, write_tensors

__all__ = ["CheckpointError", "load_checkpoint", "save_checkpoint"]

FORMAT_VERSION = 3
HEADER_KEY = "lrc_ase_checkpoint"


class CheckpointError(ValueError):
    """A checkpoint that is damaged, foreign, of another format, or does not fit the model."""


def save_checkpoint(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON `values`. Floats come back bit-equal."""
    write_tensors(path, tensors, {HEADER_KEY: json.dumps({"format_version": FORMAT_VERSION, **values})})


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote."""
    try:
        tensors, metadata = read_tensors(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if HEADER_KEY not in metadata:
        raise CheckpointError(f"{path} is no checkpoint of lrc-ase")
    values = json.loads(metadata[HEADER_KEY])
    found = values.pop("format_version")
    if found != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {found}, this lrc-ase continues version {FORMAT_VERSION}: "
            "resume with the version of lrc-ase that began the run, or start anew"
        )
    return tensors, values
