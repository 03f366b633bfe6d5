"""Turns of threads that share a calculator."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["TurnTaking", "in_turn"]

Method = TypeVar("Method", bound=Callable[..., Any])


class TurnTaking:
    """Base of an object whose methods decorated by `in_turn` run in one thread at a time.

    A calculator compares a structure with that of its results, evaluates, and returns a result. If two threads did so
    at once, one could receive the results of the other's structure.
    """

    _turn: Any

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Return an object with a lock of its own; copies and unpickled objects get another one."""
        instance = super().__new__(cls)
        instance._turn = threading.RLock()
        return instance

    def __getstate__(self) -> dict[str, Any]:
        """Return all attributes but the lock, which cannot be pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "_turn"}


def in_turn(method: Method) -> Method:
    """Decorate a method to wait until no other thread is within such a method of the same object."""

    @functools.wraps(method)
    def waiting(self: TurnTaking, *args: Any, **kwargs: Any) -> Any:
        with self._turn:
            return method(self, *args, **kwargs)

    return cast("Method", waiting)
