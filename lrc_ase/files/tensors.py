"""Safetensors files: written atomically, and read without memory maps, so that a file may change meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.bounded_json import first_mistake, json_object

__all__ = ["TensorFileError", "digest", "read_tensors", "write_tensors"]

_LENGTH_BYTES = 8
_LARGEST_HEADER = 2**24
"""Largest number of bytes of a header. Checkpoints of large ensembles have some megabytes of names."""
_METADATA = TypeAdapter(dict[str, str])


class TensorFileError(ValueError):
    """Error about a file that is missing, truncated, or no safetensors file."""


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and header metadata of a safetensors file; later changes of the file do not reach the tensors.

    The library checks that the tensors fill the file without gaps and overlaps, so that a header cannot claim more
    memory than the file has bytes.

    Raises
    ------
    TensorFileError
        The file is missing, truncated, or no safetensors file.
    OSError
        The file cannot be read.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise TensorFileError(f"{path} does not exist or is not a file")
    with path.open("rb") as file:
        length = file.read(_LENGTH_BYTES)
        n_header = int.from_bytes(length, "little")
        if len(length) < _LENGTH_BYTES or n_header > os.fstat(file.fileno()).st_size - _LENGTH_BYTES:
            raise _damaged(path, "its header is longer than the file")
        header = file.read(min(n_header, _LARGEST_HEADER + 1))
        try:
            content = json_object(header.decode("utf-8"), largest=_LARGEST_HEADER)
            metadata = _METADATA.validate_python(content.get("__metadata__") or {}, strict=True)
            return safetensors.torch.load(length + header + file.read()), metadata
        except ValidationError as error:
            raise _damaged(path, f"header: {first_mistake(error, '__metadata__')}") from error
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise _damaged(path, str(error)) from error


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically."""
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(copies, dict(metadata)))


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return the SHA-256 of `text` and of names, types, shapes and bytes of the tensors, as hexadecimal digits."""
    total = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        total.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode("utf-8", "surrogatepass"))
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def _damaged(path: Path, reason: str) -> TensorFileError:
    """Return the error about a damaged file, for the caller to raise."""
    return TensorFileError(f"{path} is truncated or no safetensors file ({reason})")
