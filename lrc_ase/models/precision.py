"""The floating-point types that models run in."""

from __future__ import annotations

import torch

__all__ = ["floating_type"]

_BY_NAME = {"float32": torch.float32, "float64": torch.float64}


def floating_type(dtype: torch.dtype | str) -> torch.dtype:
    """Return torch.float32 or torch.float64 for its name or the dtype; raise ValueError for anything else.

    >>> floating_type("float32")
    torch.float32
    """
    for name, precision in _BY_NAME.items():
        if dtype in (name, precision):
            return precision
    raise ValueError(f"`dtype` must be float32 or float64, by name or of torch, got {dtype}")
