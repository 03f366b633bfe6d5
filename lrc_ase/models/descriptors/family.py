"""Which descriptors there are, and how one is made from its settings."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import torch

from lrc_ase.models import registry
from lrc_ase.models.descriptors.base import Descriptor
from lrc_ase.models.descriptors.paper import PaperDescriptor
from lrc_ase.models.descriptors.ponita import PonitaDescriptor
from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.settings import DescriptorSettings, descriptor_settings_class

__all__ = ["build_descriptor", "descriptor_class", "register"]

_BUILT_IN: dict[str, type[Descriptor]] = {
    "sphere": SphereDescriptor,
    "ponita": PonitaDescriptor,
    "paper": PaperDescriptor,
}


def register(kind: type[Descriptor]) -> type[Descriptor]:
    """Make a descriptor of one's own known by the name in its settings; may decorate the class.

    Each program that reads a configuration or a potential file with that name has to do so first. An installed package
    does without, by an entry point of the group ``lrc_ase.models.descriptors``: ``name = "package.module:Class"``.
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
    if field.default in _BUILT_IN:
        raise ValueError(f"the descriptor name '{field.default}' is built in: choose another name")
    registry.add(field.default, kind)
    return kind


def descriptor_class(settings: DescriptorSettings) -> type[Descriptor]:
    """Class that is built from `settings`."""
    if settings.name in _BUILT_IN:
        return _BUILT_IN[settings.name]
    descriptor_settings_class(settings.name)  # says what is missing
    found = registry.find(settings.name)
    assert found is not None
    return found


def build_descriptor(
    settings: DescriptorSettings,
    *,
    n_elements: int,
    cutoff: float,
    average_neighbors: float,
    generator: torch.Generator | None = None,
) -> Descriptor:
    """Untrained descriptor; arguments as in `Descriptor`."""
    kind: Any = descriptor_class(settings)
    built: Descriptor = kind(
        settings, n_elements=n_elements, cutoff=cutoff, average_neighbors=average_neighbors, generator=generator
    )
    return built
