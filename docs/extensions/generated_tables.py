"""Tables of keys and options in Markdown, from the docstrings of settings and the list of options."""

from __future__ import annotations

import re

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lrc_ase.dataset import LabelKeys
from lrc_ase.models.settings import D3Settings, LongRangeSettings, ZBLSettings, descriptor_settings_classes
from lrc_ase.training.configuration import (
    DataSetConfiguration,
    LossConfiguration,
    ModelConfiguration,
    StageConfiguration,
    TrainFile,
    TrainingConfiguration,
)
from lrc_ase.training.configuration_keys import as_yaml, default_of, meaning_of, settings_below
from lrc_ase.training.options import flag, options

_UNITS = (
    "eV/Angstrom^3",
    "eV/Angstrom",
    "1/Angstrom",
    "e Angstrom",
    "e^2 Angstrom^2/eV",
    "eV",
    "Angstrom",
    "Minutes",
    "e",
)
"""Units that a docstring may name; the first of them is the unit of the value."""
_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("", TrainingConfiguration),
    ("data.NAME", DataSetConfiguration),
    ("data.NAME.train[]", TrainFile),
    ("data.NAME.keys", LabelKeys),
    ("model", ModelConfiguration),
    ("model.descriptor", BaseModel),
    ("model.long_range", LongRangeSettings),
    ("model.baseline[]` with `name: zbl", ZBLSettings),
    ("model.baseline[]` with `name: d3", D3Settings),
    ("stages[]", StageConfiguration),
    ("stages[].loss", LossConfiguration),
)
"""Places of settings in a configuration, in the order of the page."""


def key_tables() -> str:
    """Return one table of keys in Markdown for each place in a configuration."""
    parts = []
    for section, settings in _SECTIONS:
        if section == "model.descriptor":
            for each in descriptor_settings_classes():
                name = each.model_fields["name"].default
                parts.append(_table(f"`{section}` with `name: {name}`", each))
        else:
            parts.append(_table(f"`{section}`" if section else "Top level", settings))
    return "\n".join(parts)


def _table(title: str, settings: type[BaseModel]) -> str:
    """Return the table of the keys of one class of settings."""
    rows = [
        f"### {title}",
        " ".join((settings.__doc__ or "").split()),
        "",
        "| key | meaning | unit | default |",
        "|---|---|---|---|",
    ]
    for name, field in settings.model_fields.items():
        meaning = meaning_of(field)
        cells = [f"`{name}`", meaning, _unit(meaning), _default_text(settings, name, field)]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default_text(settings: type[BaseModel], name: str, field: FieldInfo) -> str:
    """Return the default of a key as shown in a table."""
    if (settings, name) == (TrainingConfiguration, "stages"):
        return "one stage"
    if field.is_required():
        return "required"
    return "see below" if settings_below(settings, name) else f"`{as_yaml(default_of(settings, name, field))}`"


def _unit(meaning: str) -> str:
    """Return the first unit that a docstring names.

    >>> _unit("Name of the forces, eV/Angstrom, in the results.")
    'eV/Angstrom'
    """
    pattern = "|".join(map(re.escape, _UNITS))
    match = re.search(rf"(?<![\w/])({pattern})(?![\w/^])", meaning)
    return match[1].replace("Minutes", "minutes") if match else ""


def option_table() -> str:
    """Return the table of the options in Markdown."""
    rows = ["| command line | Python | key of the configuration | meaning |", "|---|---|---|---|"]
    for name, _, option in options():
        value = f" {option.metavar}" if option.metavar else ""
        cells = [f"`{flag(name, option)}{value}`", f"`{name}`", f"`{option.key}`", option.help]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
