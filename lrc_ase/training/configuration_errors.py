"""Validation errors of a configuration as lines that a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lrc_ase.models.settings import DescriptorSettings, descriptor_settings_classes

__all__ = ["ConfigurationError", "describe_errors"]


class ConfigurationError(ValueError):
    """A configuration that cannot be used; the message has one line per mistake."""


def describe_errors(error: ValidationError, root: type[BaseModel], source: str, content: Any) -> list[str]:
    """One line per mistake in `content`, with the dotted path of the key and, for an unknown key, the nearest one."""
    lines = []
    items = error.errors()
    for item in items:
        if item["type"] == "too_short" and any(
            other["loc"][: len(item["loc"])] == item["loc"] != other["loc"] for other in items
        ):
            continue  # pydantic counts invalid items as absent ones
        path = dotted(item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"{source}: unknown key '{path}'{_suggestion(item['loc'], root, content)}")
        elif item["type"] == "missing":
            lines.append(f"{source}: the key '{path}' is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            got = "" if item["type"] == "value_error" else f", got {item['input']!r:.80}"
            lines.append(f"{source}: {path}: {message}{got}" if path else f"{source}: {message}{got}")
    return lines


def dotted(location: tuple[int | str, ...]) -> str:
    """Write a location as in ``stages[0].loss.forces``.

    >>> dotted(("stages", 0, "loss"))
    'stages[0].loss'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _suggestion(location: tuple[int | str, ...], root: type[BaseModel], content: Any) -> str:
    """Nearest key beside the unknown one, else the nearest anywhere."""
    name = str(location[-1])
    siblings = list(_class_at(location[:-1], root, content).model_fields)
    if near := difflib.get_close_matches(name, siblings, n=1):
        return f"; did you mean '{dotted((*location[:-1], near[0]))}'?"
    everywhere = dict(_all_keys(root))
    if near := difflib.get_close_matches(name, everywhere, n=1, cutoff=0.75):
        return f"; did you mean '{everywhere[near[0]]}'?"
    return f"; known here are {siblings}"


def _class_at(location: tuple[int | str, ...], root: type[BaseModel], content: Any) -> type[BaseModel]:
    """Class of the settings at `location`, where there are several the one that the `name` in `content` chooses."""
    current = root
    for part in location:
        content = _inside(content, part)
        if isinstance(part, str) and part in current.model_fields:
            classes = list(_models(current.model_fields[part].annotation))
            name = content.get("name") if isinstance(content, Mapping) else None
            current = next((each for each in classes if _name_of(each) == name), next(iter(classes), current))
    return current


def _inside(content: Any, part: int | str) -> Any:
    """Return the content at a key or index; a single item that stands for a list of one is its own first."""
    if isinstance(content, Mapping):
        return content.get(part, content)
    return content[part] if isinstance(content, (list, tuple)) and isinstance(part, int) else content


def _name_of(settings_class: type[BaseModel]) -> Any:
    return settings_class.model_fields["name"].default if "name" in settings_class.model_fields else None


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each key with its dotted pattern; outer keys last, so that they win in a dict."""
    for name, field in model.model_fields.items():
        inner = list(_models(field.annotation))
        pattern = f"{prefix}{name}"
        if inner:
            kind = getattr(field.annotation, "__origin__", None)
            bracket = "[...]" if kind is tuple else ".<name>" if kind is dict else ""
            for each in inner:
                yield from _all_keys(each, f"{pattern}{bracket}.")
    for name in model.model_fields:
        yield name, f"{prefix}{name}"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Settings classes inside a type such as ``dict[str, A] | None``; all that a descriptor may choose from."""
    if annotation is DescriptorSettings:
        yield from descriptor_settings_classes()
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif not isinstance(annotation, Mapping):
        for argument in get_args(annotation):
            yield from _models(argument)
