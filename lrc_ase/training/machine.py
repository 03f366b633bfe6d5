"""Device and threads of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lrc_ase.models.devices import usable_device
from lrc_ase.training.configuration import ConfigurationError

__all__ = ["device_of_process", "threads"]


def device_of_process(name: str) -> torch.device:
    """Return the device `name` after a trial; with ``cuda`` each of several processes gets a different GPU."""
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        return usable_device(name)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


@contextmanager
def threads(n_threads: int | None) -> Iterator[None]:
    """Set the number of threads of torch within the context; None leaves it unchanged."""
    previous = torch.get_num_threads()
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
