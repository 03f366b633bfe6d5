"""Device and threads that a run asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lrc_ase.training.configuration import ConfigurationError

__all__ = ["threads", "usable_device"]


def usable_device(name: str) -> torch.device:
    """Device called `name`, tried out; of several processes each has its own GPU."""
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"device '{name}' cannot be used here: {reason}") from error
    return device


@contextmanager
def threads(n_threads: int | None) -> Iterator[None]:
    """Use so many threads of torch for a while; None leaves them."""
    previous = torch.get_num_threads()
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
