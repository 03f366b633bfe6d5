"""The interface of kernels: a table over waves, values over distances, the value at the origin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrc_ase.layer.truncation import truncate_numerically

__all__ = [
    "Multiplier",
    "WaveNumbers",
    "apply_kernel",
    "check_smearing",
    "numbers_of_channels",
    "positive_numbers",
    "rows_of_channels",
    "same_length",
]


@dataclass(frozen=True)
class WaveNumbers:
    """Where a multiplier is evaluated; 1/Angstrom.

    With open directions, waves form a grid in which periodic and open components are independent of each other and
    perpendicular. Boxes are padded in the open directions to fixed lengths, so nothing there depends on the cell.
    """

    squared: Tensor
    """:math:`|k|^2`, any shape; with open directions (n_structures, *half mesh)."""
    dimension: int
    n_open: int = 0
    """Number of open directions."""
    periodic_squared: Tensor | None = None
    """Part of `squared` in the periodic directions, with axes of length 1 for the open ones."""
    open_squared: Tensor | None = None
    """Part of `squared` in the open directions, with axes of length 1 for the periodic ones. A constant."""
    truncation: Tensor | None = None
    """Distance R in the open directions beyond which the kernel is cut off, Angstrom, (n_structures, 1, ...)."""

    def split(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return periodic part, open part and truncation, where there are open directions."""
        assert self.periodic_squared is not None
        assert self.open_squared is not None
        assert self.truncation is not None
        return self.periodic_squared, self.open_squared, self.truncation


class Multiplier(nn.Module):
    """Base of kernels, which are applied channel by channel.

    A kernel sets `n_channels` and `smearing` and defines `fourier`. The self term needs `at_origin`, unless the layer
    has `remove_self=False`; sums over pairs in open space need `radial`.
    """

    n_channels: int
    smearing: float = 0.0
    """Width of the narrowest Gaussian in the kernels, Angstrom: what a mesh converges with."""
    accuracy_factor: float = 1.0
    """Accuracy asked of the mesh over that asked by the user: below 1 where much of the kernel is at high k."""
    is_matrix: bool = False
    """True if every output sums over all inputs; see `Matrix`."""
    radial_in_every_dimension: bool = False
    """True if `radial` is the same function in one and two dimensions."""
    breakpoints: tuple[float, ...] = ()
    """Wave numbers at which a derivative of the multiplier jumps, 1/Angstrom."""

    @property
    def n_inputs(self) -> int:
        """Return the number of channels of the weights."""
        return self.n_channels

    @property
    def n_outputs(self) -> int:
        """Return the number of channels of the field."""
        return self.n_channels

    @property
    def largest_smearing(self) -> float:
        """Return the width of the widest Gaussian by which a truncated kernel is smeared, Angstrom."""
        return self.smearing

    def extra_repr(self) -> str:
        return f"n_channels={getattr(self, 'n_channels', None)}, smearing={self.smearing:g}"

    def state(self) -> tuple[tuple[int, int], ...] | None:
        """Return values that change when a parameter does; None if one is trained, so that nothing can be kept."""
        parameters = _parameters(self)
        if any(parameter.requires_grad for parameter in parameters):
            return None
        # autograd's counter of changes in place, and the address, which changes where a tensor is replaced
        return tuple((parameter.data_ptr(), parameter._version) for parameter in parameters)

    def forward(self, waves: WaveNumbers) -> Tensor:
        """Evaluate the multiplier, (*waves, n_channels); zero at waves where the kernel is infinite."""
        # only with open directions does the kernel need a cut-off, so that padding hides the images
        if waves.n_open == 0:
            return self.fourier(waves.squared, waves.dimension)
        return self.truncated(waves)

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        """Evaluate the kernel's Fourier transform at `squared` wave numbers, (*squared, n_channels)."""
        raise TypeError(f"{type(self).__name__} does not define a Fourier multiplier")

    def truncated(self, waves: WaveNumbers) -> Tensor:
        """Evaluate the transform of the kernel cut off in the open directions, (*waves, n_channels).

        By quadrature unless a kernel overrides it with a closed form.
        """
        # the quadrature over open waves ends where the Gaussian has died out: without one it would not end
        if not self.smearing > 0:
            raise ValueError(
                f"{type(self).__name__} without smearing cannot be truncated in open directions: give the multiplier "
                "`smearing` > 0, or make every direction periodic"
            )
        periodic, open_part, radius = waves.split()

        # k^2 = periodic part + open part: only the latter is integrated over
        def transform(squared: Tensor) -> Tensor:
            return self.fourier(squared, waves.dimension)

        return truncate_numerically(
            transform, periodic, open_part, radius, waves.n_open, self.smearing, self.breakpoints
        )

    def radial(self, distances: Tensor) -> Tensor:
        """Evaluate the kernel in real space in three dimensions, (*distances, n_channels)."""
        raise ValueError(
            f"{type(self).__name__} has no form in real space, in which few atoms in open space are summed: define "
            "`radial`, or make a direction periodic"
        )

    def radial_slope(self, distances: Tensor, n: int) -> Tensor:
        """Evaluate the derivative of `radial` over the distance, phi'(r)/r, of the first channels, (*distances, n)."""
        raise ValueError(f"{type(self).__name__} has no derivative in real space: gradients need Coulomb or Yukawa")

    def keops_radial(self, squared: Any) -> Any:
        """Write `radial` as a KeOps formula of squared distances, a LazyTensor; None where KeOps cannot."""
        return None

    def arranged(self, values: Tensor) -> Tensor:
        """Reshape values (..., n_channels) as `apply_kernel` takes them: (..., n_outputs, n_inputs) for a matrix."""
        return values

    def at_origin(self, dimension: int) -> Tensor:
        """Evaluate the kernel at distance zero, for the self term, (n_channels,)."""
        raise ValueError(
            f"{type(self).__name__} has no closed form at the origin in {dimension} dimensions: define `at_origin`, or "
            "use remove_self=False"
        )


