"""Safetensors files: written atomically, read without memory maps, checked before their tensors are loaded."""

from __future__ import annotations

import hashlib
import os
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.bounded_json import first_mistake, json_object

__all__ = ["TensorFile", "TensorFileError", "digest", "open_tensors", "read_tensors", "write_tensors"]

_LENGTH_BYTES = 8
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}
"""Element types that potentials and checkpoints may hold, and their sizes."""
_MOST_DIMENSIONS = 16
_LARGEST_HEADER = 2**24
"""Largest number of bytes of a header. Checkpoints of large ensembles have some megabytes of names."""


class TensorFileError(ValueError):
    """Error about a file that is missing, truncated, or no safetensors file."""


class _Entry(BaseModel):
    """Entry of the header about one tensor."""

    model_config = ConfigDict(strict=True, extra="forbid")

    dtype: str
    shape: list[int] = Field(max_length=_MOST_DIMENSIONS)
    data_offsets: list[int] = Field(min_length=2, max_length=2)


class TensorFile:
    """Open safetensors file whose header has been read and compared with the size of the file."""

    def __init__(self, path: Path, file: IO[bytes], header: bytes, content: Mapping[str, Any]) -> None:
        self.path, self._file, self._header = path, file, header
        self.metadata: dict[str, str] = content.get("__metadata__") or {}
        """Texts of the header by name, not interpreted here."""
        entries = {name: entry for name, entry in content.items() if name != "__metadata__"}
        try:
            TypeAdapter(dict[str, str]).validate_python(self.metadata, strict=True)
            self._entries = {name: _Entry.model_validate(entry) for name, entry in entries.items()}
        except ValidationError as error:
            raise _damaged(path, f"header: {first_mistake(error)}") from error
        self._n_bytes = self._check_sizes()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor by name."""
        return {name: tuple(entry.shape) for name, entry in self._entries.items()}

    @property
    def n_numbers(self) -> int:
        """Return the number of elements of all tensors together."""
        return sum(prod(entry.shape) for entry in self._entries.values())

    def read(self) -> dict[str, Tensor]:
        """Read the tensors into memory; later changes of the file do not reach them."""
        try:
            return safetensors.torch.load(self._header + self._file.read(self._n_bytes))
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise _damaged(self.path, str(error)) from error

    def _check_sizes(self) -> int:
        """Return the number of bytes of all tensors, which must fill the rest of the file exactly."""
        # tensors without gaps and overlaps: a header cannot claim more memory than the file has bytes
        end = 0
        for name, entry in sorted(self._entries.items(), key=lambda item: item[1].data_offsets):
            if entry.dtype not in _BITS or min(entry.shape, default=0) < 0:
                raise _damaged(self.path, f"tensor {reprlib.repr(name)} of type {entry.dtype!r:.20}")
            size = prod(entry.shape) * _BITS[entry.dtype] // 8
            if entry.data_offsets != [end, end + size]:
                raise _damaged(self.path, f"tensor {reprlib.repr(name)} does not follow the one before it")
            end += size
        expected = len(self._header) + end
        if (actual := os.fstat(self._file.fileno()).st_size) != expected:
            raise _damaged(self.path, f"{actual} bytes, expected {expected}")
        return end


@contextmanager
def open_tensors(path: str | os.PathLike[str]) -> Iterator[TensorFile]:
    """Open a safetensors file and check its header against its size, before any tensor is read.

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
        size = os.fstat(file.fileno()).st_size
        length = file.read(_LENGTH_BYTES)
        n_header = int.from_bytes(length, "little")
        if len(length) < _LENGTH_BYTES or n_header > size - _LENGTH_BYTES:
            raise _damaged(path, "its header is longer than the file")
        header = file.read(min(n_header, _LARGEST_HEADER + 1))
        try:
            content = json_object(header.decode("utf-8"), largest=_LARGEST_HEADER)
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        yield TensorFile(path, file, length + header, content)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and header metadata of a safetensors file; see `open_tensors` for the errors."""
    with open_tensors(path) as file:
        return file.read(), file.metadata


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
