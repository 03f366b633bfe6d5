"""Validation errors of a configuration as lines that a user can act on."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lrc_ase.models.settings import DescriptorSettings, descriptor_settings_classes

__all__ = ["ConfigurationError", "describe_errors"]


class ConfigurationError(ValueError):
    """Error about a configuration that cannot be used, in one line."""


_SHOWN = 3
"""Number of mistakes that a message names."""
_LONGEST_KEY, _LONGEST_MESSAGE = 80, 400
"""Largest number of characters of a key and of a message."""
_WITHOUT_PYTHON = {
    "tuple_type": "Input should be a list",
    "dict_type": "Input should be a block of keys and values",
    "model_type": "Input should be a block of keys and values",
}
"""Messages of pydantic that name types of Python, in words of YAML."""
_Bounded = reprlib.Repr()
_Bounded.maxlevel, _Bounded.maxstring, _Bounded.maxother = 2, 80, 80
"""Shows values of any size in a bounded time."""


def describe_errors(error: ValidationError, root: type[BaseModel], source: str, content: Any) -> str:
    """Return one line with the first mistakes in `content`: dotted keys, and the nearest key for an unknown one."""
    items = error.errors(include_url=False, include_context=False)
    # pydantic counts invalid items of a list as absent ones: one message less
    locations = [item["loc"] for item in items if item["type"] != "too_short"]
    items = [
        item
        for item in items
        if item["type"] != "too_short" or not any(each[: len(item["loc"])] == item["loc"] for each in locations)
    ]
    texts = list(islice(_describe(items, root, content), _SHOWN))
    more = len(items) - len(texts) if len(texts) == _SHOWN else 0
    return f"{source}: {'; '.join(texts)}" + (f"; and {more} more" if more else "")


def _describe(items: Sequence[Any], root: type[BaseModel], content: Any) -> Iterator[str]:
    """Yield a phrase for each mistake that pydantic reports."""
    for item in items:
        path = dotted(item["loc"])
        if item["type"] == "extra_forbidden":
            yield f"unknown key '{path}'{_suggestion(item['loc'], root, content)}"
        elif item["type"] == "missing":
            yield f"the key '{path}' is missing"
        else:
            message = _WITHOUT_PYTHON.get(item["type"], item["msg"]).removeprefix("Value error, ")[:_LONGEST_MESSAGE]
            got = "" if item["type"] == "value_error" else f", got {_Bounded.repr(item['input'])}"
            yield f"{path}: {message}{got}" if path else f"{message}{got}"


def dotted(location: tuple[int | str, ...]) -> str:
    """Write a location as in ``stages[0].loss.forces``.

    >>> dotted(("stages", 0, "loss"))
    'stages[0].loss'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part:.{_LONGEST_KEY}}" for part in location)
    return text.removeprefix(".")


def _suggestion(location: tuple[int | str, ...], root: type[BaseModel], content: Any) -> str:
    """Return a phrase with the nearest key beside the unknown one, else with the nearest key anywhere."""
    name = str(location[-1])[:_LONGEST_KEY]
    siblings = list(_class_at(location[:-1], root, content).model_fields)
    if near := difflib.get_close_matches(name, siblings, n=1):
        return f"; did you mean '{dotted((*location[:-1], near[0]))}'?"
    everywhere = dict(_all_keys(root))
    if near := difflib.get_close_matches(name, everywhere, n=1, cutoff=0.75):
        return f"; did you mean '{everywhere[near[0]]}'?"
    return f"; known here are {siblings}"


def _class_at(location: tuple[int | str, ...], root: type[BaseModel], content: Any) -> type[BaseModel]:
    """Return the class of the settings at `location`; the `name` in `content` chooses among several."""
    current = root
    for part in location:
        content = _inside(content, part)
        if isinstance(part, str) and part in current.model_fields:
            classes = list(_models(current.model_fields[part].annotation))
            name = content.get("name") if isinstance(content, Mapping) else None
            current = next((each for each in classes if _name_of(each) == name), next(iter(classes), current))
    return current


def _inside(content: Any, part: int | str) -> Any:
    """Return the content at a key or index; a single item in place of a list is the item at every index."""
    if isinstance(content, Mapping):
        return content.get(part, content)
    return content[part] if isinstance(content, (list, tuple)) and isinstance(part, int) else content


def _name_of(settings_class: type[BaseModel]) -> Any:
    return settings_class.model_fields["name"].default if "name" in settings_class.model_fields else None


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key with its dotted pattern; outer keys come last, so that they win in a dict."""
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
    """Yield the settings classes inside a type such as ``dict[str, A] | None``; for a descriptor all its classes."""
    if annotation is DescriptorSettings:
        yield from descriptor_settings_classes()
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif not isinstance(annotation, Mapping):
        for argument in get_args(annotation):
            yield from _models(argument)
