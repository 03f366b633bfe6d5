"""The potential file: one safetensors file with the weights and a versioned JSON header.

Layout: tensors ``model.<name>`` (the model's parameters and buffers; of an ensemble ``model.members.<number>.<name>``)
and ``references`` (float64, one energy per element); the header's metadata key ``lrc_ase`` holds a JSON object with the
format version, the model settings, units, the versions that wrote it and a free description. Loading reads numbers and
JSON only: nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.errors import PotentialFileError
from lrc_ase.files.pretrained import find_potential
from lrc_ase.files.upgrade import upgraded
from lrc_ase.models import registry
from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.model import ShortRangeModel, build_model
from lrc_ase.models.precision import floating_type
from lrc_ase.models.settings import ModelSettings, descriptor_names

__all__ = ["FORMAT_VERSION", "Potential", "PotentialFileError", "load_potential", "save_potential"]

FORMAT_VERSION = 3
"""Of files that are written; earlier ones are read, see `potential_upgrade`."""
HEADER_KEY = "lrc_ase"
UNITS = {"energy": "eV", "length": "Angstrom", "charge": "e"}


@dataclass(frozen=True)
class Potential:
    """A trained model with what is needed to use it."""

    model: ShortRangeModel
    """Predicts energies without element references; carries its `settings`. May be an `Ensemble`."""
    references: Tensor
    """Energy of each element in eV, float64 (n_elements,), in the order of `model.settings.elements`."""
    description: dict[str, Any] = field(default_factory=dict)
    """Anything worth knowing about the training, as JSON values."""

    @property
    def settings(self) -> ModelSettings:
        """Settings the model was built from."""
        return self.model.settings

    @property
    def n_members(self) -> int:
        """Models in it: more than one for an ensemble."""
        return len(members_of(self.model))

    def for_evaluation(self, device: torch.device | str, dtype: torch.dtype | str) -> Potential:
        """A copy on `device`, its model in `dtype` and without gradients by parameters."""
        model = deepcopy(self.model).to(device=device, dtype=floating_type(dtype)).requires_grad_(False)
        return Potential(model, self.references.to(device=device, dtype=torch.float64), deepcopy(self.description))


def save_potential(path: str | os.PathLike[str], potential: Potential) -> None:
    """Write `potential` to `path` atomically: an interruption leaves the old file or the new one, never half of it."""
    settings = potential.settings
    if potential.references.shape != (len(settings.elements),):
        raise ValueError(
            f"`references` must have one energy per element of {settings.elements}, "
            f"got a tensor with shape {list(potential.references.shape)}"
        )
    tensors = {f"model.{name}": tensor for name, tensor in potential.model.state_dict().items()}
    tensors["references"] = potential.references.to(torch.float64)
    header = {
        "format_version": FORMAT_VERSION,
        "model": settings.model_dump(mode="json"),
        **({} if potential.n_members == 1 else {"n_members": potential.n_members}),
        "units": UNITS,
        "versions": {
            "lrc_ase": _package_version(),
            "torch": torch.__version__,
            **({} if (plug_in := registry.origin(settings.descriptor.name)) is None else {"descriptor": plug_in}),
        },
        "description": potential.description,
    }
    write_tensors(path, tensors, {HEADER_KEY: json.dumps(header)})


def load_potential(
    name_or_path: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
) -> Potential:
    """Read a potential.

    Parameters
    ----------
    name_or_path
        File written by `save_potential`, folder of a training run, or name of a shipped potential; see
        `lrc_ase.files.pretrained.find_potential`.
    device
        Where the model is put. The references stay on the CPU.
    dtype
        torch.float32 or torch.float64, or its name; None keeps the type of the file.

    Raises
    ------
    PotentialFileError
        The file is missing, truncated, no potential of lrc-ase, written by a newer version, or its tensors do not fit
        its settings.
    """
    dtype = None if dtype is None else floating_type(dtype)
    path = find_potential(name_or_path)
    tensors, metadata = read_tensors(path)
    if HEADER_KEY not in metadata:
        raise PotentialFileError(
            f"{path} is a safetensors file but no potential of lrc-ase: its header lacks the entry '{HEADER_KEY}'"
        )
    header = json.loads(metadata[HEADER_KEY])
    if header["format_version"] > FORMAT_VERSION:
        raise PotentialFileError(
            f"{path} has format version {header['format_version']}, written by lrc-ase "
            f"{header.get('versions', {}).get('lrc_ase', 'unknown')}; this lrc-ase reads up to version "
            f"{FORMAT_VERSION}: upgrade with `pip install -U lrc-ase`"
        )
    _check_descriptor(path, header)
    try:
        settings = ModelSettings.model_validate(header["model"])
    except ValidationError as error:
        raise PotentialFileError(f"{path} holds model settings that this lrc-ase does not know: {error}") from error
    references = tensors.pop("references", None)
    if references is None or references.shape != (len(settings.elements),):
        raise PotentialFileError(f"{path} lacks the tensor 'references' with one energy per element")
    members = [build_model(settings) for _ in range(header.get("n_members", 1))]
    model = members[0] if len(members) == 1 else Ensemble(members)
    weights = {
        name.removeprefix("model."): tensor
        for name, tensor in upgraded(tensors, header["format_version"], settings.descriptor).items()
    }
    _check_tensors(path, model.state_dict(), weights)
    stored_dtype = next((tensor.dtype for tensor in weights.values() if tensor.is_floating_point()), torch.float32)
    model.to(stored_dtype)
    model.load_state_dict(weights)
    model.to(device=device, dtype=dtype).eval()
    return Potential(model, references.to(torch.float64), header["description"])


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically."""
    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(own, dict(metadata)))


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header metadata of a safetensors file; `PotentialFileError` when it is none."""
    if not Path(path).is_file():
        raise PotentialFileError(f"{path} does not exist or is not a file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise PotentialFileError(f"{path} is truncated or no safetensors file ({error})") from error


def _check_descriptor(path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
    """Say plainly that a plug-in is missing, before all other complaints."""
    name = header["model"].get("descriptor", {}).get("name", "sphere")
    if name in descriptor_names():
        return
    origin = header.get("versions", {}).get("descriptor")
    raise PotentialFileError(
        f"{path} needs the descriptor '{name}', which is not part of lrc-ase and not installed here"
        + (f"; it was written with {origin}" if origin else "")
        + ": install its package, or import and register its class (`lrc_ase.models.descriptors.register`) "
        "before loading"
    )


def _check_tensors(path: str | os.PathLike[str], expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise PotentialFileError(f"{path} lacks the tensors {missing}")
    surplus = sorted(found.keys() - expected.keys())
    if surplus:
        raise PotentialFileError(f"{path} holds tensors that its model does not have: {surplus}")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise PotentialFileError(
                f"{path}: tensor '{name}' must have shape {list(tensor.shape)}, got {list(found[name].shape)}"
            )


def _package_version() -> str:
    try:
        return version("lrc-ase")
    except PackageNotFoundError:
        return "unknown"
