"""Several processes that train one model together, started by ``torchrun``.

Each takes its share of every batch; gradients and errors are summed over all, so that every process takes the same step
and holds the same weights. Nothing but the first process writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

__all__ = ["Processes", "balanced_parts", "joined_processes"]

_FAREWELL = 0.2
"""Time between the end of the process group and that of the process, seconds."""


@dataclass(frozen=True)
class Processes:
    """Rank of this process and number of processes; by default a single process."""

    rank: int = 0
    size: int = 1
    device: torch.device | str = "cpu"
    """Device of the numbers that are exchanged."""

    @property
    def is_first(self) -> bool:
        """Return True if this process writes files and prints."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type by their sums over all processes, in one exchange."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(values.view_as(tensor))

    def add_up_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all processes, in float64."""
        values = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        self.add_up([values])
        sums: list[float] = values.tolist()
        return sums

    def add_up_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of trained parameters over the processes; one without a part of the batch adds zero."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add_up([parameter.grad for parameter in trained if parameter.grad is not None])

    def of_first(self, number: float) -> float:
        """Return the number of the first process, the same in all."""
        return self.add_up_numbers([number if self.is_first else 0.0])[0]

    def any(self, flag: bool) -> bool:
        """Return True if the flag of any process is True."""
        return flag if self.size == 1 else self.add_up_numbers([float(flag)])[0] > 0

    def wait(self) -> None:
        """Wait until all processes have called this method."""
        self.any(False)


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the other processes that ``torchrun`` started, if there are any; `device` is the device of this process."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield Processes(device=device)
        return
    if device.type == "cuda":
        torch.distributed.init_process_group("nccl", device_id=device)
    else:
        torch.distributed.init_process_group("gloo")
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)
    finally:
        torch.distributed.destroy_process_group()
        # a thread of gloo lets go of the last tensors a little later, and aborts the process if Python is gone by then
        time.sleep(_FAREWELL)


def balanced_parts(sizes: Sequence[int], n_parts: int) -> list[list[int]]:
    """Divide items into parts of about the same total size: largest items first, each to the smallest part so far.

    Parts are empty if there are fewer items than parts.

    >>> balanced_parts([5, 3, 2, 4], 2)
    [[0, 2], [1, 3]]
    """
    parts: list[list[int]] = [[] for _ in range(n_parts)]
    totals = [0] * n_parts
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        smallest = min(range(n_parts), key=lambda part: (totals[part], part))
        parts[smallest].append(index)
        totals[smallest] += sizes[index]
    return [sorted(part) for part in parts]
