"""Evaluate models in any process, whatever other code has set in torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["undisturbed"]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Record gradients, in full precision and with the CPU as default device, within a block or a decorated function.

    Other code in the process may have called `torch.set_grad_enabled(False)`, `torch.inference_mode`, `torch.autocast`
    or `torch.set_default_device`; all of it holds again afterwards. Each is left alone where it does not disturb:
    entering these contexts takes as long as a small tensor operation.
    """
    with ExitStack() as stack:
        # first: inference mode decides whether gradients can be enabled at all
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
