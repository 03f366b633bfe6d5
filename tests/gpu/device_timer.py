"""Times of calls on a device that works while Python goes on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def timed(call: Callable[[], object], device: torch.device, *, repeats: int = 10) -> dict[str, float]:
    """Median time of a call in ms after two for warming up, and the peak memory of the device in MB."""
    call(), call()
    times = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        times.append(1e3 * (time.perf_counter() - start))
        if sum(times) > 4000:
            break
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0.0
    return {"ms": round(statistics.median(times), 4), "MB": round(memory)}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
