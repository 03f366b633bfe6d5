"""Descriptors from outside: classes that a program registered, and those that installed packages offer.

A potential file or a configuration can only name a descriptor; what code stands behind the name is decided here, by
the user's program and by what is installed, never by the file.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

__all__ = ["ENTRY_POINT_GROUP", "add", "find", "names", "origin"]

ENTRY_POINT_GROUP = "lrc_ase.descriptors"
"""Where packages offer descriptors: the name of the descriptor -> its class."""

_registered: dict[str, type[Any]] = {}


def add(name: str, descriptor_class: type[Any]) -> None:
    """Remember a class. The same class may come again; another one of the same name is refused."""
    if (known := _registered.get(name, descriptor_class)) is not descriptor_class:
        raise ValueError(
            f"the descriptor name '{name}' is taken by {known.__module__}.{known.__qualname__}: choose another name"
        )
    _registered[name] = descriptor_class


def find(name: str) -> type[Any] | None:
    """Return the registered class of this name, else that of an installed package, else None."""
    if name in _registered:
        return _registered[name]
    offer = _offers().get(name)
    if offer is None:
        return None
    try:
        found = offer.load()
    except Exception as error:  # whatever a foreign package fails with
        raise ValueError(f"the descriptor '{name}' of {_package(offer)} cannot be imported: {error}") from error
    if not isinstance(found, type) or not hasattr(found, "settings_class"):
        raise ValueError(
            f"the descriptor '{name}' of {_package(offer)} must be a subclass of "
            f"`lrc_ase.models.descriptors.Descriptor` with a `settings_class`, got {found!r}"
        )
    return found


def names() -> list[str]:
    """Names of all descriptors from outside."""
    return sorted({*_registered, *_offers()})


def origin(name: str) -> str | None:
    """Package and version, or module and class, behind a name; None where it is not from outside."""
    if name in _registered:
        found = _registered[name]
        return f"{found.__module__}.{found.__qualname__}"
    offer = _offers().get(name)
    return None if offer is None else _package(offer)


def _offers() -> dict[str, EntryPoint]:
    return {offer.name: offer for offer in entry_points(group=ENTRY_POINT_GROUP)}


def _package(offer: EntryPoint) -> str:
    return offer.value if offer.dist is None else f"{offer.dist.name} {offer.dist.version}"
