"""Processor of this machine, and the cores of it that this process may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["available_cores", "processor_name"]


def available_cores() -> int:
    """Return the number of cores that this process may use, fewer than the machine has in most queues."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Return the name of the processor; `platform.processor` is empty on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
