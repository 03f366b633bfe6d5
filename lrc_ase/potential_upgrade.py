"""Potential files of earlier formats in the form of today's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["upgraded"]


def upgraded(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors as today's model has them, which predicts what the one of the file did.

    Until version 2 a sphere descriptor mixed alike for all elements and scaled each mixed factor by the element.
    """
    new = dict(tensors)
    if header["format_version"] > 2 or header["model"].get("descriptor", {}).get("name", "sphere") != "sphere":
        return new
    for name, scale in tensors.items():
        if name.endswith("center_scale"):
            block = name.removesuffix("center_scale")
            del new[name]
            new[f"{block}element_mixing"] = tensors[f"{block}mixing"] * (scale[:, None, None] - 1)
    return new
