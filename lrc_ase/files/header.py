"""The JSON header of a potential file, validated before anything is built from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lrc_ase.files.bounded_json import first_mistake, json_object
from lrc_ase.files.errors import PotentialFileError
from lrc_ase.files.upgrade import upgraded_settings
from lrc_ase.models import registry
from lrc_ase.models.settings import MOST_MEMBERS, ModelSettings
from lrc_ase.structures.domain import TrainingDomain

__all__ = ["FORMAT_VERSION", "HEADER_KEY", "UNITS", "PotentialHeader", "parse_header", "signed_text"]

FORMAT_VERSION = 5
"""Version of files that are written. Earlier ones are read too: until 3 without a digest; otherwise see `upgrade`."""
FIRST_WITH_DIGEST = 4
HEADER_KEY = "lrc_ase"
UNITS = {"energy": "eV", "length": "Angstrom", "charge": "e"}

_ShortText = Annotated[str, StringConstraints(max_length=1000)]


class _Units(BaseModel):
    """Units of the numbers in the file; a file with other units is refused."""

    model_config = ConfigDict(extra="forbid")

    energy: Literal["eV"]
    length: Literal["Angstrom"]
    charge: Literal["e"]


class _Description(BaseModel):
    """Entries of the description that lrc-ase reads; other entries are allowed and ignored."""

    model_config = ConfigDict(extra="allow")

    remarks: list[str] = []


class PotentialHeader(BaseModel):
    """Header of a potential file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Annotated[int, Field(strict=True, ge=1, le=FORMAT_VERSION)]
    model: dict[str, Any]
    """Settings of the model, not yet validated."""
    n_members: Annotated[int, Field(strict=True, ge=1, le=MOST_MEMBERS)] = 1
    """Number of members of an ensemble."""
    units: _Units
    versions: dict[_ShortText, _ShortText] = {}
    """Versions of the packages that wrote the file."""
    description: dict[str, Any]
    """Facts about the training, as JSON values."""
    digest: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    """SHA-256 of header and tensors; see `signed_text`."""

    def settings(self) -> ModelSettings:
        """Return the validated settings of the model; ValueError in one line for any mistake."""
        try:
            return ModelSettings.model_validate(upgraded_settings(self.model, self.format_version))
        except ValidationError as error:
            raise ValueError(
                f"holds model settings that this lrc-ase does not know: {first_mistake(error, 'model')}"
            ) from error


def parse_header(path: object, metadata: Mapping[str, str]) -> tuple[PotentialHeader, ModelSettings]:
    """Validate the header of the potential file `path`.

    Raises
    ------
    PotentialFileError
        In one line with file and key: no header, a later format, a missing plug-in, a number out of bounds, a
        description that cannot be used.
    """
    if HEADER_KEY not in metadata:
        raise PotentialFileError(
            f"{path} is a safetensors file but no potential of lrc-ase: its header lacks the entry '{HEADER_KEY}'"
        )
    try:
        content = json_object(metadata[HEADER_KEY])
    except ValueError as error:
        raise PotentialFileError(f"{path}: header: {error}") from error
    _check_version(path, content)
    try:
        header = PotentialHeader.model_validate(content)
        _Description.model_validate(header.description)
    except ValidationError as error:
        where = "description" if error.title == _Description.__name__ else ""
        raise PotentialFileError(f"{path}: header: {first_mistake(error, where)}") from error
    if header.digest is None and header.format_version >= FIRST_WITH_DIGEST:
        raise PotentialFileError(f"{path}: header: digest: expected one since format version {FIRST_WITH_DIGEST}")
    _check_descriptor(path, header)
    try:
        settings = header.settings()
    except ValueError as error:
        raise PotentialFileError(f"{path} {error}") from error
    try:
        TrainingDomain.from_description(header.description, settings.elements)
    except ValueError as error:
        raise PotentialFileError(f"{path}: header: description.{error}") from error
    return header, settings


def signed_text(content: Mapping[str, Any]) -> str:
    """Return the text of the header that enters the digest: all entries but the digest itself, keys sorted."""
    return json.dumps({key: value for key, value in content.items() if key != "digest"}, sort_keys=True)


def _check_version(path: object, content: Mapping[str, Any]) -> None:
    """Raise PotentialFileError for a later format, whose unknown entries would otherwise be reported first."""
    version = content.get("format_version")
    if not isinstance(version, int) or version <= FORMAT_VERSION:
        return
    versions = content.get("versions")
    writer = versions.get("lrc_ase", "unknown") if isinstance(versions, dict) else "unknown"
    raise PotentialFileError(
        f"{path} has format version {version}, written by lrc-ase {writer!s:.40}; this lrc-ase reads up to version "
        f"{FORMAT_VERSION}: upgrade with `pip install -U lrc-ase`"
    )


def _check_descriptor(path: object, header: PotentialHeader) -> None:
    """Raise PotentialFileError for a missing plug-in, whose unknown settings would otherwise be reported first."""
    descriptor = header.model.get("descriptor", {})
    name = descriptor.get("name", "sphere") if isinstance(descriptor, dict) else None
    if not isinstance(name, str) or name in registry.names():
        return  # validation of the settings reports a name that is no text
    origin = header.versions.get("descriptor")
    raise PotentialFileError(
        f"{path} needs the descriptor '{name:.100}', which is not part of lrc-ase and not installed here"
        + (f"; it was written with {origin}" if origin else "")
        + ": install its package, or import and register its class (`lrc_ase.models.descriptors.register`) "
        "before loading"
    )
