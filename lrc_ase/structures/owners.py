"""Values of ghosts summed to the atoms that they stand for, in this process or another one, and copied from them."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Owners", "copied_to_ghosts", "summed_to_owners"]


class Owners(Protocol):
    """Communication between ghosts and the local atoms that own them; every process calls each method in turn.

    Values are float64 and may have further dimensions after that of atoms.
    """

    def sum_to_owners(self, values: Tensor) -> Tensor:
        """Add values of ghosts to those of their owners, (n_atoms, ...) -> (n_local, ...)."""

    def copy_to_ghosts(self, values: Tensor) -> Tensor:
        """Append the values of the owners for all ghosts, (n_local, ...) -> (n_atoms, ...)."""


def summed_to_owners(values: Tensor, owners: Owners) -> Tensor:
    """Add values of ghosts to those of their owners, (n_atoms,) -> (n_local,), with derivatives of any order."""
    summed: Tensor = _Sum.apply(values.double(), owners)
    return summed.to(values)


def copied_to_ghosts(values: Tensor, owners: Owners) -> Tensor:
    """Append the owners' values for all ghosts, (n_local, ...) -> (n_atoms, ...), with derivatives of any order."""
    copied: Tensor = _Copy.apply(values.double(), owners)
    return copied.to(values)


class _Sum(torch.autograd.Function):
    """The sum to the owners; its adjoint is `_Copy`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, owners: Owners) -> Tensor:
        ctx.owners = owners
        return owners.sum_to_owners(values.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Copy.apply(gradient, ctx.owners), None


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, owners: Owners) -> Tensor:
        ctx.owners = owners
        return owners.copy_to_ghosts(values.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(gradient, ctx.owners), None
