"""Evaluate models in any process, whatever other code has set in torch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar, cast

import torch

__all__ = ["undisturbed"]


Function = TypeVar("Function", bound=Callable[..., Any])


class undisturbed:
    """Record gradients, in full precision and with the CPU as default device, within a block or a decorated function.

    Other code in the process may have called `torch.set_grad_enabled(False)`, `torch.inference_mode`, `torch.autocast`
    or `torch.set_default_device`; all of it holds again afterwards. Each is left alone where it does not disturb:
    entering these contexts takes as long as a small tensor operation.
    """

    def __init__(self) -> None:
        self._stack: ExitStack | None = None

    def __enter__(self) -> None:
        """Enter the contexts that undo what disturbs."""
        if contexts := _remedies():
            self._stack = _entered(contexts)

    def __exit__(self, *error: Any) -> bool | None:
        """Leave them."""
        return None if self._stack is None else self._stack.__exit__(*error)

    def __call__(self, function: Function) -> Function:
        """Decorate a function."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not (contexts := _remedies()):
                return function(*args, **kwargs)
            with _entered(contexts):
                return function(*args, **kwargs)

        return cast("Function", wrapped)


def _remedies() -> list[Callable[[], AbstractContextManager[Any]]]:
    """Return the contexts that undo what other code has set."""
    contexts: list[Callable[[], AbstractContextManager[Any]]] = []
    # first: inference mode decides whether gradients can be enabled at all
    if torch.is_inference_mode_enabled():
        contexts.append(lambda: torch.inference_mode(False))
    if contexts or not torch.is_grad_enabled():
        contexts.append(torch.enable_grad)
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            contexts.append(functools.partial(torch.autocast, device, enabled=False))
    if torch.empty(0).device.type != "cpu":  # in a tenth of the time of `torch.get_default_device`
        contexts.append(lambda: torch.device("cpu"))
    return contexts


def _entered(contexts: list[Callable[[], AbstractContextManager[Any]]]) -> ExitStack:
    """Enter contexts in order."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context())
        return stack.pop_all()
