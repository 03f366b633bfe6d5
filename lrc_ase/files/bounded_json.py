"""Reading of JSON from untrusted files: bounded in size and depth, without repeated keys."""

from __future__ import annotations

import json
import reprlib
from typing import Any

from pydantic import ValidationError

__all__ = ["first_mistake", "json_object"]

LARGEST_TEXT = 4 * 2**20
"""Largest number of characters. Parsed JSON takes some thirty times the memory of its text."""
DEEPEST = 32
"""Largest number of nested levels; the files of lrc-ase have five."""


def json_object(text: str, *, largest: int = LARGEST_TEXT) -> dict[str, Any]:
    """Parse a JSON object.

    Raises
    ------
    ValueError
        The text has more than `largest` characters, nests deeper than `DEEPEST`, is no JSON object, or repeats a key.
    """
    if len(text) > largest:
        raise ValueError(f"{len(text)} characters of JSON, expected at most {largest}")
    too_deep = f"JSON nested deeper than {DEEPEST} levels"
    try:
        content = json.loads(text, object_pairs_hook=_without_repetition)
    except RecursionError:
        raise ValueError(too_deep) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, got {reprlib.repr(content)}")
    # level by level: recursion would run into Python's limit on a hostile file
    level: list[Any] = [content]
    for _ in range(DEEPEST):
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            return content
    raise ValueError(too_deep)


def first_mistake(error: ValidationError, where: str = "") -> str:
    """Return the first mistake that pydantic reports, in one line: dotted key, problem and offending value.

    `where` is the dotted key of the validated object.
    """
    mistakes = error.errors(include_url=False, include_context=False)
    first = mistakes[0]
    key = ".".join(str(part) for part in (*([where] if where else []), *first["loc"]))
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    got = (
        ""
        if first["type"] in ("missing", "value_error", "extra_forbidden")
        else f", got {reprlib.repr(first['input'])}"
    )
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return f"{repr(key[:100])[1:-1]}: {message}{got}{more}" if key else f"{message}{got}{more}"


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dictionary of `pairs`; ValueError for a repeated key, of which `json` would keep the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in content if keys.count(key) > 1)
        raise ValueError(f"the key {reprlib.repr(repeated)} occurs twice in one JSON object")
    return content
