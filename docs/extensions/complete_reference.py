"""Stop the build where a key or a public object lacks its description, or where a generated table is outdated."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from generated_tables import key_tables, option_table
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PUBLIC_MODULES = ("lrc_ase", "lrc_ase.training", "lrc_ase.evaluation", "lrc_ase.simulation", "lrc_ase.layer.kernels")
"""Modules whose `__all__` the Python reference documents as a whole."""
PYTHON_PAGE = "reference/python.md"
TABLES = {
    "reference/configuration.md": key_tables,
    "how-to/training.md": option_table,
}


def undescribed_keys(tables: str) -> list[str]:
    r"""Return the keys without a meaning in tables of keys.

    >>> undescribed_keys("| `cutoff` | Range. | Angstrom | `5` |\n| `seed` |  |  | `0` |")
    ['`seed`']
    """
    rows = [line.split(" | ") for line in tables.splitlines() if line.startswith("| `")]
    return [row[0].removeprefix("| ") for row in rows if not row[1].strip()]


def public_objects() -> Iterator[tuple[str, Any]]:
    """Yield name and value of the public functions and classes."""
    for module in map(import_module, PUBLIC_MODULES):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield name, value


def undocumented(name: str, value: Any) -> Iterator[str]:
    """Yield the name of an object, and of those of its methods and properties, that lack a docstring."""
    if not value.__doc__:
        yield name
    if inspect.isclass(value) and not issubclass(value, BaseModel):
        public = [member for member in vars(value) if not member.startswith("_")]
        yield from (f"{name}.{member}" for member in public if not described(value, member))


def described(owner: type, member: str) -> bool:
    """Return True if a method or property has a docstring, its own or that of a class of ours which it overrides."""
    versions = [vars(base).get(member) for base in owner.__mro__ if base.__module__.startswith("lrc_ase")]
    functions = [each.fget if isinstance(each, property) else getattr(each, "__func__", each) for each in versions]
    return not inspect.isfunction(functions[0]) or any(inspect.getdoc(each) for each in functions if each)


def check(app: Sphinx) -> None:
    """Raise ExtensionError with all that is missing."""
    pages = {page: (Path(app.srcdir) / page).read_text(encoding="utf-8") for page in (*TABLES, PYTHON_PAGE)}
    problems = [f"the key {key} has no description" for key in undescribed_keys(key_tables())]
    problems += [
        f"{page} is outdated: run `python docs/configuration_keys.py`"
        for page, table in TABLES.items()
        if table() not in pages[page]
    ]
    for name, value in public_objects():
        problems += [f"{missing} has no docstring" for missing in undocumented(name, value)]
        if not re.search(rf"^\.\. auto\w+:: lrc_ase[\w.]*\.{name}$", pages[PYTHON_PAGE], re.MULTILINE):
            problems.append(f"{PYTHON_PAGE} lacks {name}")
    if problems:
        raise ExtensionError("; ".join(problems))


def setup(app: Sphinx) -> dict[str, Any]:
    """Check before pages are read."""
    app.connect("builder-inited", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
