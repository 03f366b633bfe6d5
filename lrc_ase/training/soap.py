"""SOAP optimizer with a fixed memory layout of its state, so that training resumes bit-equal from a file.

On CUDA devices its steps are recorded. A step launches over a thousand small kernels, which takes Python 14 to 21 ms
for the models of the presets, several times as long as the gradient of a recorded batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pytorch_optimizer import SOAP
from torch import Tensor

from lrc_ase.layer.recording import record

__all__ = ["RowMajorSOAP"]

_RECORDING_DEVICE = "cuda"
_STEPS_BEFORE = 25
"""Steps before the first recording: bases of all parameters have been found and updated."""


class RowMajorSOAP(SOAP):
    """Adam in the eigenbasis of Shampoo's preconditioner, after Vyas et al. (2024), arXiv:2409.11321."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._recorded: _RecordedSteps | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.contiguous()
        group = self.param_groups[0]
        device = group["params"][0].device
        if device.type != _RECORDING_DEVICE or len(self.param_groups) > 1 or group.get("step", 0) < _STEPS_BEFORE:
            return super().step(closure)
        if self._recorded is None or not self._recorded.fits():
            self._recorded = None  # its memory first
            self._recorded = _RecordedSteps(self, super().step)
        self._recorded()
        return None

    @staticmethod
    def get_orthogonal_matrix(mat: Any) -> list[Any]:
        return _row_major(SOAP.get_orthogonal_matrix(mat))

    def get_orthogonal_matrix_qr(self, *arguments: Any, **options: Any) -> list[Any]:
        return _row_major(super().get_orthogonal_matrix_qr(*arguments, **options))


class _RecordedSteps:
    """Steps of the optimizer as two CUDA graphs, one of which also updates the bases.

    A recording repeats the same numbers of the host, but the step size s changes. Recorded are therefore steps of size
    one from the parameters p to p', and their interpolation :math:`p + s (p' - p)` with s on the device.
    """

    def __init__(self, optimizer: SOAP, step: Callable[[], Any]) -> None:
        self._optimizer = optimizer
        self._group: dict[str, Any] = optimizer.param_groups[0]
        self._step = step
        self._trained: list[Tensor] = [each for each in self._group["params"] if each.grad is not None]
        self._states: list[dict[str, Any]] = [optimizer.state[parameter] for parameter in self._trained]
        self._gradients: list[Any] = [parameter.grad for parameter in self._trained]
        self._squares = [state["exp_avg_sq"] for state in self._states]
        self._bases = [list(state["Q"]) for state in self._states]
        self._size = self._trained[0].new_ones(())
        self._replays: dict[bool, Callable[[], None]] = {}

    def fits(self) -> bool:
        """Return True while the same parameters are trained, from the same state."""
        trained = [each for each in self._group["params"] if each.grad is not None]
        if self._optimizer.param_groups[0] is not self._group or len(trained) != len(self._trained):
            return False  # another state was loaded
        return all(one is other for one, other in zip(trained, self._trained, strict=True))

    def __call__(self) -> None:
        """Take a step by the gradients of the parameters."""
        group = self._group
        for parameter, gradient in zip(self._trained, self._gradients, strict=True):
            if parameter.grad is not gradient:
                parameter.grad = gradient.copy_(parameter.grad)
        updates = group["step"] % group["precondition_frequency"] == 0
        if updates not in self._replays:
            self._replays[updates] = self._record()
        n_steps, (beta1, beta2) = group["step"], group["betas"]
        size = group["lr"]
        if group["correct_bias"]:
            size *= math.sqrt(1 - beta2**n_steps) / (1 - beta1**n_steps)
        self._size.fill_(size)
        self._replays[updates]()
        group["step"] = n_steps + 1
        if group["weight_decay"]:
            for parameter in self._trained:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])

    def _record(self) -> Callable[[], None]:
        """Record a step of size one of the kind that is due."""
        kept = [(tensor, tensor.clone()) for tensor in self._tensors()]

        def unit_step() -> None:
            starts, options = [parameter.clone() for parameter in self._trained], dict(self._group)
            self._group.update(lr=1.0, correct_bias=False, weight_decay=0.0)
            try:
                self._step()
            finally:  # a recording that fails changes nothing
                self._group.update(options)
            for state, squares, bases in self._addresses():
                squares.copy_(state["exp_avg_sq"])
                for basis, new in zip(bases, state["Q"], strict=True):
                    if isinstance(basis, Tensor) and new is not basis:
                        basis.copy_(new)
            self._return_to_addresses()
            for parameter, start in zip(self._trained, starts, strict=True):
                parameter.copy_(torch.lerp(start, parameter, self._size))

        replay = record(unit_step, self._size.device)
        self._return_to_addresses()
        for tensor, value in kept:  # the steps that came before the recording do not count
            tensor.copy_(value)
        return replay

    def _return_to_addresses(self) -> None:
        """Put the tensors that the recordings read in place of those that a step made."""
        for state, squares, bases in self._addresses():
            state["exp_avg_sq"], state["Q"] = squares, list(bases)

    def _addresses(self) -> Iterator[tuple[dict[str, Any], Tensor, list[Any]]]:
        """Yield the state of each parameter, and the squares and bases that the recordings read."""
        yield from zip(self._states, self._squares, self._bases, strict=True)

    def _tensors(self) -> list[Tensor]:
        """Return parameters and all of their state."""
        tensors = list(self._trained)
        for state in self._states:
            parts = [state["exp_avg"], state["exp_avg_sq"], *state["GG"], *state["Q"]]
            tensors += [part for part in parts if isinstance(part, Tensor)]
        return tensors


def _row_major(matrices: list[Any]) -> list[Any]:
    # an empty list stands for an axis that is left as it is
    return [matrix.contiguous() if isinstance(matrix, Tensor) else matrix for matrix in matrices]
