"""The devices that models run on."""

from __future__ import annotations

import textwrap

import torch

__all__ = ["usable_device"]


def usable_device(device: torch.device | str) -> torch.device:
    """Return a device of torch after trying it out.

    Raises
    ------
    ValueError
        There is no such device here, or it cannot compute in float64, in which positions are kept.
    """
    try:
        usable = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"torch knows no device {device!r}; usable here: {', '.join(_names())}") from error
    try:
        torch.zeros(1, dtype=torch.float64, device=usable).item()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        # TypeError: "mps", which has no float64; RuntimeError: "meta", which holds no numbers
        reason = textwrap.shorten(str(error), 100, placeholder="...")
        message = f"device '{usable}' cannot be used here; usable: {', '.join(_names())} ({reason})"
        raise ValueError(message) from error
    return usable


def _names() -> list[str]:
    """Return the names of all devices that can be used."""
    return ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
