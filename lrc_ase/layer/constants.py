"""Small tensors that follow from hashable arguments, made once for each type and device."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["constant", "on_device"]


def constant(make: Callable[..., Any], *arguments: Any, like: Tensor) -> Tensor:
    """Return the numbers that ``make(*arguments)`` returns, in the type and on the device of `like`.

    Nobody may change them in place. They are never dropped, as steps recorded as CUDA graphs read them by address;
    therefore `make` returns some kilobytes at most. A second call copies nothing to a GPU, and so does not wait for it.
    """
    return _made(make, arguments, like.dtype, like.device)


def on_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Return a vector of some numbers on `device`; one that needs no gradient is copied there once, and kept."""
    device = torch.device(device)
    if values.requires_grad or values.device.type == device.type:
        return values.to(device)
    return constant(tuple, tuple(values.tolist()), like=torch.empty(0, dtype=values.dtype, device=device))


@cache
def _made(make: Callable[..., Any], arguments: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # they will be used outside of that too
        # through numpy, which keeps all digits of Python's numbers
        return torch.as_tensor(np.asarray(make(*arguments))).to(device, dtype)
