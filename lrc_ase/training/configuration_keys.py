"""Keys of a configuration with meaning, unit and default, from the docstrings: as a YAML template and as tables."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import yaml
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

__all__ = ["key_tables", "template", "template_of"]

_WIDTH = 100
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


def template() -> str:
    """Return a YAML configuration that holds every key with its meaning and default.

    >>> print(template()[:68])
    # Configuration of `lrc-ase train`. Every key but `data` may be left
    """
    head = (
        "Configuration of `lrc-ase train`. Every key but `data` may be left out: the values here are the defaults. "
        "null: derived from the frames, or switched off, as the comment says. Units are those of ASE: eV, Angstrom."
    )
    content = {
        "data": {"frames": {"train": ["frames.extxyz"]}},
        "stages": [StageConfiguration(name="full-range").model_dump(mode="json")],
    }
    return template_of(TrainingConfiguration, content, head)


def template_of(settings: type[BaseModel], content: Any, head: str) -> str:
    """Return a YAML file with every key of a class of settings: values of `content`, else defaults, and meanings."""
    return "\n".join([*_comment(head, 0), *_template_lines(settings, content, 0)]) + "\n"


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
    rows = [f"### {title}", _text(settings.__doc__), "", "| key | meaning | unit | default |", "|---|---|---|---|"]
    for name, field in settings.model_fields.items():
        meaning = f"{_meaning(field)}{_choices(field)}".strip()
        cells = [f"`{name}`", meaning, _unit(meaning), _default_text(settings, name, field)]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _template_lines(settings: type[BaseModel], content: Any, indent: int) -> Iterator[str]:
    """Yield the lines of the keys of one class of settings, with those of the settings inside it."""
    pad = " " * indent
    for name, field in settings.model_fields.items():
        if name == "remarks":
            continue
        yield from _comment(f"{_meaning(field)}{_choices(field)}".strip(), indent)
        value = content.get(name) if isinstance(content, dict) and name in content else _default(settings, name, field)
        inner = _settings_at(settings, name)
        if inner is None or not value:
            yield f"{pad}{name}: {_yaml(value)}"
        elif name == "data":
            yield f"{pad}{name}:"
            for set_name, data_set in value.items():
                yield f"{pad}  {set_name}:"
                yield from _template_lines(inner, data_set, indent + 4)
        elif name == "stages":
            yield f"{pad}{name}:"
            lines = list(_template_lines(inner, value[0], indent + 4))
            yield f"{pad}  -"
            yield from lines
        else:
            yield f"{pad}{name}:"
            yield from _template_lines(inner, value, indent + 2)


def _settings_at(settings: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the settings class that stands below a key, if the template spells it out."""
    below: dict[tuple[type[BaseModel], str], type[BaseModel]] = {
        (TrainingConfiguration, "data"): DataSetConfiguration,
        (TrainingConfiguration, "stages"): StageConfiguration,
        (TrainingConfiguration, "model"): ModelConfiguration,
        (DataSetConfiguration, "keys"): LabelKeys,
        (ModelConfiguration, "long_range"): LongRangeSettings,
        (ModelConfiguration, "descriptor"): next(iter(descriptor_settings_classes())),
        (StageConfiguration, "loss"): LossConfiguration,
    }
    if (settings, name) in below:
        return below[settings, name]
    field = settings.model_fields[name]
    kinds = (field.annotation, *get_args(field.annotation))
    inner = [each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)]
    return inner[0] if inner and field.default is not None else None


def _default(settings: type[BaseModel], name: str, field: FieldInfo) -> Any:
    """Return the default of a key in plain YAML types."""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return default.model_dump(mode="json")
    if isinstance(default, tuple):
        return [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in default]
    return default


def _default_text(settings: type[BaseModel], name: str, field: FieldInfo) -> str:
    """Return the default of a key as shown in a table."""
    if (settings, name) == (TrainingConfiguration, "stages"):
        return "one stage"
    if field.is_required():
        return "required"
    return "see below" if _settings_at(settings, name) else f"`{_yaml(_default(settings, name, field))}`"


def _choices(field: FieldInfo) -> str:
    """Return a sentence with the words that a key allows, nothing for a key that allows other values."""
    annotation = field.annotation
    return (
        f" One of {', '.join(map(str, get_args(annotation)))}."
        if str(get_origin(annotation)).endswith("Literal")
        else ""
    )


def _unit(meaning: str) -> str:
    """Return the first unit that a docstring names.

    >>> _unit("Name of the forces, eV/Angstrom, in the results.")
    'eV/Angstrom'
    """
    pattern = "|".join(map(re.escape, _UNITS))
    match = re.search(rf"(?<![\w/])({pattern})(?![\w/^])", meaning)
    return match[1].replace("Minutes", "minutes") if match else ""


def _meaning(field: FieldInfo) -> str:
    """Return the docstring of a key on one line."""
    return _text(field.description)


def _text(text: str | None) -> str:
    return " ".join((text or "").split())


def _comment(text: str, indent: int) -> list[str]:
    prefix = " " * indent + "# "
    return textwrap.wrap(text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False)


def _yaml(value: Any) -> str:
    if isinstance(value, float) and value != 0 and abs(value) < 1e-3:
        return f"{value:.1e}"  # PyYAML's 1.0e-05
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
