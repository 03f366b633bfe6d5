"""The potential file: one safetensors file with the weights and a versioned JSON header.

Layout: tensors ``model.<name>`` (the model's parameters and buffers; of an ensemble ``model.members.<number>.<name>``)
and ``references`` (float64, one energy per element); the header's metadata key ``lrc_ase`` holds a JSON object, see
`lrc_ase.files.header.PotentialHeader`. Loading reads numbers and JSON only: nothing is pickled, and nothing is built
before header and shapes of the tensors have been compared.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from lrc_ase.files.errors import PotentialFileError
from lrc_ase.files.header import FORMAT_VERSION, HEADER_KEY, UNITS, PotentialHeader, parse_header, signed_text
from lrc_ase.files.limited_construction import LargerThanFileError, limited_construction
from lrc_ase.files.pretrained import find_potential, stored_name
from lrc_ase.files.tensors import TensorFileError, digest, read_tensors, write_tensors
from lrc_ase.files.upgrade import upgraded
from lrc_ase.models import registry
from lrc_ase.models.devices import usable_device
from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.model import ShortRangeModel, build_model
from lrc_ase.models.precision import floating_type
from lrc_ase.models.settings import ModelSettings
from lrc_ase.models.torch_state import undisturbed

__all__ = ["Potential", "PotentialFileError", "check_potential", "load_potential", "save_potential"]

_TYPES = (torch.float32, torch.float64)
"""Floating-point types of the weights."""


@dataclass(frozen=True)
class Potential:
    """Trained model with the energy references of its elements and a description of the training."""

    model: ShortRangeModel
    """Predicts energies without element references; carries its `settings`. May be an `Ensemble`."""
    references: Tensor
    """Energy of each element in eV, float64 (n_elements,), in the order of `model.settings.elements`."""
    description: dict[str, Any] = field(default_factory=dict)
    """Facts about the training, as JSON values."""
    source: str | None = None
    """File from which the potential was loaded, as absolute path, or name of a shipped potential; None in memory."""

    def __repr__(self) -> str:
        settings = self.settings
        kind = "short-range" if settings.long_range is None else "full-range"
        members = f"{self.n_members} members, " if self.n_members > 1 else ""
        return f"Potential({kind}, {members}{' '.join(settings.elements)}, cutoff {settings.cutoff:g} Angstrom)"

    @property
    def settings(self) -> ModelSettings:
        """Return the settings that the model was built from."""
        return self.model.settings

    @property
    def n_members(self) -> int:
        """Return the number of models: more than one for an ensemble."""
        return len(members_of(self.model))

    @undisturbed()
    def for_evaluation(self, device: torch.device | str, dtype: torch.dtype | str) -> Potential:
        """Return a copy on `device` with the model in `dtype` and parameters that need no gradients."""
        device = usable_device(device)
        model = deepcopy(self.model).to(device=device, dtype=floating_type(dtype)).requires_grad_(False)
        references = self.references.to(device=device, dtype=torch.float64, copy=True)
        return replace(self, model=model, references=references, description=deepcopy(self.description))

    def digest(self) -> str:
        """Return the SHA-256 of settings, weights and references: equal for potentials that predict the same."""
        return digest(_stored_tensors(self), self.settings.model_dump_json())


def save_potential(path: str | os.PathLike[str], potential: Potential) -> None:
    """Write `potential` to `path` atomically: an interruption leaves the old file or the new one, never half of it.

    Raises
    ------
    ValueError
        `load_potential` could not read the file: references do not fit the elements, weights are not finite, the
        description is no JSON, or its training domain is invalid.
    """
    check_potential(potential)
    settings = potential.settings
    if potential.references.shape != (len(settings.elements),):
        raise ValueError(
            f"`references` must have one energy per element of {settings.elements}, "
            f"got a tensor with shape {list(potential.references.shape)}"
        )
    tensors = _stored_tensors(potential)
    header: dict[str, Any] = {
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
    header = json.loads(json.dumps(header))  # as JSON stores it: tuples become lists
    metadata = {HEADER_KEY: json.dumps(header | {"digest": digest(tensors, signed_text(header))})}
    parse_header(path, metadata)
    _check_finite(path, tensors)
    write_tensors(path, tensors, metadata)


def check_potential(potential: object) -> None:
    """Raise a `TypeError` for anything but a loaded `Potential`, such as the path of one."""
    if not isinstance(potential, Potential):
        raise TypeError(f"`potential` must be a Potential, got {type(potential).__name__}: `load_potential` reads one")


@undisturbed()
def load_potential(
    name_or_path: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
) -> Potential:
    """Read a potential from a file, a run folder, or the potentials that are shipped.

    Parameters
    ----------
    name_or_path
        File written by `save_potential`, folder of a training run, or name of a shipped potential; see
        `lrc_ase.files.pretrained.find_potential`.
    device
        Device of the model. The references stay on the CPU.
    dtype
        torch.float32 or torch.float64, or its name; None keeps the type of the file.

    Raises
    ------
    PotentialFileError
        The file is missing, truncated, changed after it was written, or no potential of lrc-ase. A newer version wrote
        it, an entry of its header is out of bounds, or its tensors do not fit its settings.
    ValueError
        `device` cannot be used here, or `dtype` is none of the two.
    """
    device = usable_device(device)
    dtype = None if dtype is None else floating_type(dtype)
    path = find_potential(name_or_path)
    try:
        tensors, metadata = read_tensors(path)
    except TensorFileError as error:
        raise PotentialFileError(str(error)) from error
    header, settings = parse_header(path, metadata)
    first_member = _build_within(path, sum(tensor.numel() for tensor in tensors.values()), header, settings)
    if header.digest not in (None, digest(tensors, signed_text(json.loads(metadata[HEADER_KEY])))):
        raise PotentialFileError(
            f"{path} has changed since it was written: its digest does not fit its content; copy it anew"
        )
    references = tensors.pop("references", None)
    if references is None or references.shape != (len(settings.elements),) or references.dtype not in _TYPES:
        raise PotentialFileError(f"{path} lacks the tensor 'references' with one energy per element")
    try:
        weights = upgraded(tensors, header.format_version, settings)
    except ValueError as error:
        raise PotentialFileError(f"{path}: {error}") from error
    weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    _check_tensors(path, _expected(first_member, header.n_members), weights)
    _check_finite(path, weights | {"references": references})
    # the number of members is trusted now: the file holds the tensors of all of them
    members = [first_member, *(build_model(settings) for _ in range(header.n_members - 1))]
    model = members[0] if len(members) == 1 else Ensemble(members)
    stored_dtype = next((tensor.dtype for tensor in weights.values() if tensor.is_floating_point()), torch.float32)
    model.to(stored_dtype)
    model.load_state_dict(weights)
    model.to(device=device, dtype=dtype).eval()
    return Potential(model, references.to(torch.float64), header.description, stored_name(path))


def _stored_tensors(potential: Potential) -> dict[str, Tensor]:
    """Return the tensors of a potential under their names in the file."""
    tensors = {f"model.{name}": tensor for name, tensor in potential.model.state_dict().items()}
    return tensors | {"references": potential.references.to(torch.float64)}


def _build_within(
    path: os.PathLike[str], n_numbers: int, header: PotentialHeader, settings: ModelSettings
) -> ShortRangeModel:
    """Build one member with random weights, unless it would need far more than the `n_numbers` of the file."""
    # until version 2 (see `upgraded`) the file holds one tensor where the model has one for each element
    growth = 1 + len(settings.elements) if header.format_version <= 2 else 1
    try:
        with limited_construction(growth * n_numbers // header.n_members):
            return build_model(settings)
    except LargerThanFileError as error:
        raise PotentialFileError(
            f"{path} has settings of a model that is larger than its tensors: {n_numbers} numbers for "
            f"{header.n_members} member(s)"
        ) from error
    except ValueError as error:  # settings that exclude each other
        raise PotentialFileError(f"{path} has settings from which no model can be built: {error}") from error


def _expected(member: ShortRangeModel, n_members: int) -> dict[str, Tensor]:
    """Return names and tensors that the file must hold, from the one member that has been built."""
    if n_members == 1:
        return member.state_dict()
    # an ensemble also has tensors that belong to no member; two members suffice to list them
    shared = Ensemble([member, member]).state_dict()
    names = member.state_dict()
    return {name: tensor for name, tensor in shared.items() if not name.startswith("members.")} | {
        f"members.{index}.{name}": tensor for index in range(n_members) for name, tensor in names.items()
    }


def _check_tensors(path: str | os.PathLike[str], expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Raise PotentialFileError unless names, shapes and types of the `weights` are the `expected` ones."""
    if missing := sorted(expected.keys() - weights.keys()):
        raise PotentialFileError(f"{path} lacks the tensors {_some(missing)}")
    if surplus := sorted(weights.keys() - expected.keys()):
        raise PotentialFileError(f"{path} holds tensors that its model does not have: {_some(surplus)}")
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise PotentialFileError(
                f"{path}: tensor '{name}' must have shape {list(tensor.shape)}, got {list(weights[name].shape)}"
            )
        types = _TYPES if tensor.is_floating_point() else (tensor.dtype,)
        if weights[name].dtype not in types:
            raise PotentialFileError(f"{path}: tensor '{name}' must be {tensor.dtype}, got {weights[name].dtype}")


def _check_finite(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> None:
    """Raise PotentialFileError if a tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise PotentialFileError(f"{path}: tensor '{name}' holds numbers that are not finite")


def _some(names: list[str]) -> str:
    """Return at most five names as text, and the number of the others."""
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"


def _package_version() -> str:
    try:
        return version("lrc-ase")
    except PackageNotFoundError:
        return "unknown"
