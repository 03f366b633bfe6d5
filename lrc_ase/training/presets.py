"""Presets of a model: short names for settings that were chosen together, once for all data sets."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

__all__ = ["PRESETS", "preset_values", "with_preset", "without_preset_keys"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fast": {
        "descriptor": {
            "name": "sphere",
            "n_blocks": 1,
            "n_neighbor_features": 8,
            "neighbor_degree": 0,
        }
    },
    "accurate": {
        "descriptor": {
            "name": "sphere",
            "n_blocks": 2,
            "n_neighbor_features": 16,
            "neighbor_degree": 1,
        }
    },
}
"""Settings of a model by the name of the preset. All presets set the same keys, so that one replaces another."""


def preset_values(name: Any) -> Mapping[str, Any]:
    """Return the model settings of a preset; ValueError suggests the nearest name for an unknown one."""
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1) if isinstance(name, str) else []
    hint = f"did you mean '{near[0]}'?" if near else f"presets are {', '.join(PRESETS)}"
    raise ValueError(f"there is no preset '{name!s:.80}'; {hint}")


def with_preset(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the preset named by the key `preset` (null: none), with the other keys of `model` on top.

    >>> with_preset({"preset": "accurate", "cutoff": 6.0})["cutoff"]
    6.0
    >>> with_preset({"preset": "accurate", "descriptor": {"compression": 8.0}})["descriptor"]["compression"]
    8.0
    """
    if model["preset"] is None:
        return {key: value for key, value in model.items() if key != "preset"}
    values = preset_values(model["preset"])
    others = {key: value for key, value in model.items() if key != "preset"}
    descriptor = others.get("descriptor")
    if isinstance(descriptor, BaseModel):
        descriptor = others["descriptor"] = descriptor.model_dump(exclude_unset=True)
    if isinstance(descriptor, Mapping):
        expected = values["descriptor"]["name"]
        if (name := descriptor.get("name", expected)) != expected:
            raise ValueError(
                f"the preset '{model['preset']}' has the descriptor '{expected}', not '{name!s:.80}': "
                "leave `preset` out, or the descriptor"
            )
    return _merged(values, others)


def without_preset_keys(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model settings without those that a preset sets, and without the settings of other descriptors.

    >>> without_preset_keys({"cutoff": 6.0, "descriptor": {"n_blocks": 2, "n_channels": 64}})
    {'cutoff': 6.0, 'descriptor': {'n_channels': 64}}
    >>> without_preset_keys({"descriptor": {"name": "ponita", "n_layers": 2}})
    {'descriptor': {}}
    """
    (preset, *_) = PRESETS.values()
    descriptor = model.get("descriptor", {})
    if descriptor.get("name", "sphere") != preset["descriptor"]["name"]:
        descriptor = {}
    rest = {**model, "descriptor": descriptor}
    return _difference(rest, preset)


def _merged(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested `values` with the keys of `others` on top."""
    merged = dict(values)
    for key, value in others.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _difference(content: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested `content` without the plain values at the places of `keys`."""
    return {
        key: _difference(value, keys[key]) if isinstance(keys.get(key), Mapping) else value
        for key, value in content.items()
        if key not in keys or isinstance(keys[key], Mapping)
    }
