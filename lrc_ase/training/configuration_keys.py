"""Keys of a configuration with meaning and default, from the docstrings, as a YAML template."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lrc_ase.dataset import LabelKeys
from lrc_ase.models.settings import LongRangeSettings, descriptor_settings_classes
from lrc_ase.training.configuration import (
    DataSetConfiguration,
    LossConfiguration,
    ModelConfiguration,
    StageConfiguration,
    TrainingConfiguration,
)

__all__ = ["as_yaml", "default_of", "meaning_of", "settings_below", "template", "template_of"]

_WIDTH = 100


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


def _template_lines(settings: type[BaseModel], content: Any, indent: int) -> Iterator[str]:
    """Yield the lines of the keys of one class of settings, with those of the settings inside it."""
    pad = " " * indent
    for name, field in settings.model_fields.items():
        if name == "remarks":
            continue
        yield from _comment(meaning_of(field), indent)
        value = (
            content.get(name) if isinstance(content, dict) and name in content else default_of(settings, name, field)
        )
        inner = settings_below(settings, name)
        if inner is None or not value:
            yield f"{pad}{name}: {as_yaml(value)}"
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


def settings_below(settings: type[BaseModel], name: str) -> type[BaseModel] | None:
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


def default_of(settings: type[BaseModel], name: str, field: FieldInfo) -> Any:
    """Return the default of a key in plain YAML types."""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return default.model_dump(mode="json")
    if isinstance(default, tuple):
        return [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in default]
    return default


def _choices(field: FieldInfo) -> str:
    """Return a sentence with the words that a key allows, nothing for a key that allows other values."""
    annotation = field.annotation
    return (
        f" One of {', '.join(map(str, get_args(annotation)))}."
        if str(get_origin(annotation)).endswith("Literal")
        else ""
    )


def meaning_of(field: FieldInfo) -> str:
    """Return the docstring of a key on one line, with the words that the key allows if it allows no other values."""
    return f"{' '.join((field.description or '').split())}{_choices(field)}".strip()


def _comment(text: str, indent: int) -> list[str]:
    prefix = " " * indent + "# "
    return textwrap.wrap(text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False)


def as_yaml(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, float) and value != 0 and abs(value) < 1e-3:
        return f"{value:.1e}"  # PyYAML's 1.0e-05
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