def _parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a module and its children."""
    # `nn.Module.parameters` takes five times as long, and the layer asks at every call
    parameters = [parameter for parameter in module._parameters.values() if parameter is not None]
    for child in module._modules.values():
        if child is not None:
            parameters += _parameters(child)
    return parameters


def apply_kernel(kernel: Tensor, weights: Tensor) -> Tensor:
    """Multiply weights by kernel values (..., n_channels), or by a matrix of them (..., n_outputs, n_inputs)."""
    if kernel.ndim == weights.ndim:  # channel by channel; a matrix has one axis more
        return kernel * weights
    return (kernel * weights.unsqueeze(-2)).sum(dim=-1)  # (..., n_outputs, n_inputs) * (..., 1, n_inputs)


def check_smearing(smearing: float) -> None:
    if not smearing >= 0 or math.isinf(smearing):  # `not >=`: NaN is refused too
        raise ValueError(f"`smearing` must be zero or a positive length in Angstrom, got {smearing}")


def numbers_of_channels(name: str, values: Sequence[float]) -> list[float]:
    """Return `values` as a list; raise a `TypeError` for what is no sequence of numbers, such as a single one."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must hold one number per channel, as in [1.0], got {values!r}") from error


def rows_of_channels(name: str, values: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return `values` as lists; raise a `TypeError` for what is no sequence of sequences of numbers."""
    try:
        return [[float(value) for value in row] for row in values]
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must hold one row per channel, as in [[1.0, 2.0]], got {values!r}") from error


def positive_numbers(name: str, values: Sequence[float], remedy: str = "") -> Tensor:
    """Return `values` in float64; raise a `ValueError` unless there are some and all are positive and finite."""
    values = numbers_of_channels(name, values)
    if len(values) == 0 or not all(0 < value < math.inf for value in values):
        raise ValueError(f"`{name}` must hold one positive number per channel, got {values}{remedy}")
    return torch.tensor(values, dtype=torch.float64)  # all digits until the model is cast


def same_length(name: str, values: Sequence[float] | None, other: str, n_channels: int) -> Tensor:
    """Return `values` in float64, one per channel, ones for None; raise a `ValueError` for others."""
    values = [1.0] * n_channels if values is None else numbers_of_channels(name, values)
    if len(values) != n_channels:
        raise ValueError(f"`{name}` must have the length of `{other}` ({n_channels}), got {len(values)}")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"`{name}` must hold finite numbers, got {values}")
    return torch.tensor(values, dtype=torch.float64)
