"""Potential files of earlier formats in the form of today's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lrc_ase.models.descriptors.sphere.shape import smoothness
from lrc_ase.models.settings import ModelSettings, SphereSettings

__all__ = ["upgraded"]


def upgraded(tensors: Mapping[str, Tensor], version: int, settings: ModelSettings) -> dict[str, Tensor]:
    """Return the tensors as today's model has them, which predicts what the one of the file did.

    Until version 2 a sphere descriptor mixed alike for all elements and scaled each mixed factor by the element; its
    radial functions were of equal size. A ValueError names a tensor whose shape does not allow that.
    """
    new = dict(tensors)
    if version > 2 or not isinstance(settings.descriptor, SphereSettings):
        return new
    sizes = torch.from_numpy(smoothness(settings.descriptor.n_radial))
    for name, scale in tensors.items():
        block = name.removesuffix("center_scale")
        if block != name and f"{block}mixing" in tensors:
            del new[name]
            mixing = tensors[f"{block}mixing"]  # (n_degrees, n_radial * n_weights, n_channels)
            # compared first: a product of mismatched shapes could be of any size
            if mixing.ndim != 3 or mixing.shape[1] % len(sizes):
                raise ValueError(f"tensor '{block}mixing' has shape {list(mixing.shape)}, which no sphere has")
            if scale.shape != (len(settings.elements), mixing.shape[2]):
                raise ValueError(
                    f"tensor '{name}' must have shape {[len(settings.elements), mixing.shape[2]]}, "
                    f"got {list(scale.shape)}"
                )
            mixing = mixing / sizes.to(mixing).repeat(mixing.shape[1] // len(sizes))[:, None]
            new[f"{block}mixing"] = mixing
            new[f"{block}element_mixing"] = mixing * (scale[:, None, None] - 1)
    return new
