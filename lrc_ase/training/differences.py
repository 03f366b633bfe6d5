"""Keys in which two configurations differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["differences"]


def differences(requested: Any, stored: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys in which a dumped configuration differs from the resolved `stored`; null agrees."""
    if requested is None or requested == stored:
        return
    if isinstance(requested, Mapping) and isinstance(stored, Mapping):
        for key in requested.keys() | stored.keys():
            yield from differences(requested.get(key), stored.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(requested, tuple) and isinstance(stored, tuple) and len(requested) == len(stored):
        for index, (one, other) in enumerate(zip(requested, stored, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    else:
        yield path
