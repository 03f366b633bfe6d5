"""Register descriptors, and build one from its settings."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import torch

from lrc_ase.models import registry
from lrc_ase.models.descriptors.base import Descriptor
from lrc_ase.models.settings import DescriptorSettings

__all__ = ["build_descriptor", "register"]


def register(kind: type[Descriptor]) -> type[Descriptor]:
    """Register a descriptor class under the name in its settings; usable as a class decorator.

    Every program that reads a configuration or potential file with that name must register the class first. An
    installed package needs no call: it declares an entry point ``name = "package.module:Class"`` in the group
    ``lrc_ase.descriptors``.

    Raises ValueError if the class, its `settings_class` or the name does not qualify.
    """
    if not (isinstance(kind, type) and issubclass(kind, Descriptor)):
        raise ValueError(f"a descriptor must be a subclass of `lrc_ase.models.descriptors.Descriptor`, got {kind!r}")
    settings_class = getattr(kind, "settings_class", None)
    if not (isinstance(settings_class, type) and issubclass(settings_class, DescriptorSettings)):
        raise ValueError(
            f"`{kind.__name__}.settings_class` must be a subclass of `lrc_ase.models.settings.DescriptorSettings`, "
            f"got {settings_class!r}"
        )
    field: Any = settings_class.model_fields["name"]
    if get_origin(field.annotation) is not Literal or get_args(field.annotation) != (field.default,):
        raise ValueError(
            f"`{settings_class.__name__}` must fix its name, as in `name: Literal['mine'] = 'mine'`, "
            f"got {field.annotation} with default {field.default!r}"
        )
    registry.add(field.default, kind)
    return kind


def build_descriptor(
    settings: DescriptorSettings,
    *,
    n_elements: int,
    cutoff: float,
    average_neighbors: float,
    generator: torch.Generator | None = None,
) -> Descriptor:
    """Return an untrained descriptor; arguments as in `Descriptor`."""
    kind = registry.descriptor_class(settings.name)
    built: Descriptor = kind(
        settings, n_elements=n_elements, cutoff=cutoff, average_neighbors=average_neighbors, generator=generator
    )
    return built
