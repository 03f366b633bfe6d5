"""Warnings that point at the line of the user's program which led to them."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

__all__ = ["warn_caller"]

_PASSED = ("lrc_ase", "ase", "torch_sim", "contextlib")
"""Packages between a line of the user and a warning: this one, and those through which it is called."""


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Show a warning with file and line of the nearest caller outside this package, ASE and torch-sim.

    For filters it is a warning of the module that called this function: ``ignore::UserWarning:lrc_ase`` works.
    """
    warning = sys._getframe(1)
    outer: FrameType | None = warning
    while outer is not None and outer.f_globals.get("__name__", "").partition(".")[0] in _PASSED:
        outer = outer.f_back
    place = warning if outer is None else outer
    warnings.warn_explicit(
        message, category, place.f_code.co_filename, place.f_lineno, module=warning.f_globals["__name__"]
    )
