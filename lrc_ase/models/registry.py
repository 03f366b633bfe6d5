"""Descriptors by name: built in, registered by a program, or offered by an installed package.

A potential file or a configuration can only name a descriptor. The code behind the name comes from this package, the
user's program or an installed package, never from the file. A descriptor is imported at its first use, so that settings
can be read without compiled kernels.
"""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "add", "descriptor_class", "names", "origin"]

ENTRY_POINT_GROUP = "lrc_ase.descriptors"
"""Entry-point group in which packages offer descriptors: name of the descriptor -> its class."""
BUILT_IN = {
    name: EntryPoint(name, f"lrc_ase.models.descriptors.{module}", ENTRY_POINT_GROUP)
    for name, module in (
        ("sphere", "sphere:SphereDescriptor"),
        ("ponita", "ponita:PonitaDescriptor"),
        ("paper", "paper:PaperDescriptor"),
    )
}
"""Descriptors of this package, written as a package from outside would offer them."""

_registered: dict[str, type[Any]] = {}


def add(name: str, kind: type[Any]) -> None:
    """Register a class under `name`. Registering the same class again changes nothing.

    Raises ValueError if another class or a built-in descriptor has the name.
    """
    if name in BUILT_IN:
        raise ValueError(f"the descriptor name '{name}' is built in: choose another name")
    if (known := _registered.get(name, kind)) is not kind:
        raise ValueError(
            f"the descriptor name '{name}' is taken by {known.__module__}.{known.__qualname__}: choose another name"
        )
    _registered[name] = kind


def descriptor_class(name: str) -> type[Any]:
    """Return the class called `name`, a subclass of `lrc_ase.models.descriptors.Descriptor`.

    Raises ValueError if nothing has that name or the package that offers it cannot be imported.
    """
    if name in BUILT_IN:
        return BUILT_IN[name].load()
    if name in _registered:
        return _registered[name]
    offer = _offers().get(name)
    if offer is None:
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean '{near[0]}'" if near else f"known are {names()}"
        raise ValueError(
            f"no descriptor is called '{name}'; {hint}. One from outside must be registered first with "
            "`lrc_ase.models.descriptors.register`, or its package be installed"
        )
    try:
        kind = offer.load()
    except Exception as error:  # a foreign package may fail with anything
        raise ValueError(f"the descriptor '{name}' of {_package(offer)} cannot be imported: {error}") from error
    if not isinstance(kind, type) or not hasattr(kind, "settings_class"):
        raise ValueError(
            f"the descriptor '{name}' of {_package(offer)} must be a subclass of "
            f"`lrc_ase.models.descriptors.Descriptor` with a `settings_class`, got {kind!r}"
        )
    return kind


def names() -> list[str]:
    """Return the names of all available descriptors, built-in ones first."""
    return [*BUILT_IN, *sorted({*_registered, *_offers()} - set(BUILT_IN))]


def origin(name: str) -> str | None:
    """Return package and version, or module and class, behind a name; None for a built-in or unknown one."""
    if name in _registered:
        kind = _registered[name]
        return f"{kind.__module__}.{kind.__qualname__}"
    offer = _offers().get(name)
    return None if name in BUILT_IN or offer is None else _package(offer)


def _offers() -> dict[str, EntryPoint]:
    return {offer.name: offer for offer in entry_points(group=ENTRY_POINT_GROUP)}


def _package(offer: EntryPoint) -> str:
    return offer.value if offer.dist is None else f"{offer.dist.name} {offer.dist.version}"
