"""JSON that every reader accepts: without NaN and infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["finite", "json_text"]


def finite(value: Any) -> Any:
    """Return JSON values of nested mappings and sequences, None for numbers that are not finite.

    >>> finite({"forces": (1.5, float("nan"))})
    {'forces': [1.5, None]}
    """
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def json_text(value: Any) -> str:
    """Return indented JSON with a line break at its end."""
    return json.dumps(finite(value), indent=2, allow_nan=False) + "\n"
