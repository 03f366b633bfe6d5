"""Potential files of earlier formats in the form of today's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lrc_ase.models.descriptors.sphere.shape import smoothness
from lrc_ase.models.settings import DescriptorSettings, SphereSettings

__all__ = ["upgraded"]


def upgraded(tensors: Mapping[str, Tensor], version: int, descriptor: DescriptorSettings) -> dict[str, Tensor]:
    """Tensors as today's model has them, which predicts what the one of the file did.

    Until version 2 a sphere descriptor mixed alike for all elements and scaled each mixed factor by the element; its
    radial functions were of equal size.
    """
    new = dict(tensors)
    if version > 2 or not isinstance(descriptor, SphereSettings):
        return new
    sizes = torch.from_numpy(smoothness(descriptor.n_radial))
    for name, scale in tensors.items():
        block = name.removesuffix("center_scale")
        if block != name and f"{block}mixing" in tensors:
            del new[name]
            mixing = tensors[f"{block}mixing"]
            mixing = mixing / sizes.to(mixing).repeat(mixing.shape[1] // len(sizes))[:, None]
            new[f"{block}mixing"] = mixing
            new[f"{block}element_mixing"] = mixing * (scale[:, None, None] - 1)
    return new
