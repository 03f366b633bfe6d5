"""Parameters of a kernel inside KeOps formulas."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["lazy"]


def lazy(parameters: Tensor, like: Any) -> Any:
    """Return parameters (n,), the same for every pair, as a LazyTensor in the precision of the LazyTensor `like`."""
    # imported here: KeOps looks for a compiler as soon as it is imported
    from pykeops.torch import LazyTensor

    precision = like.variables[0]
    return LazyTensor(parameters.to(precision)[None, None].contiguous())
